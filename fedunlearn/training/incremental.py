"""Incremental learning: one site trains a model on, all layers, perhaps with more outputs than before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from fedunlearn.nets import device_of, load
from fedunlearn.tensors import Head, Tensors, align
from fedunlearn.training.base import Born, Portion, Recipe, born
from fedunlearn.training.fit import fit


@dataclass(frozen=True)
class Anchor:
    """Elastic weight consolidation (EWC, Kirkpatrick et al. 2017, arXiv 1612.00796, equation 3).

    Adds `strength / 2 * sum(fisher * (theta - start)^2)` to the loss: what mattered to the rows before is held in place.

    Args:
        fisher: mean squared gradients by parameter, in the shapes of the model to be trained; others are free.
        start: where it is held.
        strength: lambda of the paper.
    """

    fisher: Tensors
    start: Tensors
    strength: float

    @classmethod
    def of(cls, fisher: Tensors, old: Head, start: Tensors, head: Head, strength: float) -> Self:
        """From a Fisher diagonal of the model before: rows of the head are matched by name, new ones are free."""
        shapes = {n: tuple(t.shape) for n, t in start.items()}
        aligned, _ = align(fisher, old, shapes, head, share_head=True)
        return cls({n: t.to(start[n].dtype) for n, t in aligned.items()}, start, strength)

    def __call__(self, net: nn.Module) -> Tensor:
        """The penalty for a net's present parameters."""
        total = torch.zeros((), device=device_of(net))
        for name, p in net.named_parameters():
            if name in self.fisher:
                weight, held = self.fisher[name].to(p.device), self.start[name].to(p.device)
                total = total + (weight * (p - held).square()).sum()
        return self.strength / 2 * total


def incremental(
    recipe: Recipe, make: Callable[[], nn.Module], start: Tensors, portions: Sequence[Portion], anchor: Anchor | None = None
) -> Born:
    """Fine-tune on one site's rows.

    Args:
        recipe: settings.
        make: makes an empty net.
        start: the weights to start from (see `grow_head` for more outputs than before).
        portions: the site's rows, those that are replayed included.
        anchor: holds on to what was learnt before.

    Returns:
        The model; equal to its start where the site holds no row.
    """
    net = fit(load(make(), start), portions, recipe, penalty=anchor)
    return born("incremental", recipe, net, portions)


def grow_head(weights: Tensors, fresh: Tensors, old: Head, new: Head) -> dict[str, Tensor]:
    """A model with more outputs: rows of its head stay under their names, new ones are fresh.

    Args:
        weights: the model before.
        fresh: a model of the same architecture with the new number of outputs.
        old: its head before.
        new: its head after; names every class of the old one.
    """
    found = {n: t.clone() for n, t in weights.items() if n not in old.names}
    index = [new.classes.index(c) for c in old.classes]
    for before, after in zip(old.names, new.names, strict=True):
        if after in fresh:
            rows = fresh[after].clone()
            rows[index] = weights[before].to(rows.dtype)
            found[after] = rows
    return {n: found[n] for n in fresh}
