"""Setting units to zero: what FisherMask, ActivationMask and the random mask share."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedunlearn.errors import InputError
from fedunlearn.methods.base import Strength
from fedunlearn.methods.calibration import beside
from fedunlearn.tensors import Tensors

LEAST, MOST = 1e-4, 0.5  # shares of units between which "auto" steps


def ratios(ratio: float | str, most: int) -> list[Strength]:
    """The shares of units to begin with: geometric steps, or the one that was given."""
    if ratio != "auto":
        return [{"ratio": float(ratio)}]
    number = max(2, most * 2 // 3)
    return [{"ratio": LEAST * (MOST / LEAST) ** (i / (number - 1))} for i in range(number)]


def finer_ratios(tried: Sequence[Strength], best: Strength) -> list[Strength]:
    """Shares beside the best."""
    return [{"ratio": r} for r in beside([s["ratio"] for s in tried], best["ratio"])]


def check_ratio(name: str, ratio: float | str) -> None:
    """Refuse what is no share.

    Raises:
        InputError: it is neither a fraction nor "auto".
    """
    if ratio != "auto" and not (isinstance(ratio, int | float) and 0 <= ratio <= 1):
        raise InputError(f"{name}: ratio is {ratio!r}, expected a fraction from 0 to 1, or 'auto'")


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
