"""A training at an heir's home that several strengths share: one of five epochs goes on where one of two ended."""

from collections.abc import Callable, Collection, Hashable, Iterator

import torch
from torch import Tensor

from fedunlearn.errors import ShapeError
from fedunlearn.tensors import Tensors, equal

Steps = Iterator[dict[str, Tensor]]  # weights after each epoch or step, without end


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
    def of(
        cls,
        begun: dict[Hashable, "Course"],
        what: Hashable,
        weights: Tensors,
        begin: Callable[[], Steps],
        keep: Collection[int],
    ) -> "Course":
        """The one of these that was begun from these weights, or a new one.

        Args:
            begun: at one home; a new one is put there.
            what: tells it from others there.
            weights: where it starts.
            begin: begins it.
            keep: as for a new one.
        """
        there = begun.get(what)
        if there is None or not equal(there.found[0], weights):
            there = begun[what] = cls(weights, begin, keep)
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
        return converged({n: t.clone() for n, t in last.items()}, lr)


def converged(found: dict[str, Tensor], lr: float) -> dict[str, Tensor]:
    """What a training came to.

    Raises:
        ShapeError: it is NaN or infinite.
    """
    if not all(bool(torch.isfinite(t).all()) for t in found.values()):
        raise ShapeError(f"training at the heir diverged to NaN or infinity; lower lr (it is {lr})")
    return found
