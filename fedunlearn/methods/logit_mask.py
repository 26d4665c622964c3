"""The trivial baseline: the forgotten classes' outputs never win. Forgets perfectly, edits no feature.

Any result on forgotten and retained accuracy must be read beside it: it leaves 0 %, cannot lose retained accuracy, takes no
data and no time, and leaves everything the model knows where it was.
"""

from dataclasses import dataclass

import torch

from fedunlearn.errors import InputError
from fedunlearn.methods.base import Case, Strength, Unguided
from fedunlearn.tensors import Tensors

NEVER = -1e4  # a bias that no logit reaches, finite so that losses stay finite, and small enough for float16


@dataclass(frozen=True)
class LogitMask(Unguided):
    """Zero weights and a bias of `NEVER` for the rows of the forgotten classes."""

    name = "logit_mask"
    layers = "last"

    def misses(self, case: Case) -> str | None:
        """An heir without an output to mask, with no other, or without a bias to mask with."""
        _, bias = case.head.names
        if case.parameters and bias not in case.parameters:
            return f"has no bias in its last layer {case.head.layer!r} to mask with; other methods need none"
        return no_output(case, "mask")

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
        """Mask the rows; a head without the classes stays as it is.

        Raises:
            InputError: nothing would be left, or the head has no bias to mask with.
        """
        del strength
        rows = [i for i, c in enumerate(case.head.classes) if c in case.classes]
        edited = dict(weights)
        if not rows:
            return edited
        if len(rows) == len(case.head.classes):
            raise InputError(f"logit_mask: all {len(rows)} outputs would be masked; retire the model instead")
        weight, bias = case.head.names
        if bias not in weights:
            raise InputError(f"logit_mask: the head {case.head.layer!r} has no bias to mask with")
        for name, value in ((weight, 0.0), (bias, NEVER)):
            edited[name] = weights[name].clone()
            edited[name][rows] = value
        return edited


def no_output(case: Case, what: str) -> str | None:
    """Why outputs of the forgotten classes cannot be edited: the heir has none, or no other; None where they can."""
    if set(case.classes).isdisjoint(case.head.classes):
        return f"needs deeper layers; it has no output to {what}"
    return f"all its outputs would be {what}ed; retire the model" if set(case.head.classes) <= set(case.classes) else None
