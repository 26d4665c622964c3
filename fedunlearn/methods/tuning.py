"""Training at an heir's home, for baselines and for methods that repair: the only edits that are not closed forms."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fedunlearn.data import Rows
from fedunlearn.errors import ShapeError
from fedunlearn.methods.base import Home
from fedunlearn.nets import load, weights_of
from fedunlearn.tensors import Tensors

BATCH, MOMENTUM, DECAY = 128, 0.9, 1e-4

Loss = Callable[[Tensor, Tensor], Tensor]  # outputs [B, C] and what goes along with each row -> a mean


def labels(out: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of the rows' labels."""
    return functional.cross_entropy(out, y)


def tuned(
    home: Home,
    weights: Tensors,
    rows: Rows,
    loss: Loss,
    *,
    epochs: int,
    lr: float,
    drops: Sequence[float] = (),
    along: Tensor | None = None,
    longest: float | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Weights after SGD on some rows, all parameters, in eval mode: BatchNorm keeps its statistics, dropout is off.

    Args:
        home: its net is used.
        weights: where to start; stay as they are.
        rows: what to train on; none change nothing.
        loss: to be minimised.
        epochs: passes over the rows.
        lr: learning rate.
        drops: shares of all steps after which it falls to a tenth.
        along: what the loss gets of each row instead of its label [N, ...].
        longest: gradients whose norm over all parameters is larger are shortened to it.
        seed: of the order of the rows.

    Raises:
        ShapeError: training diverged.
    """
    if not len(rows) or not epochs:
        return dict(weights)
    net = load(home.net, weights)
    device = next(net.parameters()).device
    x, y = rows.x.to(device), (rows.y if along is None else along).to(device)
    optimiser = torch.optim.SGD(net.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=DECAY)
    batches = -(-len(rows) // BATCH)
    falling = torch.optim.lr_scheduler.MultiStepLR(optimiser, [max(1, round(d * epochs * batches)) for d in drops], 0.1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(rows), generator=generator)
        for i in range(0, len(rows), BATCH):
            part = order[i : i + BATCH].to(device)
            optimiser.zero_grad()
            loss(net(x[part]), y[part]).backward()  # type: ignore[no-untyped-call]
            if longest is not None:
                torch.nn.utils.clip_grad_norm_(net.parameters(), longest)
            optimiser.step()
            falling.step()
    found = weights_of(net)
    if not all(bool(torch.isfinite(t).all()) for t in found.values()):
        raise ShapeError(f"training at the heir diverged to NaN or infinity; lower lr (it is {lr})")
    return found
