"""What the public code of SSD and FIUn computes, for reproductions only. FisherMask's weighs whole batches by a mean output."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedunlearn.errors import InputError
from fedunlearn.importance.importance import Importance
from fedunlearn.importance.losses import Loss


def batch_squares(net: nn.Module, x: Tensor, y: Tensor | None, loss: Loss, wanted: Sequence[str], batch: int) -> Importance:
    """Sum over batches of the squared gradient of the batch's mean loss; the mean over batches is the papers' number.

    This is not the Fisher information. The square is taken after averaging, so opposite gradients within a batch cancel:
    the number falls as the batch grows (roughly as 1 / batch, down to the square of the mean gradient), depends on which
    rows share a batch, and differs between sites whose batches differ. A threshold tuned to it fits one batch size and order.

    Args:
        net: in eval mode.
        x: inputs [N, ...], cut into batches in this order.
        y: labels [N].
        loss: what is differentiated.
        wanted: names of parameters.
        batch: rows a batch, at least 1; the last may be smaller and counts as one.

    Returns:
        Sums over batches; `count` is the number of batches.

    Raises:
        InputError: the batch size is missing.
    """
    if batch < 1:
        raise InputError(f"batch_squares: batch is {batch}; give the batch size that it shall depend on")
    parameters = {n: p for n, p in net.named_parameters() if n in set(wanted)}
    sums = {n: torch.zeros(p.shape, dtype=torch.float64) for n, p in parameters.items()}
    asked = {n: p.requires_grad for n, p in parameters.items()}
    starts = range(0, len(x), batch)
    try:
        for p in parameters.values():
            p.requires_grad_(True)
        for i in starts:
            terms = loss.terms(net(x[i : i + batch]), None if y is None else y[i : i + batch], 2)
            for term in list(terms):
                found = torch.autograd.grad(term.mean(), list(parameters.values()), retain_graph=True, allow_unused=True)
                for name, g in zip(parameters, found, strict=True):
                    if g is not None:
                        sums[name] += g.detach().double().square().cpu()
    finally:
        for n, p in parameters.items():
            p.requires_grad_(asked[n])
    return Importance({"batch_squares": {n: sums[n] for n in wanted}}, len(starts))
