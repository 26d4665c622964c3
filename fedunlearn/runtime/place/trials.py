"""Trying edits of one model on some rows, and counting what that takes."""

from collections.abc import Callable, Collection

import torch
from torch import nn

from fedunlearn.data import Rows
from fedunlearn.evaluation import Scores, score
from fedunlearn.evaluation.features import features, last_layer
from fedunlearn.methods.calibration import MOST
from fedunlearn.nets import load
from fedunlearn.tensors import Head, Tensors, names_in


class Trials:
    """Scores of edited weights. While edits change the last layer alone, its inputs are kept and one pass serves all.

    Args:
        net: gives the model, in eval mode; what is tried is loaded into it.
        weights: of the model as it is.
        head: its outputs.
        rows: forgotten and retained rows, labelled by the outputs.
        classes: judged one by one.
        layers: what is edited.
        device: where the net is.
    """

    def __init__(
        self, net: Callable[[], nn.Module], weights: Tensors, head: Head, rows: tuple[Rows, Rows], classes: Collection[str],
        layers: str, device: str,
    ) -> None:  # fmt: skip
        self.net, self.weights, self.head, self.rows, self.classes, self.device = net, weights, head, rows, classes, device
        self.passes = 0
        self._inside: tuple[Rows, Rows] | None = None
        if set(names_in(layers, weights, head)) <= set(head.names):
            forgotten, rest = (features(load(net(), weights), head, r) if len(r) else r for r in rows)
            self.passes += 1
            self._inside = None if forgotten is None or rest is None else (forgotten, rest)

    @property
    def most(self) -> int:
        """How many edits may be tried."""
        return MOST - self.passes if self._inside is None else MOST

    def __call__(self, edited: Tensors) -> Scores:
        """Scores after an edit."""
        if self._inside is not None and self._only_head(edited):
            return score(last_layer(edited, self.head, self.device), *self._inside, self.classes)
        self.passes += 1
        return score(load(self.net(), edited), *self.rows, self.classes)

    def _only_head(self, edited: Tensors) -> bool:
        return all(torch.equal(t, edited[n]) for n, t in self.weights.items() if n not in self.head.names)
