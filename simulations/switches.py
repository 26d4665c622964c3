"""What the papers' public code computes where it differs from the papers: for reproductions only, each named for what it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedunlearn.data import Rows
from fedunlearn.data.rows import joined
from fedunlearn.errors import InputError
from fedunlearn.importance import measure
from fedunlearn.methods import Case, Evidence
from fedunlearn.methods.base import FORGOTTEN_AT_HEIRS, RETAINED_AT_HEIRS, Unguided
from fedunlearn.methods.dampening import Dampening, dampen, merged
from fedunlearn.nets import load
from fedunlearn.tensors import Tensors


@dataclass(frozen=True)
class DividedFIUn(Dampening):
    """FIUn whose merged evidence is divided once for every root beyond the first, as its public code does (by 5).

    Args:
        divisor: above 0; 1 is FIUn.

    Raises:
        InputError: a setting is out of range.
    """

    divisor: float = 5.0
    name = "fiun, merged evidence divided"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.divisor > 0:
            raise InputError(f"{self.name}: divisor is {self.divisor}, expected a number above 0")

    def merge(self, evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
        """The maximum over R roots, divided by `divisor ** (R - 1)`."""
        (one,) = merged(evidence)
        scale = self.divisor ** (len(evidence) - 1)
        return (Evidence({n: t / scale for n, t in one.means.items()}, one.rows),)


@dataclass(frozen=True)
class BatchMeanSSD(Unguided):
    """SSD on squared gradients of batch means, as its public code computes them, instead of on the Fisher.

    As there, rows are in the order of their classes, so that batches are nearly of one class each. The number depends on the
    batch size: a threshold that was found with one fits no other.

    Args:
        batch: rows a batch.
        first: only so many rows of each batch are read (32 in FIUn's public code); 0 for all.
        alpha: threshold.
        lam: how far selected weights are dampened.
        layers: "all", "last", or the names of layers.

    Raises:
        InputError: a setting is out of range.
    """

    batch: int = 64
    first: int = 0
    alpha: float = 10.0
    lam: float = 1.0
    layers: str = "all"
    name = "ssd, batch-mean squares"

    def __post_init__(self) -> None:
        if self.batch < 1 or not 0 <= self.first <= self.batch:
            raise InputError(f"{self.name}: batch is {self.batch} and first {self.first}, expected 1 or more, and at most it")
        if not (self.alpha >= 0 and self.lam >= 0):
            raise InputError(f"{self.name}: alpha is {self.alpha} and lam {self.lam}, expected numbers from 0 up")

    @property
    def needs(self) -> frozenset[str]:
        """All the model's rows, in batches: sums over single rows, which sites send, cannot give it."""
        return frozenset({FORGOTTEN_AT_HEIRS, RETAINED_AT_HEIRS})

    def edit(self, weights: Tensors, case: Case, strength: dict[str, float]) -> dict[str, Tensor]:
        """Measure at home, and dampen."""
        del strength
        if case.home is None:
            return dict(weights)
        net = load(case.home.net, weights)
        device = next(net.parameters()).device

        def means(rows: Rows) -> Tensors:
            rows = rows.take(self.read(rows))
            found = measure(
                net, rows.x.to(device), rows.y.to(device), head=case.head, statistic="batch_squares", layers=self.layers,
                batch=self.first or self.batch,
            )  # fmt: skip
            return found.mean("batch_squares")

        own = joined([case.home.forgotten, case.home.retained])
        return dampen(weights, means(case.home.forgotten), means(own), self.alpha, self.lam)

    def read(self, rows: Rows) -> Tensor:
        """Positions of the rows that are read: class by class, of each batch the first ones."""
        order = rows.y.argsort(stable=True)
        return order[torch.arange(len(order)) % self.batch < (self.first or self.batch)]
