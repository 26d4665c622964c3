"""How models are born: one loop, and one file a kind of birth."""

from fedunlearn.training.base import Born as Born
from fedunlearn.training.base import Portion as Portion
from fedunlearn.training.base import Recipe as Recipe
from fedunlearn.training.base import seed_of as seed_of
from fedunlearn.training.course import Course as Course
from fedunlearn.training.distributed import distributed as distributed
from fedunlearn.training.federated import federated as federated
from fedunlearn.training.federated import in_rounds as in_rounds
from fedunlearn.training.federated import kept_rounds as kept_rounds
from fedunlearn.training.federated import train_here as train_here
from fedunlearn.training.fit import fit as fit
from fedunlearn.training.incremental import Anchor as Anchor
from fedunlearn.training.incremental import grow_head as grow_head
from fedunlearn.training.incremental import incremental as incremental
from fedunlearn.training.start import start_of as start_of
from fedunlearn.training.strategies import STRATEGIES as STRATEGIES
from fedunlearn.training.transfer import transfer as transfer
