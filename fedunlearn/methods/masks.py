"""Setting units to zero: what FisherMask, ActivationMask and the random mask share."""

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedunlearn.errors import InputError
from fedunlearn.methods.base import Case, Method, Strength
from fedunlearn.tensors import Tensors

LEAST, MOST, STEPS = 1e-4, 0.5, 64  # shares of units between which "auto" searches, and in how many steps


@dataclass(frozen=True)
class ByRatio(Method, ABC):
    """A mask whose strength is a share of units.

    Args:
        ratio: share of units, or "auto".

    Raises:
        InputError: the ratio is no fraction.
    """

    ratio: float | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.ratio != "auto" and not (isinstance(self.ratio, int | float) and 0 <= self.ratio <= 1):
            raise InputError(f"{self.name}: ratio is {self.ratio!r}, expected a fraction from 0 to 1, or 'auto'")

    def strengths(self, case: Case) -> Sequence[Strength]:
        """Shares of units in geometric steps, or the one that was given."""
        del case
        return steps(STEPS) if self.ratio == "auto" else [{"ratio": float(self.ratio)}]


def steps(number: int) -> list[Strength]:
    """So many shares of units."""
    return [{"ratio": LEAST * (MOST / LEAST) ** (i / (number - 1))} for i in range(number)]


def units(weight: Tensor) -> Tensor:
    """One number a unit: a kernel of a convolution ([out, in], its mean), a single weight of a linear layer."""
    return weight.flatten(2).mean(2) if weight.dim() > 2 else weight


def top(scores: Mapping[str, Tensor], ratio: float) -> dict[str, Tensor]:
    """Which units are among the `ratio` with the highest scores, over all layers together; those at or below 0 never are.

    Ties are broken by the order of names and of entries.
    """
    names = sorted(scores)
    if not names:
        return {}
    flat = torch.cat([scores[n].double().flatten() for n in names])
    number = min(round(ratio * len(flat)), int((flat > 0).sum()))
    chosen = torch.zeros(len(flat), dtype=torch.bool)
    chosen[flat.argsort(descending=True, stable=True)[:number]] = True
    parts = torch.split(chosen, [scores[n].numel() for n in names])
    return {n: part.view(scores[n].shape) for n, part in zip(names, parts, strict=True)}


def zeroed(weights: Tensors, chosen: Tensors) -> dict[str, Tensor]:
    """Weights with the chosen units of each parameter at zero."""
    edited = dict(weights)
    for name, unit in chosen.items():
        shape = (*unit.shape, *[1] * (weights[name].dim() - unit.dim()))
        edited[name] = weights[name].masked_fill(unit.view(shape), 0.0)
    return edited


def names_of(means: Sequence[Tensors], weights: Tensors) -> list[str]:
    """Weights of layers (matrices and kernels) that all of several measurements cover."""
    common = set(weights).intersection(*means)
    return sorted(n for n in common if weights[n].dim() >= 2)
