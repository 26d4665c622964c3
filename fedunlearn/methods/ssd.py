"""SSD: Selective Synaptic Dampening (Foster et al., arXiv 2308.07707), on each model by itself.

Evidence: the diagonal Fisher of what is forgotten, measured on the very model that is edited; equations 3 and 4 (`dampening`).
Forgotten rows stay at their sites: the heirs' weights go there, which no deployment grants by itself. A comparison for FIUn,
which takes the evidence from the roots instead (`per_heir` false is FIUn).

Differs: exact Fishers instead of squared batch means, so that the paper's alpha of 10 (for its batches of 64, sorted by class)
does not carry over; "auto" or ASSD's "percentile" choose it.
"""

from dataclasses import dataclass

from fedunlearn.methods.dampening import Dampening


@dataclass(frozen=True)
class SSD(Dampening):
    """Dampening with each heir's own evidence.

    Args:
        per_heir: evidence of each heir itself, as in the paper; or of its roots.
    """

    per_heir: bool = True
    name = "ssd"
