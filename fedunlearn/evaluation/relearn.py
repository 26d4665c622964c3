"""How fast does it come back? Fine-tuning an edited model a little, on rows that an attacker may well have.

A retrained model is the control: it takes as long as learning anew takes. Faster is residual knowledge; much slower is damage.
The attacker's model is a copy that nobody keeps, so rows that a committed request excluded may be in it.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from fedunlearn.data import Rows
from fedunlearn.data.rows import joined
from fedunlearn.errors import InputError, ShapeError
from fedunlearn.evaluation.accuracy import accuracy
from fedunlearn.nets import device_of

FRACTION = 0.95  # of the unedited model's accuracy that counts as relearned: a = 0.05
OFFSET = 0.01  # steps added to both sides of AIN, so that a model that need not learn has a ratio, too


@dataclass(frozen=True)
class Tuning:
    """Plain SGD with fixed settings, the same for all models that are compared.

    Args:
        steps: where it gives up.
        lr: learning rate.
        batch: rows a step.
        every: steps between two looks at the accuracy.
        seed: of the order of the rows.

    Raises:
        InputError: a setting is not positive.
    """

    steps: int = 200
    lr: float = 0.02
    batch: int = 32
    every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for what in ("steps", "lr", "batch", "every"):
            if getattr(self, what) <= 0:
                raise InputError(f"relearning: {what} is {getattr(self, what)}, expected above 0")


@dataclass(frozen=True)
class Relearned:
    """How a model took to learning again.

    Args:
        goal: accuracy to come to.
        steps: steps until then; None if that was never.
        curve: (steps, accuracy) at each look, 0 steps first.
        cap: steps after which it was given up.
    """

    goal: float
    steps: int | None
    curve: tuple[tuple[int, float], ...]
    cap: int

    @property
    def best(self) -> float:
        """The highest accuracy seen."""
        return max(a for _, a in self.curve)

    def to_json(self) -> dict[str, Any]:
        """As plain data; never having come to the goal is said in words."""
        never = f"never reached in {self.cap} steps"
        return {
            "goal": self.goal,
            "steps": never if self.steps is None else self.steps,
            "best": self.best,
            "curve": [list(point) for point in self.curve],
        }


def relearn(net: nn.Module, rows: Rows, watch: Rows, goal: float, tuning: Tuning, to_the_end: bool = False) -> Relearned:
    """Fine-tune a copy, and watch the forgotten rows come back.

    With `rows` that all stay this is retain-only relearning (arXiv 2505.22310): knowledge that comes back without a single row
    of it was never gone. With a few rows of what is forgotten (see `shots`), compare steps by `ain`. BatchNorm keeps its
    statistics and dropout is off, so that a handful of rows is enough. A masked output may be out of a gradient's reach:
    "never" proves nothing of the features, a probe does.

    Args:
        net: stays as it is.
        rows: what is learned on, labelled by the net's outputs.
        watch: held-out rows of the classes that are forgotten; or, where no class is named, the forgotten rows themselves.
        goal: accuracy on them to come to, such as `FRACTION` of the unedited model's.
        tuning: steps, learning rate, batch, seed.
        to_the_end: go on to the cap when the goal is reached, for the curve.

    Raises:
        InputError: there is no row to learn on, or none to watch; or it diverged.
    """
    if not len(rows) or not len(watch):
        raise InputError(f"relearning: {len(rows)} rows to learn on and {len(watch)} to watch, expected some of each")
    copy = deepcopy(net).eval()
    device = device_of(copy)
    x, y = rows.x.to(device), rows.y.to(device)
    for parameter in copy.parameters():
        parameter.requires_grad_(True)
    optimiser = torch.optim.SGD(copy.parameters(), lr=tuning.lr)
    generator = torch.Generator().manual_seed(tuning.seed)
    order = torch.empty(0, dtype=torch.int64)
    curve, reached = [(0, _accuracy(copy, watch))], None
    for step in range(1, tuning.steps + 1):
        if curve[-1][1] >= goal:
            reached = curve[-1][0] if reached is None else reached
            if not to_the_end:
                break
        if len(order) < min(tuning.batch, len(rows)):
            order = torch.cat([order, torch.randperm(len(rows), generator=generator)])
        taken, order = order[: tuning.batch].to(device), order[tuning.batch :]
        optimiser.zero_grad()
        functional.cross_entropy(copy(x[taken]), y[taken]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step % tuning.every == 0 or step == tuning.steps:
            try:
                curve.append((step, _accuracy(copy, watch)))
            except ShapeError as error:
                raise InputError(f"relearning diverged within {step} steps; lower lr (it is {tuning.lr:g})") from error
    if reached is None and curve[-1][1] >= goal:
        reached = curve[-1][0]
    return Relearned(goal, reached, tuple(curve), tuning.steps)


def shots(forgotten: Rows, retained: Rows, number: int) -> Rows:
    """What a k-shot attacker learns on: a few rows of each class that is forgotten, and as many of each other class.

    Of forgotten rows alone every model learns within a few steps to say nothing else, a retrained one too; that tells nothing.

    Args:
        forgotten: training rows that are to be forgotten.
        retained: training rows that stay.
        number: of rows of each class, k; the first ones.

    Raises:
        InputError: no shot, or no row to take one of.
    """
    if number < 1 or not len(forgotten):
        raise InputError(f"relearning: {number} shots of {len(forgotten)} forgotten rows, expected one or more of each")
    few = forgotten.first(number)
    others = retained.without(few.counts()).first(number)
    return joined([few, others])


def ain(edited: Relearned, retrained: Relearned) -> float | str:
    """Anamnesis index (Chundawat et al. 2023, arXiv 2201.05629): steps of the edited model over steps of the retrained one.

    Well below 1 is residual memory, about 1 is like retrained, well above 1 is damage. Where one side never came to its goal
    the ratio is a bound, in words.

    Args:
        edited: how the edited model took to it.
        retrained: how the retrained one did, with the same settings.
    """
    ours = (edited.cap if edited.steps is None else edited.steps) + OFFSET
    theirs = (retrained.cap if retrained.steps is None else retrained.steps) + OFFSET
    if edited.steps is None and retrained.steps is None:
        return f"neither came back in {edited.cap} steps"
    if edited.steps is None:
        return f"above {ours / theirs:.3g}: the edited model never came back in {edited.cap} steps"
    if retrained.steps is None:
        return f"below {ours / theirs:.3g}: the retrained model never came to it in {retrained.cap} steps"
    return ours / theirs


def _accuracy(net: nn.Module, rows: Rows) -> float:
    found = accuracy(net, rows)
    assert found is not None
    return found
