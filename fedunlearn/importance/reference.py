"""The slow, obviously right version: one sample at a time. It tests the fast one and is never called in earnest."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedunlearn.importance.importance import Importance


def loop(net: nn.Module, x: Tensor, y: Tensor) -> Importance:
    """Squared gradients of the cross-entropy, summed over samples one at a time, for every parameter.

    Args:
        net: the model, in eval mode.
        x: inputs [N, ...].
        y: labels [N].

    Returns:
        float64 sums and the count.
    """
    sums = {n: torch.zeros(p.shape, dtype=torch.float64) for n, p in net.named_parameters()}
    for i in range(len(y)):
        net.zero_grad()
        functional.cross_entropy(net(x[i : i + 1]), y[i : i + 1]).backward()  # type: ignore[no-untyped-call]
        for name, p in net.named_parameters():
            if p.grad is not None:
                sums[name] += p.grad.double().square()
    net.zero_grad()
    return Importance({"squares": sums}, len(y))
