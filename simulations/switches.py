"""What the papers or their public code do otherwise than the library: for reproductions only, each named for what it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedunlearn.errors import InputError
from fedunlearn.importance import measure
from fedunlearn.methods import Case, Evidence
from fedunlearn.methods.base import FORGOTTEN_AT_HEIRS, RETAINED_AT_HEIRS, Strength, Unguided, Want, merged
from fedunlearn.methods.dampening import Dampening, dampen
from fedunlearn.methods.fisher_mask import FisherMask, unit_scores
from fedunlearn.methods.masks import ByRatio, names_of
from fedunlearn.methods.ssd import SSD
from fedunlearn.nets import device_of, load
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

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, Tensor]:
        """Measure at home, and dampen."""
        del strength
        if case.home is None:
            return dict(weights)
        net = load(case.home.net, weights)
        device = device_of(net)

        def means(x: Tensor, y: Tensor) -> Tensors:
            read = self.read(y)
            found = measure(
                net, x[read].to(device), y[read].to(device), head=case.head, statistic="batch_squares", layers=self.layers,
                batch=self.first or self.batch,
            )  # fmt: skip
            return found.mean("batch_squares")

        forgotten, rest = case.home.forgotten, case.home.retained
        own = means(torch.cat([forgotten.x, rest.x]), torch.cat([forgotten.y, rest.y]))
        return dampen(weights, means(forgotten.x, forgotten.y), own, self.alpha, self.lam)

    def read(self, y: Tensor) -> Tensor:
        """Positions of the rows that are read, of each batch the first ones.

        SSD's code goes through them class by class; FIUn's, which reads a part of each batch, splits them at random before.

        Args:
            y: labels [N].
        """
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0)) if self.first else y.argsort(stable=True)
        return order[torch.arange(len(order)) % self.batch < (self.first or self.batch)]


@dataclass(frozen=True)
class MovedSSD(SSD):
    """SSD whose factors fall on other weights of the same tensors: as many are dampened, and as much, but not those selected.

    Args:
        seed: of the places, which are drawn anew for every tensor and number of weights.
    """

    seed: int = 0
    name = "ssd, elsewhere"

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, Tensor]:
        """Dampen weights of ones, which gives the factors, and shuffle these."""
        factors = super().edit({n: torch.ones_like(t, dtype=torch.float64) for n, t in weights.items()}, case, strength)
        generator, edited = torch.Generator().manual_seed(self.seed), dict(weights)
        for name in sorted(n for n, f in factors.items() if bool((f != 1).any())):
            factor = factors[name].cpu().flatten()
            moved = factor[torch.randperm(len(factor), generator=generator)].view_as(factors[name]).to(weights[name].device)
            edited[name] = torch.where(moved != 1, (weights[name].double() * moved).to(weights[name].dtype), weights[name])
        return edited


@dataclass(frozen=True)
class WholeFisherMask(ByRatio):
    """FisherMask that masks its whole ratio of units, as the paper has it: also those that matter more to the rest.

    Args:
        ratio: share of units.
        tune: epochs of fine-tuning afterwards, 0 for none.
        lr: its first learning rate.

    Raises:
        InputError: a setting is out of range.
    """

    tune: int = 0
    lr: float = 0.1
    name = "fisher mask, whole ratio"
    evidence = own = Want("squares", "own")
    retained = per_heir = True

    @property
    def needs(self) -> frozenset[str]:
        """What FisherMask with the same settings needs."""
        return self._mask.needs

    @property
    def _mask(self) -> FisherMask:
        return FisherMask(self.ratio, self.tune, self.lr, per_heir=True)

    def merge(self, evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
        """As FisherMask does."""
        return self._mask.merge(evidence)

    def misses(self, case: Case) -> str | None:
        """As FisherMask does."""
        return self._mask.misses(case)

    def strengths(self, case: Case) -> Sequence[Strength]:
        """The one ratio; beside it the share of units that matter more to what is forgotten, and of those that matter alike."""
        scores = torch.cat([of.flatten() for of in unit_scores(case, case.merged).values()])
        shares = {"more": float((scores > 0).double().mean()), "alike": float((scores == 0).double().mean())}
        return [{**strength, **shares} for strength in super().strengths(case)]

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, Tensor]:
        """Evidence is lifted above the model's own importance, unit by unit in the same order, and FisherMask does the rest."""
        forgotten, rest = case.merged, case.own.means
        lift = max((float((rest[n] - forgotten[n]).max()) for n in names_of([forgotten, rest], weights)), default=0.0)
        lifted = Evidence({n: t + 2 * max(lift, 0.0) for n, t in forgotten.items()}, case.evidence[0].rows)
        return self._mask.edit(weights, replace(case, evidence=(lifted,)), strength)
