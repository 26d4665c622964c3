"""The rule that FIUn, SSD and LFSSD share: dampen weights that matter more to what is forgotten than to the model's own data.

Selective Synaptic Dampening (SSD, arXiv 2308.07707), equations 3 and 4: where M_i > alpha * F_i,
theta_i <- min(lam * F_i / M_i, 1) * theta_i. Its reference code squares gradients of batch means; here M and F are exact.
"""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log
from typing import Literal

import torch

from fedunlearn.errors import InputError
from fedunlearn.methods.base import Case, Method, Strength, shares_nothing
from fedunlearn.tensors import Tensors

SHARE = 0.1  # lam / alpha under "auto", as in SSD: the most that selected weights keep of themselves
STEPS = 128  # of alpha, of each kind


@dataclass(frozen=True)
class Dampening(Method, ABC):
    """What those methods have in common; they differ in what is measured, on which model, and in how it merges.

    Args:
        alpha: threshold on evidence over own importance, 0 or more; "auto" chooses it for each heir by forward passes,
            "percentile" by ASSD's rule from the numbers of rows alone.
        lam: how far selected weights are dampened, from 0 (to nothing) up; "auto" takes `SHARE` of alpha, and 1 with
            "percentile", as ASSD has it. A constant leaves every weight as it is in a model so sure of what is to be forgotten
            that M is far below F, whatever alpha selects.
        layers: "all", "last", or the name of a layer or parameter.

    Raises:
        InputError: a setting is out of range.
    """

    alpha: float | Literal["auto", "percentile"] = "auto"
    lam: float | Literal["auto"] = "auto"
    layers: str = "all"

    def __post_init__(self) -> None:
        for what, words in (("alpha", ("auto", "percentile")), ("lam", ("auto",))):
            value = getattr(self, what)
            if value not in words and not (isinstance(value, int | float) and 0 <= value < inf):
                named = " or ".join(map(repr, words))
                raise InputError(f"{self.name}: {what} is {value!r}, expected a number from 0 up, or {named}")

    def misses(self, case: Case) -> str | None:
        """An heir that shares no parameter with the evidence."""
        return None if case.merged else shares_nothing(self.layers)

    def strengths(self, case: Case) -> Sequence[Strength]:
        """All alphas, each with its lam, from few weights selected to all."""
        if self.alpha == "auto":
            alphas = thresholds(case.merged, case.own.means, STEPS)
        else:
            alphas = (percentile(case) if self.alpha == "percentile" else float(self.alpha),)
        return [{"alpha": a, "lam": self._lam(a)} for a in alphas]

    def _lam(self, alpha: float) -> float:
        if self.lam != "auto":
            return float(self.lam)
        if self.alpha == "percentile":
            return 1.0
        return SHARE * alpha if alpha < inf else 0.0

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
        """Dampen (SSD, equations 3 and 4)."""
        return dampen(weights, case.merged, case.own.means, strength["alpha"], strength["lam"])


def dampen(weights: Tensors, evidence: Tensors, own: Tensors, alpha: float, lam: float) -> dict[str, torch.Tensor]:
    """Apply the rule to every parameter that both importances cover.

    Args:
        weights: the model.
        evidence: M, non-negative means, shaped as the weights.
        own: F, the same.
        alpha: weights are selected where M > alpha * F.
        lam: selected weights are multiplied by lam * F / M, never by more than 1.

    Returns:
        New weights; unselected entries are equal to the bit.
    """
    edited = dict(weights)
    for name in evidence.keys() & own.keys() & weights.keys():
        m, f, w = evidence[name], own[name], weights[name]
        factor = (lam * f / m).clamp(max=1.0)  # read only where selected, and there m > 0
        edited[name] = torch.where(m > alpha * f, (w.double() * factor).to(w.dtype), w)
    return edited


def thresholds(evidence: Tensors, own: Tensors, steps: int) -> tuple[float, ...]:
    """Values of alpha that select from one weight to all, fewest first: in geometric steps, in even ones where these are finer.

    Any fixed grid is right by luck: the useful alpha differs 1000-fold between heirs. Steps in how many weights are
    selected fit every model.

    Args:
        evidence: M.
        own: F.
        steps: how many of each kind; fewer where weights are few.
    """
    ratio = _ratios(evidence, own).sort(descending=True).values
    n = len(ratio)
    ranks = {round(n ** (i / steps)) for i in range(steps)} | {round(n * i / steps) for i in range(1, steps)}
    some = (float(ratio[k]) for k in sorted(ranks) if 0 < k < n)
    return (*dict.fromkeys(some), float(ratio[-1]) / 2 if n else 0.0)


def percentile(case: Case) -> float:
    """Adaptive SSD's alpha (ASSD, arXiv 2402.10098): the p-th percentile of M / F, p = 100 - ln(1 + 100 |D_f| / |D|).

    Differs: there F is of the retained data, here of all the model's own, as SSD has it; and the percentile is there among all
    weights, here among those with evidence (M > 0), so that weights which the forgotten data never touches do not set it.
    """
    ratio = _ratios(case.merged, case.own.means)
    if not len(ratio) or not case.own.rows:
        return inf  # there is nothing to select
    share = log(1 + 100 * case.evidence[0].rows / case.own.rows)
    at = (len(ratio) - 1) * max(0.0, 1 - share / 100)
    return float(ratio.sort().values[round(at)])


def _ratios(evidence: Tensors, own: Tensors) -> torch.Tensor:
    """M / F of all weights that have evidence, where it is finite."""
    ratios = [(evidence[n] / own[n]).flatten() for n in sorted(evidence.keys() & own.keys())]
    ratio = torch.cat(ratios) if ratios else torch.zeros(0)
    return ratio[torch.isfinite(ratio) & (ratio > 0)]
