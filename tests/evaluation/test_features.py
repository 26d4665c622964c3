"""Trying an edit of the last layer on kept features equals trying it on the whole net."""

import torch
from torch import nn

from fedunlearn.data import Rows
from fedunlearn.evaluation import accuracy
from fedunlearn.evaluation.features import features, last_layer
from fedunlearn.nets import build, head_of, weights_of

CLASSES = ("a", "b", "c", "d")


def rows(n: int = 50) -> Rows:
    x = torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return Rows(x, torch.arange(n) % 4, tuple(map(str, range(n))), CLASSES)


def test_features_under_an_edited_head_score_as_the_net_does() -> None:
    net = build({"name": "cnn", "channels": 4}, (3, 8, 8), 4, 1).eval()
    head = head_of(net, CLASSES)
    kept = features(net, head, rows())
    assert kept is not None
    for seed in range(5):
        weights = weights_of(net)
        weights[head.names[0]] += torch.randn(weights[head.names[0]].shape, generator=torch.Generator().manual_seed(seed))
        net.load_state_dict(weights)
        assert accuracy(last_layer(weights, head, "cpu"), kept) == accuracy(net, rows())


class Scaled(nn.Module):
    """A net that goes on after its last linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(192, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = -2 * self.head(x.flatten(1))
        return out


def test_a_net_that_goes_on_after_its_last_layer_is_asked_itself() -> None:
    net = Scaled().eval()
    assert features(net, head_of(net, CLASSES), rows()) is None
    assert features(net, head_of(net, CLASSES), Rows.empty(CLASSES)) is not None
