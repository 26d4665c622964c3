"""FIUn: Fisher Inheritance Unlearning (Liu et al., "Parallel Unlearning in Inherited Model Networks", arXiv 2408.08493).

Evidence: the diagonal Fisher of what is forgotten, measured at the roots only. Merging-FIM: the elementwise maximum over
the roots. Update: SSD's dampening rule at every heir at once, with the heir's own Fisher as the yardstick.

Differs from the paper's public code, on purpose: one squared gradient per sample instead of squared batch means; evidence
merged over each heir's own ancestors instead of over all roots; no constant divisor on the merged evidence; `alpha` and
`lam` chosen for each heir by forward passes on calibration rows instead of by hand for each architecture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fedunlearn.errors import unknown
from fedunlearn.methods.base import Evidence, merged
from fedunlearn.methods.dampening import Dampening
from fedunlearn.methods.robust import VOTES


def _sum(evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    total: dict[str, torch.Tensor] = {}
    for name, tensor in (pair for one in evidence for pair in one.means.items()):
        total[name] = total[name] + tensor if name in total else tensor
    return (Evidence(total, sum(e.rows for e in evidence)),)


def _mean(evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    (total,) = _sum(evidence)
    means = {n: t / sum(n in e.means for e in evidence) for n, t in total.means.items()}
    return (Evidence(means, max(e.rows for e in evidence)),)


MERGES = {"max": merged, "mean": _mean, "sum": _sum, **VOTES}


@dataclass(frozen=True)
class FIUn(Dampening):
    """Merged Fisher evidence, dampening at every heir.

    Args:
        merging: "max", as in the paper; "mean" and "sum" over the roots are ablations; "median", "trimmed" and "clipped" are
            over sites, and bear a minority of them that cheats (see `methods/robust.py`).

    Raises:
        InputError: a setting is out of range.
    """

    merging: str = "max"
    name = "fiun"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.merging not in MERGES:
            raise unknown("merging", self.merging, MERGES, where=self.name)

    @property
    def votes(self) -> bool:
        """A robust merge is over sites."""
        return self.merging in VOTES

    def merge(self, evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
        """Merging-FIM."""
        return MERGES[self.merging](evidence)
