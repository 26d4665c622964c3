"""Training at an heir's home, for baselines and for methods that repair: the only edits that are not closed forms."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional

from fedunlearn.data import Rows
from fedunlearn.methods.base import Home
from fedunlearn.methods.course import Steps, converged
from fedunlearn.nets import device_of, load, weights_of
from fedunlearn.tensors import Tensors

BATCH, MOMENTUM, DECAY = 128, 0.9, 1e-4

Loss = Callable[[Tensor, Tensor], Tensor]  # outputs [B, C] and what goes along with each row -> a mean


def labels(out: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of the rows' labels."""
    return functional.cross_entropy(out, y)


def sgd(
    home: Home,
    weights: Tensors,
    rows: Rows,
    loss: Loss,
    *,
    lr: float,
    falls: Sequence[int] = (),
    along: Tensor | None = None,
    longest: float | None = None,
    stepwise: bool = False,
) -> Steps:
    """SGD on some rows, all parameters, in eval mode: BatchNorm keeps its statistics, dropout is off.

    Rows come in a random order of each epoch, which is the same at every call: nothing is drawn anew for another family.

    Args:
        home: a copy of its net is used.
        weights: where to start; stay as they are.
        rows: what to train on; none change nothing.
        loss: to be minimised.
        lr: learning rate.
        falls: steps after which it falls to a tenth.
        along: what the loss gets of each row instead of its label [N, ...].
        longest: gradients whose norm over all parameters is larger are shortened to it.
        stepwise: give the weights after each step of a batch; by default after each epoch.
    """
    net = load(deepcopy(home.net), weights)
    device = device_of(net)
    x, y = rows.x.to(device), (rows.y if along is None else along).to(device)
    optimiser = torch.optim.SGD(net.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=DECAY)
    falling = torch.optim.lr_scheduler.MultiStepLR(optimiser, list(falls), 0.1)
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(len(rows), generator=generator)
        for i in range(0, len(rows), BATCH):
            part = order[i : i + BATCH].to(device)
            optimiser.zero_grad()
            loss(net(x[part]), y[part]).backward()  # type: ignore[no-untyped-call]
            if longest is not None:
                torch.nn.utils.clip_grad_norm_(net.parameters(), longest)
            optimiser.step()
            falling.step()
            if stepwise:
                yield weights_of(net)
        if not stepwise or not len(rows):
            yield weights_of(net)


def tuned(
    home: Home, weights: Tensors, rows: Rows, loss: Loss, *, epochs: int, lr: float, drops: Sequence[float] = ()
) -> dict[str, Tensor]:
    """Weights after so many epochs of `sgd`.

    Args:
        home: a copy of its net is used.
        weights: where to start; stay as they are.
        rows: what to train on; none change nothing.
        loss: to be minimised.
        epochs: passes over the rows.
        lr: learning rate.
        drops: shares of all steps after which it falls to a tenth.

    Raises:
        ShapeError: training diverged.
    """
    falls = [max(1, round(d * epochs * -(-len(rows) // BATCH))) for d in drops]
    last = dict(weights)
    for found in islice(sgd(home, weights, rows, loss, lr=lr, falls=falls), epochs):
        last = found
    return converged(last, lr)


def whole(number: object) -> bool:
    """Whether it is a number of epochs or steps: 0, 1, 2, ..."""
    return isinstance(number, int | float) and number >= 0 and float(number).is_integer()
