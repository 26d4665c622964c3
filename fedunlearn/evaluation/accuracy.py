"""Accuracy, or None where there is no row to take it on: an accuracy over nothing is not 0."""

from collections.abc import Collection

import torch
from torch import nn

from fedunlearn.data import Rows
from fedunlearn.errors import ShapeError
from fedunlearn.scores import Scores

BATCH = 1024


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
