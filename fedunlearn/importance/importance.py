"""Sums over samples, and their algebra."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import isfinite
from typing import Self

import torch

from fedunlearn.errors import ShapeError, unknown
from fedunlearn.tensors import Tensors, same

NON_NEGATIVE = frozenset({"squares", "absolute"})  # statistics whose sums cannot be below zero
ROUNDING = 1e-5  # how far below zero, relative to what it is taken from, a difference may fall: float32 nets add no better
TINY = 1e-9  # the same, relative to the largest entry, where an entry itself is as good as nothing


@dataclass(frozen=True)
class Importance:
    """Sums over samples of some statistics of each parameter, and how many samples there were.

    Sums (not means) are what pools: `a + b` is the importance on both sets, `all - forget` on what is left. They are
    float64, so that `all - forget` equals a fresh measurement of the rest to 1e-10 of `all` where the net is of float64, too;
    of float32 nets to some 1e-6, whatever batch a row was in.

    Args:
        sums: statistic -> parameter -> float64 sum, shaped as the parameter.
        count: how many samples were summed.

    Raises:
        ShapeError: a sum is not float64 or not finite, a sum of squares is negative, or the count is.
    """

    sums: Mapping[str, Tensors]
    count: int

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ShapeError(f"importance: count is {self.count}, expected 0 or more samples")
        for statistic, tensors in self.sums.items():
            for name, tensor in tensors.items():
                what = f"importance: {statistic} of {name!r}"
                if tensor.dtype != torch.float64:
                    raise ShapeError(f"{what} is {tensor.dtype}, expected torch.float64")
                low, high = tensor.aminmax() if tensor.numel() else (torch.zeros(()), torch.zeros(()))
                if not (isfinite(low.item()) and isfinite(high.item())):  # NaN passes through both
                    bad = int((~torch.isfinite(tensor)).sum())
                    raise ShapeError(f"{what} has {bad} entries that are NaN or infinite; check the model and its data")
                if statistic in NON_NEGATIVE and low.item() < 0:
                    raise ShapeError(f"{what} has negative entries (least {low.item():g}); {statistic} have none")

    def __add__(self, other: Self) -> "Importance":
        """Pool two disjoint sets of samples. Commutes, to the bit.

        Raises:
            ShapeError: statistics, names or shapes differ.
        """
        self._agree(other)
        sums = {s: {n: t + other.sums[s][n] for n, t in ts.items()} for s, ts in self.sums.items()}
        return Importance(sums, self.count + other.count)

    def __sub__(self, part: Self) -> "Importance":
        """Take a subset of the samples out again; negatives that rounding explains become zero.

        Raises:
            ShapeError: statistics, names or shapes differ, or `part` cannot be a part of this.
        """
        self._agree(part)
        sums: dict[str, dict[str, torch.Tensor]] = {}
        for statistic, tensors in self.sums.items():
            sums[statistic] = {n: t - part.sums[statistic][n] for n, t in tensors.items()}
            if statistic in NON_NEGATIVE:
                for name, rest in sums[statistic].items():
                    size = tensors[name]
                    if bool((rest < -ROUNDING * size - TINY * float(size.max() if rest.numel() else 0.0)).any()):
                        raise ShapeError(
                            f"importance: {statistic} of {name!r} would fall below zero; what is taken "
                            f"away was not part of the sum"
                        )
                    rest.clamp_(min=0)
        return Importance(sums, self.count - part.count)

    def mean(self, statistic: str = "squares") -> dict[str, torch.Tensor]:
        """Sum over count, float64.

        Raises:
            ShapeError: there are no samples.
            InputError: the statistic was not measured.
        """
        if statistic not in self.sums:
            raise unknown("statistic", statistic, self.sums, where="importance")
        if not self.count:
            raise ShapeError("importance: a mean over no samples; nothing of what was asked for was found")
        return {name: tensor / self.count for name, tensor in self.sums[statistic].items()}

    def _agree(self, other: Self) -> None:
        if self.sums.keys() != other.sums.keys():
            raise ShapeError(f"importance: statistics differ: {sorted(self.sums)} and {sorted(other.sums)}")
        for statistic in self.sums:
            same(self.sums[statistic], other.sums[statistic], f"importances ({statistic})")


def pool(parts: Sequence[Importance]) -> Importance:
    """Sum of importances measured on one model, folded in the given order.

    Raises:
        ShapeError: there is nothing to pool, or the parts disagree.
    """
    if not parts:
        raise ShapeError("importance: nothing to pool")
    return reduce(lambda a, b: a + b, parts)


def merge(evidence: Sequence[Tensors]) -> dict[str, torch.Tensor]:
    """Merging-FIM (FIUn, arXiv 2408.08493): the elementwise maximum over means measured on different models.

    Commutative, idempotent, and nowhere below any of its parts. A name that only some parts have keeps their maximum.

    Args:
        evidence: one set of non-negative means a root, already aligned to one model.

    Returns:
        The maximum, name by name.

    Raises:
        ShapeError: there is nothing to merge, or shapes differ.
    """
    if not evidence:
        raise ShapeError("importance: nothing to merge")
    merged: dict[str, torch.Tensor] = {}
    for part in evidence:
        for name, tensor in part.items():
            if name in merged and merged[name].shape != tensor.shape:
                raise ShapeError(f"importance: {name!r} has shapes {tuple(merged[name].shape)} and {tuple(tensor.shape)}")
            merged[name] = torch.maximum(merged[name], tensor) if name in merged else tensor.clone()
    return merged
