"""Small nets with known fates, trained once: what forgot nothing, what was retrained, what was masked, what went too far."""

from copy import deepcopy
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from fedunlearn.data import Exclusions, Rows, open_rows
from fedunlearn.data.rows import joined
from fedunlearn.evaluation.material import Material
from fedunlearn.evaluation.shadows import Shadows, train_shadows
from fedunlearn.methods import Case, LogitMask
from fedunlearn.nets import build, head_of, load, weights_of
from fedunlearn.tensors import Head
from fedunlearn.training import Portion, Recipe, fit

FORGOTTEN = "3"
CLASSES = tuple(map(str, range(10)))
RECIPE = Recipe("net", "here", (), CLASSES, epochs=40, lr=0.05, batch=32, seed=11)
SHADOWS = 24


def make(seed: int, outputs: int = 10) -> nn.Module:
    return build({"name": "mlp", "hidden": 64}, (8, 8), outputs, seed)


def learn(rows: Rows, seed: int = 0) -> nn.Module:
    portion = Portion("here", "all", rows, Exclusions({}))
    return fit(make(seed), [portion], replace(RECIPE, seed=seed))


@dataclass(frozen=True)
class Known:
    """Rows, and nets of which it is known what they forgot."""

    head: Head
    forgotten: Rows
    retained: Rows
    calibration: Rows
    test: Rows
    before: nn.Module
    retrained: tuple[nn.Module, ...]
    masked: nn.Module
    ruined: nn.Module

    @property
    def training(self) -> Rows:
        return joined([self.forgotten, self.retained])


def mask(net: nn.Module, head: Head, classes: tuple[str, ...]) -> nn.Module:
    return load(deepcopy(net), LogitMask().edit(weights_of(net), Case({}, {}, head, classes), {})).eval()


def spoil(net: nn.Module, rows: Rows, keep: Rows | None = None, held: Rows | None = None) -> nn.Module:
    """Taught that rows are of other classes until none is right; without rows to keep, the rest goes, too."""
    worse = deepcopy(net)
    optimiser = torch.optim.SGD(worse.parameters(), lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        loss = functional.cross_entropy(worse(rows.x), (rows.y + 1) % 10)
        if keep is not None:
            loss = loss + functional.cross_entropy(worse(keep.x), keep.y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return worse.eval()


@pytest.fixture(scope="session")
def by_class() -> Known:
    """A class is forgotten: plain digits, 600 rows to train on, which are learned by heart."""
    rows = open_rows("digits")
    training, calibration, test = rows.take(range(600)), rows.take(range(600, 1100)), rows.take(range(1100, 1797))
    forgotten, retained = training.of([FORGOTTEN]), training.without([FORGOTTEN])
    before = learn(training)
    head = head_of(before, CLASSES)
    again = tuple(learn(retained, seed) for seed in range(3))
    return Known(
        head,
        forgotten,
        retained,
        calibration,
        test,
        before,
        again,
        mask(before, head, (FORGOTTEN,)),
        spoil(before, forgotten),
    )


@pytest.fixture(scope="session")
def by_sample() -> Known:
    """Sixty rows of all classes are forgotten: digits under so much noise that a net can only learn them by heart."""
    rows = open_rows("digits").take(range(700))
    rows = replace(rows, x=rows.x + 0.8 * torch.randn(rows.x.shape, generator=torch.Generator().manual_seed(1)))
    forgotten, retained, held = rows.take(range(80)), rows.take(range(80, 350)), rows.take(range(350, 700))
    training = rows.take(range(350))
    before = learn(training)
    again = tuple(learn(retained, seed) for seed in range(3))
    head = head_of(before, CLASSES)
    calibration, test = held.take(range(150)), held.take(range(150, 350))
    return Known(head, forgotten, retained, calibration, test, before, again, before, spoil(before, forgotten, retained))


@pytest.fixture(scope="session")
def shadows(by_sample: Known, tmp_path_factory: pytest.TempPathFactory) -> Shadows:
    """A pool for the rows of `by_sample`."""
    return train_shadows(tmp_path_factory.mktemp("pools"), everything(by_sample), make, RECIPE, SHADOWS)


def everything(known: Known) -> Rows:
    return joined([known.forgotten, known.retained, known.calibration, known.test])


def material(known: Known, classes: tuple[str, ...] = (FORGOTTEN,)) -> Material:
    return Material(classes, known.forgotten, known.retained, known.calibration, known.test)
