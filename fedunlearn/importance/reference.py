"""The slow, obviously right version: one sample at a time. It tests the fast one and is never called in earnest."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedunlearn.importance.importance import Importance
from fedunlearn.importance.losses import Labels, Loss


def loop(net: nn.Module, x: Tensor, y: Tensor | None, statistic: str = "squares", loss: Loss | None = None) -> Importance:
    """Squares, absolute values or plain sums of gradients, one sample at a time, for every parameter.

    Args:
        net: the model, in eval mode.
        x: inputs [N, ...].
        y: labels [N].
        statistic: "squares", "absolute" or "sum".
        loss: cross-entropy of the labels by default.

    Returns:
        float64 sums and the count.
    """
    functions: dict[str, Callable[[Tensor], Tensor]] = {"squares": torch.square, "absolute": torch.abs, "sum": torch.clone}
    f = functions[statistic]
    sums = {n: torch.zeros(p.shape, dtype=torch.float64) for n, p in net.named_parameters()}
    for i in range(len(x)):
        out = net(x[i : i + 1])
        if loss is None or isinstance(loss, Labels):
            terms = [functional.cross_entropy(out, y[i : i + 1])] if y is not None else []
        else:
            terms = list(loss.terms(out, None if y is None else y[i : i + 1], 2 if statistic == "squares" else 1))
        for term in terms:
            net.zero_grad()
            term.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
            for name, p in net.named_parameters():
                if p.grad is not None:
                    sums[name] += f(p.grad.double())
    net.zero_grad()
    return Importance({statistic: sums}, len(x))
