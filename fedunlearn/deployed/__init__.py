"""A real Flower deployment: an app that carries out one order, and the way to submit it and to bring its answer home.

`app/` is what travels to the SuperLink: a few lines that import from the fedunlearn that is installed there. The family lives
with the ServerApp process, in the folder that FEDUNLEARN_FAMILIES names there; each site's file is named by its own SuperNode,
as `site-file` in its node_config.
"""

from fedunlearn.deployed.homecoming import Copy as Copy
from fedunlearn.deployed.order import ACTIONS as ACTIONS, Order as Order
from fedunlearn.deployed.submit import Deployment as Deployment
