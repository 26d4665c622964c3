"""One small comparison, run once: two seeds, two requests, four methods of which one fails."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from fedunlearn.compare import Choice, Subject, compare
from fedunlearn.lineage import Request
from fedunlearn.methods import FIUn
from fedunlearn.methods.base import Case, Strength, Unguided
from fedunlearn.methods.logit_mask import LogitMask
from fedunlearn.methods.ssd import SSD
from fedunlearn.scenario import Scenario, load
from fedunlearn.tensors import Tensors

TINY = """
name: tiny
data: {set: digits, without: {east: [0]}}
net: {name: mlp, hidden: 16}
models:
  first:  {born: incremental, site: north}
  second: {born: incremental, from: [first], site: east, epochs: 1}
  even:   {born: transfer, from: [first], site: east, head: ["2", "4"], epochs: 1}
requests:
  leave: {classes: ["0"]}
"""
REQUESTS = (Request(classes=("0",), id="0"), Request(classes=("0", "7"), id="0+7"))
SEEDS = (0, 1)


@dataclass(frozen=True)
class Failing(Unguided):
    """Raises whenever it edits."""

    name = "failing"

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, Tensor]:
        raise ZeroDivisionError("as it does")


CHOICES = (
    Choice("fiun", FIUn(layers="last")),
    Choice("ssd", SSD(layers="last")),
    Choice("failing", Failing()),
    Choice("logit_mask", LogitMask()),
)


@pytest.fixture(scope="session")
def topology(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("topology") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def tiny(topology: Path) -> Scenario:
    return load(topology)


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare") / "work"


@pytest.fixture(scope="session")
def result(tiny: Scenario, work: Path) -> dict[str, Any]:
    return compare([Subject(tiny, REQUESTS)], CHOICES, SEEDS, work)


def timeless(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what differs from run to run."""
    return [{k: v for k, v in r.items() if not k.endswith("seconds")} for r in rows]
