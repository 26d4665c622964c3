"""Training at an heir's home, for baselines and for methods that repair: the only edits that are not closed forms."""

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from copy import deepcopy
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional

from fedunlearn.data import Rows
from fedunlearn.errors import ShapeError
from fedunlearn.methods.base import Home
from fedunlearn.nets import device_of, load, weights_of
from fedunlearn.tensors import Tensors, equal

BATCH, MOMENTUM, DECAY = 128, 0.9, 1e-4

Steps = Iterator[dict[str, Tensor]]  # weights after each epoch or step, without end
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
    seed: int = 0,
) -> Steps:
    """SGD on some rows, all parameters, in eval mode: BatchNorm keeps its statistics, dropout is off.

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
        seed: of the order of the rows.
    """
    net = load(deepcopy(home.net), weights)
    device = device_of(net)
    x, y = rows.x.to(device), (rows.y if along is None else along).to(device)
    optimiser = torch.optim.SGD(net.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=DECAY)
    falling = torch.optim.lr_scheduler.MultiStepLR(optimiser, list(falls), 0.1)
    generator = torch.Generator().manual_seed(seed)
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
    return _finite(last, lr)


class Course:
    """A training that can be asked for more, which goes on where it is and gives what a training of its own would.

    Args:
        weights: where it starts.
        begin: begins it: by epochs, or by steps.
        keep: how many of these whose weights are kept, for when fewer are asked for; others are trained anew then.
    """

    def __init__(self, weights: Tensors, begin: Callable[[], Steps], keep: Collection[int] = ()) -> None:
        self.begin, self.keep = begin, frozenset(keep)
        self.found = {0: {n: t.clone() for n, t in weights.items()}}
        self._steps, self._done = begin(), 0

    @classmethod
    def of(cls, home: Home, what: Hashable, weights: Tensors, begin: Callable[[], Steps], keep: Collection[int]) -> "Course":
        """The one that was begun at a home from these weights, or a new one.

        Args:
            home: keeps it.
            what: tells it from others there.
            weights: where it starts.
            begin: begins it.
            keep: as for a new one.
        """
        there = home.begun.get(what)
        if there is None or not equal(there.found[0], weights):
            there = home.begun[what] = cls(weights, begin, keep)
        return there

    def after(self, number: int, lr: float) -> dict[str, Tensor]:
        """Weights after so many epochs or steps.

        Raises:
            ShapeError: training diverged.
        """
        if number not in self.found and number <= self._done:
            self._steps, self._done = self.begin(), 0
        last = self.found.get(number, {})
        while number not in self.found and self._done < number:
            last = next(self._steps)
            self._done += 1
            if self._done in self.keep:
                self.found[self._done] = last
        return _finite({n: t.clone() for n, t in last.items()}, lr)


def whole(number: object) -> bool:
    """Whether it is a number of epochs or steps: 0, 1, 2, ..."""
    return isinstance(number, int | float) and number >= 0 and float(number).is_integer()


def _finite(found: dict[str, Tensor], lr: float) -> dict[str, Tensor]:
    if not all(bool(torch.isfinite(t).all()) for t in found.values()):
        raise ShapeError(f"training at the heir diverged to NaN or infinity; lower lr (it is {lr})")
    return found
