"""Baselines without evidence: what has to be beaten, beside the logit mask.

Random mask and Fisher noise are those of FisherMask (arXiv 2310.05331; the noise after Golatkar et al. 2020, arXiv 1911.04933).
Fine-tuning, gradient ascent and distillation train at each heir's home, with rows that no deployment sends there: simulations.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fedunlearn.data import Rows
from fedunlearn.errors import InputError
from fedunlearn.methods.base import FORGOTTEN_AT_HEIRS, RETAINED_AT_HEIRS, Case, Home, Strength, Unguided, Want
from fedunlearn.methods.course import Course, Steps
from fedunlearn.methods.logit_mask import no_output
from fedunlearn.methods.masks import ByRatio, top, units, zeroed
from fedunlearn.methods.tuning import labels, sgd, whole
from fedunlearn.nets import batches, load
from fedunlearn.tensors import Tensors


@dataclass(frozen=True)
class RandomMask(ByRatio, Unguided):
    """Zero units drawn at random: what a mask does whatever it is told.

    Args:
        ratio: share of units, or "auto".
        seed: of the draw.

    Raises:
        InputError: the ratio is no fraction.
    """

    seed: int = 0
    name = "random_mask"
    ordered = True  # so that it is told what of the weights is no buffer

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, Tensor]:
        """Mask."""
        generator = torch.Generator().manual_seed(self.seed)
        trained = case.parameters or weights.keys()
        shapes = {n: units(t).shape for n, t in sorted(weights.items()) if t.dim() >= 2 and n in trained}
        return zeroed(weights, top({n: torch.rand(s, generator=generator) for n, s in shapes.items()}, strength["ratio"]))


@dataclass(frozen=True)
class FisherNoise(Unguided):
    """Gaussian noise on every weight, the more the less the retained data needs it.

    theta ~ N(theta, s / F), F = E_x sum_y p(y|x) (d log p(y|x) / d theta)^2 on retained data, 1 / F at most `MOST` (`MOST_LAST`
    for the last layer), averaged over inputs of a unit, ten times for the last layer and for vectors; rows of forgotten classes
    in the last layer are drawn around 0 with variance `ROW`.

    Args:
        scale: s; 1e-6 in the public code; "auto" chooses it.
        seed: of the draw.

    Raises:
        InputError: the scale is below zero.
    """

    scale: float | Literal["auto"] = "auto"
    seed: int = 0
    name = "fisher_noise"
    own = Want("squares", "own")
    retained = True

    def __post_init__(self) -> None:
        if self.scale != "auto" and not (isinstance(self.scale, int | float) and 0 <= self.scale < float("inf")):
            raise InputError(f"fisher_noise: scale is {self.scale!r}, expected a number from 0 up, or 'auto'")

    def strengths(self, case: Case) -> Sequence[Strength]:
        """Scales from 1e-9 up, by factors of 3."""
        del case
        return [{"scale": 1e-9 * 3**i} for i in range(SCALES)] if self.scale == "auto" else [{"scale": float(self.scale)}]

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, Tensor]:
        """Draw."""
        generator = torch.Generator().manual_seed(self.seed)
        rows = [i for i, c in enumerate(case.head.classes) if c in case.classes]
        edited = dict(weights)
        for name in sorted(case.own.means.keys() & weights.keys()):
            weight, fisher = weights[name], case.own.means[name]
            last = name in case.head.names
            inverse = (1 / (fisher + NEVER_ZERO)).clamp(max=MOST_LAST if last else MOST)
            spread = inverse.mean(1, keepdim=True).expand_as(weight) if weight.dim() > 1 else inverse
            spread = strength["scale"] * spread * (10 if last or weight.dim() == 1 else 1)
            mean = weight.double()
            if last and rows:
                mean, spread = mean.clone(), spread.clone()
                mean[rows], spread[rows] = 0.0, ROW
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            edited[name] = (mean + spread.sqrt() * noise).to(weight.dtype)
        return edited


NEVER_ZERO, MOST, MOST_LAST, ROW = 1e-8, 1e3, 1e2, 1e-4  # as the public code of FisherMask has them
SCALES = 24  # that "auto" searches


class _Trained(Unguided, ABC):
    """Trains at the heir's home, for so long: `unit` names the field that says how long, a number or "auto"."""

    unit: ClassVar[str]
    tries: ClassVar[tuple[int, ...]]  # numbers among which "auto" chooses
    lr: float

    def __post_init__(self) -> None:
        if (self.long != "auto" and not whole(self.long)) or not self.lr > 0:
            raise InputError(
                f"{self.name}: {self.unit} is {self.long!r} and lr {self.lr}, expected a whole number from 0 up and above 0"
            )

    @property
    def long(self) -> int | Literal["auto"]:
        """How long it trains."""
        found: int | Literal["auto"] = getattr(self, self.unit)
        return found

    @property
    def chosen(self) -> tuple[int, ...]:
        """Numbers that come into question."""
        return self.tries if self.long == "auto" else (self.long,)

    def strengths(self, case: Case) -> Sequence[Strength]:
        """How long to train."""
        del case
        return [{self.unit: float(n)} for n in self.chosen]

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, Tensor]:
        """Train, from where a shorter training ended."""
        if (home := case.home) is None or self.misses(case):
            return dict(weights)
        what = self, case.head, case.classes
        course = Course.of(home.begun, what, weights, lambda: self.begin(home, weights, case), self.chosen)
        return course.after(int(strength[self.unit]), self.lr)

    @abstractmethod
    def begin(self, home: Home, weights: Tensors, case: Case) -> Steps:
        """Weights after each epoch or step."""


@dataclass(frozen=True)
class _ByEpochs(_Trained):
    """Trains for some epochs.

    Args:
        epochs: passes over the rows, or "auto".
        lr: learning rate.

    Raises:
        InputError: a setting is out of range.
    """

    epochs: int | Literal["auto"] = "auto"
    lr: float = 0.01
    unit = "epochs"
    tries = (1, 2, 5, 10)


@dataclass(frozen=True)
class FineTune(_ByEpochs):
    """Go on training on what is retained, and hope that the rest fades."""

    name = "fine_tune"

    @property
    def needs(self) -> frozenset[str]:
        """Retained data."""
        return frozenset({RETAINED_AT_HEIRS})

    def begin(self, home: Home, weights: Tensors, case: Case) -> Steps:
        """Minimise the cross-entropy of retained rows."""
        del case
        return sgd(home, weights, home.retained, labels, lr=self.lr)


@dataclass(frozen=True)
class GradientAscent(_Trained):
    """Train backwards on what is forgotten, by gradients of a norm of at most 1: a loss without a ceiling diverges else.

    Args:
        steps: of a batch of 128 rows each, or "auto". An epoch, where there are many rows, leaves nothing of a model.
        lr: learning rate.

    Raises:
        InputError: a setting is out of range.
    """

    steps: int | Literal["auto"] = "auto"
    lr: float = 0.02
    name = "gradient_ascent"
    unit = "steps"
    tries = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)

    @property
    def needs(self) -> frozenset[str]:
        """What is forgotten."""
        return frozenset({FORGOTTEN_AT_HEIRS})

    def begin(self, home: Home, weights: Tensors, case: Case) -> Steps:
        """Maximise the cross-entropy of forgotten rows."""
        del case
        return sgd(home, weights, home.forgotten, lambda out, y: -labels(out, y), lr=self.lr, longest=1.0, stepwise=True)


@dataclass(frozen=True)
class Distil(_ByEpochs):
    """Learn from the masked teacher: the heir's own outputs without the forgotten classes, on forgotten and retained rows.

    The minimised loss is KL(t || p), whose gradient at the roots is what `steer` sends.
    """

    name = "distil"

    @property
    def needs(self) -> frozenset[str]:
        """Both kinds of rows."""
        return frozenset({FORGOTTEN_AT_HEIRS, RETAINED_AT_HEIRS})

    def misses(self, case: Case) -> str | None:
        """A request without classes, or an heir without their outputs, which leave nothing to mask."""
        return no_output(case, "mask") if case.classes else "cannot be taught: the request names no class to mask"

    def begin(self, home: Home, weights: Tensors, case: Case) -> Steps:
        """Minimise the divergence from the teacher."""
        gone = [i for i, c in enumerate(case.head.classes) if c in case.classes]
        parts = [part.x for part in (home.forgotten, home.retained) if len(part)]
        if not parts:
            return repeat(dict(weights))
        x = torch.cat(parts)
        rows = Rows(x, torch.zeros(len(x), dtype=torch.int64), tuple(map(str, range(len(x)))), home.forgotten.classes)
        net = load(home.net, weights)
        with torch.no_grad():
            out = torch.cat([net(part).cpu() for part in batches(net, x)])
        out[:, gone] = -torch.inf

        def divergence(out: Tensor, teacher: Tensor) -> Tensor:
            return -(teacher * torch.log_softmax(out, 1)).sum(1).mean()  # KL(t || p) up to the teacher's own entropy

        return sgd(home, weights, rows, divergence, lr=self.lr, along=torch.softmax(out, 1))
