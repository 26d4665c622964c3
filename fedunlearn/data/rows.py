"""Labelled rows, each with a key that stays the same whatever is done with them."""

from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fedunlearn.errors import InputError
from fedunlearn.tensors import finite


@dataclass(frozen=True)
class Rows:
    """Inputs, labels, keys and the names of the classes.

    Args:
        x: inputs [N, ...], float.
        y: labels [N], int64, indices into `classes`.
        keys: N names, unique; with site and shard in front they name a sample everywhere.
        classes: names of the classes.

    Raises:
        InputError: lengths differ, keys repeat, labels fall outside the classes, or an input is NaN.
    """

    x: Tensor
    y: Tensor
    keys: tuple[str, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.y)
        if len(self.x) != n or len(self.keys) != n:
            raise InputError(f"data: {len(self.x)} inputs, {n} labels and {len(self.keys)} keys; expected as many of each")
        if len(set(self.keys)) != n:
            raise InputError("data: sample keys repeat; every row needs a key of its own")
        if n and not (int(self.y.min()) >= 0 and int(self.y.max()) < len(self.classes)):
            raise InputError(
                f"data: labels run from {int(self.y.min())} to {int(self.y.max())}, but there are {len(self.classes)} classes"
            )
        if not finite(self.x):
            raise InputError("data: some inputs are NaN or infinite")

    @classmethod
    def empty(cls, classes: Sequence[str]) -> "Rows":
        """No rows."""
        return cls(torch.empty(0), torch.empty(0, dtype=torch.int64), (), tuple(classes))

    def __len__(self) -> int:
        return len(self.y)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The class name of every row."""
        return tuple(map(self.classes.__getitem__, self.y.tolist()))

    def positions(self, classes: Collection[str]) -> Tensor:
        """Where the rows of these classes are: int64, ascending."""
        wanted = set(classes)
        named = torch.tensor([c in wanted for c in self.classes], dtype=torch.bool)
        return named[self.y].nonzero()[:, 0]

    def take(self, rows: Sequence[int] | Tensor) -> "Rows":
        """These rows, in this order; the same rows themselves where that is all of them as they stand."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        if len(index) == len(self) and torch.equal(index, torch.arange(len(self))):
            return self
        return Rows(self.x[index], self.y[index], tuple(map(self.keys.__getitem__, index.tolist())), self.classes)

    def spread(self, most: int) -> "Rows":
        """At most so many rows, evenly spread."""
        return self.take([i * len(self) // most for i in range(most)]) if most < len(self) else self

    def of(self, classes: Collection[str]) -> "Rows":
        """Only the rows of these classes."""
        return self.take(self.positions(classes))

    def without(self, classes: Collection[str]) -> "Rows":
        """Only the rows of other classes."""
        return self.of(set(self.classes) - set(classes))

    def named(self, keys: Container[str]) -> "Rows":
        """Only the rows of these keys."""
        return self.take([i for i, key in enumerate(self.keys) if key in keys])

    def but(self, keys: Collection[str]) -> "Rows":
        """Only the rows of other keys."""
        return self.take([i for i, key in enumerate(self.keys) if key not in keys]) if keys else self

    def counts(self) -> dict[str, int]:
        """How many rows of each class there are; classes without a row are left out."""
        found = torch.bincount(self.y, minlength=len(self.classes)).tolist()
        return {c: n for c, n in zip(self.classes, found, strict=True) if n}

    def first(self, n: int) -> "Rows":
        """Only the first n rows of each class, in the order they stand in."""
        index = [(self.y == k).nonzero()[:n, 0] for k in range(len(self.classes))]
        return self.take(torch.cat(index).sort().values if index else [])

    def for_head(self, head: Sequence[str]) -> "Rows":
        """The rows that a head can name, their labels as indices of its outputs."""
        here = self.of(head)
        index = {c: i for i, c in enumerate(head)}
        output = torch.tensor([index.get(c, -1) for c in self.classes], dtype=torch.int64)
        return Rows(here.x, output[here.y], here.keys, tuple(head))


def twins(rows: Tensor, others: Sequence[Tensor]) -> int:
    """How many inputs [N, ...] are one of the others, bit for bit."""
    alike = [x for x in others if x.shape[1:] == rows.shape[1:] and x.dtype == rows.dtype]
    if not alike or not len(rows):
        return 0
    sums, theirs = _sums(rows), [_sums(x) for x in alike]  # few have the sum of another: only those are looked at
    near = torch.isin(sums, torch.cat(theirs)).nonzero()[:, 0]
    there = {
        x[i].numpy().tobytes()
        for x, s in zip(alike, theirs, strict=True)
        for i in torch.isin(s, sums[near]).nonzero()[:, 0].tolist()
    }
    return sum(rows[i].numpy().tobytes() in there for i in near.tolist())


def _sums(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1, dtype=torch.float64)


def joined(parts: Sequence[Rows]) -> Rows:
    """Several sets of rows of the same classes, one after another.

    Raises:
        InputError: there is nothing to join, or the classes differ.
    """
    if not parts:
        raise InputError("data: nothing to join")
    if len({p.classes for p in parts}) > 1:
        raise InputError(f"data: sets of different classes cannot be joined: {sorted({p.classes for p in parts})}")
    if len(parts) == 1:
        return parts[0]
    keys = tuple(k for p in parts for k in p.keys)
    return Rows(torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts]), keys, parts[0].classes)
