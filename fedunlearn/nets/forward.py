"""Rows through a net: not all at once."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

AT_ONCE = {
    "cpu": 128,
    "cuda": 1024,
}  # on a processor more is slower: activations leave its cache, and are mapped anew each time


def device_of(net: nn.Module) -> torch.device:
    """Where a net is."""
    return next(iter(net.parameters())).device


def batches(net: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """Parts of some inputs [N, ...], in order, where the net is; none of no input.

    Args:
        net: what they are for.
        x: inputs.
    """
    device = device_of(net)
    size = AT_ONCE.get(device.type, AT_ONCE["cuda"])
    for i in range(0, len(x), size):
        yield x[i : i + size].to(device)
