"""Accuracy, or None where there is no row to take it on: an accuracy over nothing is not 0."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fedunlearn.data import Rows

BATCH = 1024


@dataclass(frozen=True)
class Scores:
    """Accuracy on what is forgotten and on the rest, as fractions, with the numbers of rows; None means not tested."""

    forgotten: float | None
    retained: float | None
    rows_forgotten: int
    rows_retained: int

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "forgotten": self.forgotten,
            "retained": self.retained,
            "rows_forgotten": self.rows_forgotten,
            "rows_retained": self.rows_retained,
        }


def accuracy(net: nn.Module, rows: Rows) -> float | None:
    """Fraction of rows whose largest output is their label.

    Args:
        net: in eval mode.
        rows: labelled by the net's outputs.
    """
    if not len(rows):
        return None
    device = next(iter(net.parameters())).device
    right = 0
    with torch.inference_mode():
        for i in range(0, len(rows), BATCH):
            out = net(rows.x[i : i + BATCH].to(device))
            right += int((out.argmax(1).cpu() == rows.y[i : i + BATCH]).sum())
    return right / len(rows)


def score(net: nn.Module, forgotten: Rows, retained: Rows) -> Scores:
    """Both accuracies of one net."""
    return Scores(accuracy(net, forgotten), accuracy(net, retained), len(forgotten), len(retained))
