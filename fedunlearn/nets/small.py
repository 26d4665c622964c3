"""Small nets for small data."""

from collections import OrderedDict
from collections.abc import Sequence
from math import prod

from torch import nn

from fedunlearn.errors import InputError


def mlp(shape: Sequence[int], outputs: int, hidden: int = 64, norm: bool = False) -> nn.Module:
    """Two hidden layers of `hidden` and `hidden // 2` units with ReLU.

    Args:
        shape: shape of one input, without the batch.
        outputs: how many classes.
        hidden: width of the first hidden layer, at least 2.
        norm: begin with a BatchNorm of the inputs, for numbers that are not scaled.
    """
    if hidden < 2:
        raise InputError(f"net mlp: hidden is {hidden}, expected at least 2")
    if not isinstance(norm, bool):
        raise InputError(f"net mlp: norm is {norm!r}, expected true or false")
    half = hidden // 2
    body = nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), hidden), nn.ReLU(), nn.Linear(hidden, half), nn.ReLU())
    head = nn.Linear(half, outputs)
    if norm:
        first = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(prod(shape)))
        return nn.Sequential(OrderedDict(norm=first, body=body, head=head))
    return nn.Sequential(OrderedDict(body=body, head=head))


def cnn(shape: Sequence[int], outputs: int, channels: int = 16) -> nn.Module:
    """Two 3x3 convolutions with ReLU and a pooling to 4x4, one hidden layer.

    Args:
        shape: (channels, height, width) of one image, or (height, width) for grey ones.
        outputs: how many classes.
        channels: of the first convolution; the second has twice as many.
    """
    if len(shape) not in (2, 3):
        raise InputError(f"net cnn: one input has shape {tuple(shape)}, expected (channels, height, width)")
    planes = shape[0] if len(shape) == 3 else 1
    body = nn.Sequential(
        nn.Unflatten(1, (1, shape[0])) if len(shape) == 2 else nn.Identity(),
        nn.Conv2d(planes, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(32 * channels, 64),
        nn.ReLU(),
    )
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(64, outputs)))
