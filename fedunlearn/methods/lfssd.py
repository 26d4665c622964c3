"""LFSSD: Loss-Free SSD (Foster et al., arXiv 2402.19308). Needs no labels of what is forgotten.

Evidence and yardstick: Omega_i = mean of |d ||f(x)||^2 / d theta_i|, the sensitivity of the outputs' squared norm. Update:
SSD's rule (`dampening`). The paper gives no alpha; "auto" chooses it.

Differs: absolute values per sample instead of those of batch means. In the paper every model has evidence of its own
(`per_heir`); by default it is taken from the roots and inherited, as FIUn does with the Fisher.
"""

from dataclasses import dataclass

from fedunlearn.methods.base import Want
from fedunlearn.methods.dampening import Dampening


@dataclass(frozen=True)
class LFSSD(Dampening):
    """Dampening by sensitivities.

    Args:
        per_heir: evidence of each heir itself, as in the paper; or of its roots.
    """

    per_heir: bool = False
    name = "lfssd"
    evidence = Want("absolute", "norm")
    own = Want("absolute", "norm")
