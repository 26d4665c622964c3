"""Named tensors, and how those of one model line up with those of another: by name, by shape, rows of a head by class."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from fedunlearn.errors import ShapeError, few, unknown

Tensors = Mapping[str, Tensor]
PRECISIONS = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Head:
    """The last linear layer of a classifier: row `i` of `layer.weight` is the output for `classes[i]`."""

    layer: str
    classes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, str]:
        """Names of its parameters; a head without bias simply lacks the second."""
        return f"{self.layer}.weight", f"{self.layer}.bias"


def finite(tensor: Tensor) -> bool:
    """Whether no entry is NaN or infinite.

    By the sum, which is many times as fast; a sum of finite numbers may be infinite, then each is looked at.
    """
    return not tensor.is_floating_point() or isfinite(tensor.sum().item()) or bool(torch.isfinite(tensor).all())


def rounded(tensors: Tensors, precision: str) -> dict[str, Tensor]:
    """Values that a narrower type can hold, in the type that they had.

    Args:
        tensors: to be rounded.
        precision: one of `PRECISIONS`.

    Raises:
        InputError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    return {n: t.to(PRECISIONS[precision]).to(t.dtype) for n, t in tensors.items()}


def align(
    source: Tensors, source_head: Head, shapes: Mapping[str, Sequence[int]], head: Head, *, share_head: bool
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Non-negative evidence of one model, in the coordinates of another.

    A parameter is shared when name and shape agree. Rows of the head are matched by class name, never by position, and
    only when `share_head` says that the head was inherited (a transfer replaces it, and equal class names mean
    nothing then). Rows without a counterpart are zero, which no rule selects.

    Args:
        source: evidence, keyed by parameter name.
        source_head: head of the model it was measured on.
        shapes: shape of every parameter of the target.
        head: head of the target.
        share_head: whether the target's head descends from the source's.

    Returns:
        The aligned evidence, and the target's parameters that share nothing with the source.
    """
    found: dict[str, Tensor] = {}
    pairs = dict(zip(head.names, source_head.names, strict=True))
    common = [(i, source_head.classes.index(c)) for i, c in enumerate(head.classes) if c in source_head.classes]
    for name, shape in shapes.items():
        if name in pairs:
            origin = source.get(pairs[name])
            if share_head and origin is not None and tuple(origin.shape[1:]) == tuple(shape[1:]):
                if head.classes == source_head.classes:
                    found[name] = origin
                elif common:
                    rows = origin.new_zeros(tuple(shape))
                    here, there = (list(index) for index in zip(*common, strict=True))
                    rows[here] = origin[there]
                    found[name] = rows
        elif name in source and tuple(source[name].shape) == tuple(shape):
            found[name] = source[name]
    return found, tuple(name for name in shapes if name not in found)


def average(models: Sequence[Tensors], weights: Sequence[float] | None = None) -> dict[str, Tensor]:
    """Weighted mean of models, name by name, summed in float64 in the given order; whole-number buffers keep the first.

    Raises:
        ShapeError: the models do not have the same names and shapes.
    """
    first = models[0]
    for other in models[1:]:
        same(first, other, "models to be averaged")
    share = [1.0] * len(models) if weights is None else [float(w) for w in weights]
    total = sum(share)
    out: dict[str, Tensor] = {}
    for name, tensor in first.items():
        if tensor.is_floating_point():
            mean = sum((m[name].double() * (w / total) for m, w in zip(models, share, strict=True)), torch.zeros(()))
            out[name] = mean.to(tensor.dtype)
        else:
            out[name] = tensor.clone()
    return out


def same(a: Tensors, b: Tensors, what: str) -> None:
    """Check that two sets of tensors have the same names and shapes.

    Raises:
        ShapeError: they do not; says which name, and both shapes.
    """
    if a.keys() != b.keys():
        raise ShapeError(
            f"{what}: names differ: only in the first {few(sorted(a.keys() - b.keys())) or 'none'}, only in the second "
            f"{few(sorted(b.keys() - a.keys())) or 'none'}"
        )
    for name in a:
        if a[name].shape != b[name].shape:
            raise ShapeError(
                f"{what}: {name!r} has shape {tuple(a[name].shape)} in one and {tuple(b[name].shape)} in the other"
            )


def equal(a: Tensors, b: Tensors) -> bool:
    """Whether two sets of tensors are equal to the bit."""
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


def names_in(layers: str | Sequence[str], names: Collection[str], head: Head) -> tuple[str, ...]:
    """Parameters that `layers` asks for: "all", "last" (the head), or names of layers or parameters (a list, or with commas).

    Raises:
        InputError: a name fits no parameter (a silent no-op would look like forgetting).
    """
    if layers == "all":
        return tuple(names)
    if layers == "last":
        return tuple(n for n in names if n in head.names)
    asked = [one.strip() for one in layers.split(",")] if isinstance(layers, str) else list(layers)
    for one in asked:
        if not any(_under(n, one) for n in names):
            raise unknown("layer or parameter", one, [*names, *(n.rpartition(".")[0] for n in names)], where="layers")
    return tuple(n for n in names if any(_under(n, one) for one in asked))


def _under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")
