"""What is differentiated: one number a sample.

A loss is a list of terms, each [N], such that the sum over terms of f(gradient of the term) is the statistic wanted; most
have one term, an expectation over the model's own outputs has one for each class.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fedunlearn.errors import InputError, ShapeError, unknown


class Loss(ABC):
    """One number a sample; `labelled` says whether it reads labels."""

    labelled: bool = False

    @abstractmethod
    def terms(self, out: Tensor, y: Tensor | None, power: int) -> Iterator[Tensor]:
        """Per-sample values [N] of outputs [N, C]; constant weights are such that f(w a) = w^power f(a) comes out right."""

    def rows(self, n: int, y: Tensor | None) -> Tensor | None:
        """What goes along with n inputs, row by row."""
        return y


def surprise(out: Tensor, y: Tensor) -> Tensor:
    """-log p(y | x) in nats, [N]: log(1 + exp(others - own)).

    Its gradient by the label's output is then 1 - p(y | x) itself. Of log_softmax it is p - 1, of which float32 leaves nothing
    at a margin of 17 nats, as well-trained models have.

    Args:
        out: logits [N, C].
        y: labels [N].
    """
    if out.shape[1] < 2:
        return functional.cross_entropy(out, y, reduction="none")  # 0, by whatever the only output is
    label = y[:, None]
    others = out.scatter(1, label, -torch.inf).logsumexp(1)
    return -functional.logsigmoid(out.gather(1, label)[:, 0] - others)


@dataclass(frozen=True)
class Labels(Loss):
    """Cross-entropy of given labels: with squares, the empirical Fisher."""

    labelled = True

    def terms(self, out: Tensor, y: Tensor | None, power: int) -> Iterator[Tensor]:
        """-log p(y | x)."""
        if y is None:
            raise InputError("loss 'labels' needs labels; without them use 'own', 'sampled', 'norm' or 'masked'")
        yield surprise(out, y)


@dataclass(frozen=True)
class Own(Loss):
    """Expectation over the model's own outputs, exactly: with squares, the true Fisher (FisherMask, arXiv 2310.05331)."""

    def terms(self, out: Tensor, y: Tensor | None, power: int) -> Iterator[Tensor]:
        """-log p(c | x), weighted by p(c | x), one class c after another."""
        weight = torch.softmax(out.detach(), 1) ** (1 / power)
        for c in range(out.shape[1]):
            yield surprise(out, torch.full((len(out),), c, device=out.device)) * weight[:, c]


@dataclass(frozen=True)
class Sampled(Loss):
    """One label a row, drawn from the model's own outputs: an unbiased, cheaper `Own`. The split into batches is all one."""

    seed: int = 0

    def rows(self, n: int, y: Tensor | None) -> Tensor:
        """A uniform number a row, which picks the label."""
        return torch.rand(n, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)

    def terms(self, out: Tensor, y: Tensor | None, power: int) -> Iterator[Tensor]:
        """-log p(drawn label | x)."""
        if y is None:
            raise ShapeError("loss 'sampled': rows come without the numbers that pick labels")
        steps = torch.softmax(out.detach().double(), 1).cumsum(1)
        drawn = (steps < y[:, None].to(steps.device)).sum(1).clamp(max=out.shape[1] - 1)
        yield surprise(out, drawn)


@dataclass(frozen=True)
class Norm(Loss):
    """Squared norm of the outputs: with absolute values, LFSSD's sensitivity (arXiv 2402.19308). No labels."""

    def terms(self, out: Tensor, y: Tensor | None, power: int) -> Iterator[Tensor]:
        """||f(x)||^2."""
        yield out.square().sum(1)


@dataclass(frozen=True)
class Masked(Loss):
    """KL(t || p) to the model's own output t without some classes, a constant: which way to move to forget them.

    As t is what p says of the others, scaled to sum up to 1, this is -log(1 - p(masked)), with the same gradient.

    Args:
        outputs: indices of the outputs that t lacks; at least one, not all.
    """

    outputs: tuple[int, ...]

    def terms(self, out: Tensor, y: Tensor | None, power: int) -> Iterator[Tensor]:
        """-log(1 - p(masked classes | x))."""
        kept = [c for c in range(out.shape[1]) if c not in self.outputs]
        if not kept or not self.outputs:
            raise InputError(f"loss 'masked': {len(self.outputs)} of {out.shape[1]} outputs masked; some, not all, must be")
        yield -functional.logsigmoid(out[:, kept].logsumexp(1) - out[:, list(self.outputs)].logsumexp(1))


def to_mask(head: Sequence[str], classes: Sequence[str], gone: Collection[str]) -> tuple[str, ...]:
    """What outputs are to lack: what is to be forgotten, and what was before, which must not come back in its place.

    Args:
        head: names of a model's outputs.
        classes: to be forgotten.
        gone: forgotten before; left out where no output would be left.
    """
    asked = tuple(c for c in classes if c in head)
    before = tuple(c for c in gone if c in head and c not in asked)
    return asked + before if len(asked + before) < len(head) else asked


@dataclass(frozen=True)
class Custom(Loss):
    """The user's own: `of(outputs [N, C], labels [N] or None) -> [N]`, each entry a function of its own row only."""

    of: Callable[[Tensor, Tensor | None], Tensor]

    def terms(self, out: Tensor, y: Tensor | None, power: int) -> Iterator[Tensor]:
        """What the user's function says.

        Raises:
            ShapeError: it is not one number a row.
        """
        found = self.of(out, y)
        if not isinstance(found, Tensor) or found.shape != (len(out),):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ShapeError(f"loss: the user's function gave {shape} for {len(out)} rows, expected one number a row")
        yield found


LOSSES: dict[str, Callable[..., Loss]] = {"labels": Labels, "own": Own, "sampled": Sampled, "norm": Norm, "masked": Masked}


def loss_of(loss: str | Loss | Callable[[Tensor, Tensor | None], Tensor], masked: tuple[int, ...] = (), seed: int = 0) -> Loss:
    """A loss by name, by itself, or the user's function.

    Raises:
        InputError: the name is unknown.
    """
    if isinstance(loss, Loss):
        return loss
    if callable(loss):
        return Custom(loss)
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    settings: dict[str, dict[str, Any]] = {"masked": {"outputs": masked}, "sampled": {"seed": seed}}
    return LOSSES[loss](**settings.get(loss, {}))
