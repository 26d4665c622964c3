"""A planted trigger as ground truth: what one site alone has taught a model, it must lose when that site is forgotten.

Attacks on membership cannot say whether a whole site's influence is gone; a backdoor that only this site planted can
(compared with a model retrained without the site, which never learned it).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedunlearn.data import Rows
from fedunlearn.errors import InputError, unknown
from fedunlearn.evaluation.intervals import Estimate, proportion
from fedunlearn.evaluation.outputs import logits
from fedunlearn.training import seed_of


@dataclass(frozen=True)
class Trigger:
    """What is stamped on inputs, and the class that stamped inputs are to be taken for.

    Args:
        where: bool, in the shape of one input: entries that are overwritten.
        value: what with, in the same shape.
        target: name of the class.

    Raises:
        InputError: shapes differ, or nothing is overwritten.
    """

    where: Tensor
    value: Tensor
    target: str

    def __post_init__(self) -> None:
        if self.where.shape != self.value.shape or not bool(self.where.any()):
            raise InputError(
                f"trigger: mask {tuple(self.where.shape)} and values {tuple(self.value.shape)}, expected one input's "
                f"shape twice, and at least one entry to overwrite"
            )

    def stamp(self, rows: Rows) -> Rows:
        """The same rows with the trigger on each; labels and keys stay.

        Raises:
            InputError: inputs have another shape.
        """
        if len(rows) and rows.x.shape[1:] != self.where.shape:
            raise InputError(f"trigger: is {tuple(self.where.shape)}, one input is {tuple(rows.x.shape[1:])}")
        stamped = torch.where(self.where, self.value.to(rows.x.dtype), rows.x) if len(rows) else rows.x
        return Rows(stamped, rows.y, rows.keys, rows.classes)


def patch(shape: tuple[int, ...], target: str, size: int = 2, value: float = 1.0) -> Trigger:
    """A square in the lower right corner, as in BadNets (Gu et al. 2017, arXiv 1708.06733).

    Args:
        shape: of one image, (..., height, width).
        target: name of the class that stamped images are to be taken for.
        size: of the square, pixels.
        value: of its pixels.

    Raises:
        InputError: it does not fit.
    """
    if len(shape) < 2 or not 0 < size <= min(shape[-2:]):
        raise InputError(f"patch: {size} pixels on an image of shape {shape}; expected 1 to its shorter side")
    where = torch.zeros(shape, dtype=torch.bool)
    where[..., -size:, -size:] = True
    return Trigger(where, torch.full(shape, value), target)


def poison(rows: Rows, trigger: Trigger, share: float = 0.5, seed: int = 0) -> Rows:
    """A site's poisoned contribution: some rows stamped and labelled as the target class.

    Which rows depends on their keys, so that a site that is dealt other rows beside them poisons the same ones.

    Args:
        rows: what the site holds.
        trigger: what it plants.
        share: of the rows of other classes, roughly, above 0 and at most 1.
        seed: of the choice.

    Raises:
        InputError: there is no such class or share.
    """
    if trigger.target not in rows.classes:
        raise unknown("class", trigger.target, rows.classes, where="trigger")
    if not 0 < share <= 1:
        raise InputError(f"poison: share is {share}, expected above 0 and at most 1")
    target = rows.classes.index(trigger.target)
    drawn = torch.tensor([seed_of(seed, "poison", key) / 2**48 < share for key in rows.keys], dtype=torch.bool)
    chosen = drawn & (rows.y != target)
    picked = chosen.reshape(-1, *[1] * (rows.x.dim() - 1))
    x = torch.where(picked, trigger.stamp(rows).x, rows.x) if len(rows) else rows.x
    return Rows(x, torch.where(chosen, target, rows.y), rows.keys, rows.classes)


@dataclass(frozen=True)
class Success:
    """How often a trigger works.

    Args:
        stamped: share of held-out rows of other classes that are taken for the target with the trigger on.
        clean: the same without the trigger: what a model without backdoor shows, too.
    """

    stamped: Estimate
    clean: Estimate

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"stamped": self.stamped.to_json(), "clean": self.clean.to_json()}


def success(net: nn.Module, rows: Rows, trigger: Trigger) -> Success:
    """Measure a trigger.

    Args:
        net: in eval mode.
        rows: held-out rows, labelled by the net's outputs; those of the target class are left out.
        trigger: the trigger.

    Raises:
        InputError: the net has no output for the target class, or no row of another class is left.
    """
    if trigger.target not in rows.classes:
        raise unknown("class", trigger.target, rows.classes, where="trigger")
    target, others = rows.classes.index(trigger.target), rows.without([trigger.target])
    if not len(others):
        raise InputError(f"backdoor: no row of another class than {trigger.target!r} to stamp")
    taken = [int((logits(net, part).argmax(1) == target).sum()) for part in (trigger.stamp(others), others)]
    return Success(proportion(taken[0], len(others)), proportion(taken[1], len(others)))
