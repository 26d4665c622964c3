"""Accuracy, or None where there is no row to take it on: an accuracy over nothing is not 0."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fedunlearn.data import Rows
from fedunlearn.errors import ShapeError

BATCH = 1024


@dataclass(frozen=True)
class Scores:
    """Accuracies as fractions, with the numbers of rows; None means not tested.

    Args:
        forgotten: on what is forgotten, all classes together.
        retained: on the rest.
        rows_forgotten: how many rows.
        rows_retained: how many rows.
        by_class: for class requests, on each forgotten class that the model can name.
    """

    forgotten: float | None
    retained: float | None
    rows_forgotten: int
    rows_retained: int
    by_class: Mapping[str, float | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**vars(self), "by_class": dict(self.by_class)}


def accuracy(net: nn.Module, rows: Rows) -> float | None:
    """Fraction of rows whose largest output is their label.

    Args:
        net: in eval mode.
        rows: labelled by the net's outputs.

    Raises:
        ShapeError: an output is NaN or infinite (which would otherwise count as the first class, or as forgotten).
    """
    if not len(rows):
        return None
    device = next(iter(net.parameters())).device
    right = 0
    with torch.inference_mode():
        for i in range(0, len(rows), BATCH):
            out = net(rows.x[i : i + BATCH].to(device))
            if not bool(torch.isfinite(out).all()):
                raise ShapeError("the model's outputs are NaN or infinite; it cannot be scored")
            right += int((out.argmax(1).cpu() == rows.y[i : i + BATCH]).sum())
    return right / len(rows)


def score(net: nn.Module, forgotten: Rows, retained: Rows, classes: Collection[str] = ()) -> Scores:
    """Both accuracies of one net, and that on each forgotten class that is named."""
    each = {c: accuracy(net, forgotten.of([c])) for c in classes}
    return Scores(accuracy(net, forgotten), accuracy(net, retained), len(forgotten), len(retained), each)
