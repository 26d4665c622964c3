"""FIUn: Fisher Inheritance Unlearning (Liu et al., "Parallel Unlearning in Inherited Model Networks", arXiv 2408.08493).

Evidence: the diagonal Fisher of what is forgotten, measured at the roots only. Merging-FIM: the elementwise maximum over
the roots. Update: SSD's dampening rule at every heir at once, with the heir's own Fisher as the yardstick.

Differs from the paper's public code, on purpose: one squared gradient per sample instead of squared batch means; evidence
merged over each heir's own ancestors instead of over all roots; no constant divisor on the merged evidence; `alpha` and
`lam` chosen for each heir by forward passes on calibration rows instead of by hand for each architecture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from fedunlearn.errors import InputError
from fedunlearn.importance import merge
from fedunlearn.methods.base import Case, Method, Strength
from fedunlearn.methods.dampening import dampen, thresholds
from fedunlearn.tensors import Tensors

ALPHAS = 16  # how many thresholds "auto" tries
LAMS = (1.0, 0.1)  # what "auto" tries for lam; 1 is the papers' value, 0.1 forgets where 1 cannot


@dataclass(frozen=True)
class FIUn(Method):
    """Merged Fisher evidence, dampening at every heir.

    Args:
        alpha: threshold on evidence over own importance, 0 or more; "auto" chooses it for each heir.
        lam: how far selected weights are dampened, from 0 (to nothing) up; "auto" tries `LAMS`.
        layers: "all", "last", or the name of a layer or parameter.

    Raises:
        InputError: a setting is out of range.
    """

    alpha: float | Literal["auto"] = "auto"
    lam: float | Literal["auto"] = "auto"
    layers: str = "all"
    name = "fiun"

    def __post_init__(self) -> None:
        for what in ("alpha", "lam"):
            value = getattr(self, what)
            if value != "auto" and not (isinstance(value, int | float) and 0 <= value < float("inf")):
                raise InputError(f"fiun: {what} is {value!r}, expected a number from 0 up, or 'auto'")

    def merge(self, evidence: Sequence[Tensors]) -> dict[str, torch.Tensor]:
        """Merging-FIM: the elementwise maximum."""
        return merge(evidence)

    def misses(self, case: Case) -> str | None:
        """An heir that shares no parameter with the evidence."""
        return None if case.evidence else f"needs deeper layers; it shares nothing with the evidence in layers {self.layers!r}"

    def strengths(self, case: Case) -> Sequence[Strength]:
        """All pairs of alpha and lam to try; for each lam, from few weights selected to all."""
        alphas = thresholds(case.evidence, case.own, ALPHAS) if self.alpha == "auto" else (float(self.alpha),)
        lams = LAMS if self.lam == "auto" else (float(self.lam),)
        return [{"alpha": a, "lam": lam} for lam in lams for a in alphas]

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
        """Dampen (SSD, equations 3 and 4)."""
        return dampen(weights, case.evidence, case.own, strength["alpha"], strength["lam"])
