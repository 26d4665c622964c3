"""A small vision transformer, an example of a user's own net."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedunlearn.nets.text import encoder


class VisionTransformer(nn.Module):
    """Square patches, learned positions, a transformer encoder without dropout, the mean over the patches, and a head."""

    def __init__(self, shape: Sequence[int], outputs: int, patch: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.shape = (*[1] * (3 - len(shape)), *shape)
        channels, height, breadth = self.shape
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (height // patch) * (breadth // patch), width))
        self.encoder = encoder(width, heads, layers, feedforward=2 * width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, height, breadth], or without channels where there is one -> [N, outputs]."""
        tokens = self.patches(x.view(-1, *self.shape)).flatten(2).transpose(1, 2) + self.positions
        out: Tensor = self.head(self.encoder(tokens).mean(1))
        return out


def vit(
    shape: Sequence[int], outputs: int, patch: int = 7, width: int = 128, heads: int = 4, layers: int = 6
) -> VisionTransformer:
    """A vision transformer; with these settings and digits of 28x28 it has 0.8 million weights.

    Args:
        shape: (channels, height, breadth) of one row, or without channels; the patch divides both sides.
        outputs: how many classes.
        patch: side of a patch.
        width: of a token, a multiple of `heads`.
        heads: of each attention.
        layers: how many.
    """
    return VisionTransformer(shape, outputs, patch, width, heads, layers)
