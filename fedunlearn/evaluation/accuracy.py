"""Accuracy, or None where there is no row to take it on: an accuracy over nothing is not 0."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from fedunlearn.data import Rows
from fedunlearn.evaluation.outputs import outputs
from fedunlearn.scores import Scores


def accuracy(net: nn.Module, rows: Rows) -> float | None:
    """Fraction of rows whose largest output is their label.

    Args:
        net: in eval mode.
        rows: labelled by the net's outputs.

    Raises:
        ShapeError: an output is NaN or infinite (which would otherwise count as the first class, or as forgotten).
    """
    return _share(_right(net, rows))


def score(net: nn.Module, forgotten: Rows, retained: Rows, classes: Collection[str] = ()) -> Scores:
    """Both accuracies of one net, and that on each forgotten class that is named.

    Raises:
        ShapeError: an output is NaN or infinite.
    """
    right = _right(net, forgotten)
    each = {c: _share(right[forgotten.positions([c])]) for c in classes}
    return Scores(_share(right), accuracy(net, retained), len(forgotten), len(retained), each)


def _right(net: nn.Module, rows: Rows) -> Tensor:
    """Whether the largest output of each row is its label: bool [N]."""
    said = [out.argmax(1) for out in outputs(net, rows)]
    return torch.cat(said) == rows.y if said else torch.zeros(0, dtype=torch.bool)


def _share(right: Tensor) -> float | None:
    return int(right.sum()) / len(right) if len(right) else None
