"""The app of `simulations/adopt_flower`, adopted."""

import importlib
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.clientapp import ClientApp

from fedunlearn.training.flower import LocalGrid
from tests.conftest import ROOT

APPS = ROOT / "simulations" / "adopt_flower"
LOADER, NET = "quickstart.task:partition", "quickstart.task:Net"


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The adopted app can be imported, and writes into a folder of the test."""
    monkeypatch.syspath_prepend(APPS / "after")
    monkeypatch.chdir(tmp_path)
    yield
    for name in [n for n in sys.modules if n.partition(".")[0] == "quickstart"]:
        del sys.modules[name]


def grid_of(app: ClientApp | None = None) -> LocalGrid:
    config = tomllib.loads((APPS / "after" / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    nodes = {10 + i: {"partition-id": i, "num-partitions": 3} for i in range(3)}
    return LocalGrid(app or importlib.import_module("quickstart.client_app").app, nodes, config)
