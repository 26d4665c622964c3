"""Families trained once and copied, so that every test may spoil its own."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: small nets on few cores only wait for each other's threads

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from fedunlearn.lineage import Request
from fedunlearn.runtime import Family, InProcess
from fedunlearn.scenario import Scenario, find_topology, load, reference, train, workers

settings.register_profile("untimed", deadline=None)  # a law holds however busy the machine is
settings.load_profile("untimed")

ROOT = Path(__file__).parent.parent
LEAVE = Request(classes=("0",))
NORTH = Request(classes=("0",), sites=("north",))


@pytest.fixture(scope="session")
def hospitals() -> Scenario:
    return load(find_topology("hospitals"))


@pytest.fixture(scope="session")
def trained(hospitals: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The family of `hospitals`, with the references for both requests; not to be changed."""
    folder = tmp_path_factory.mktemp("hospitals") / "family"
    family = train(hospitals, folder)
    for request in (LEAVE, NORTH):
        reference(family, hospitals, request)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the family that may be changed."""
    return Path(shutil.copytree(trained, tmp_path / "family"))


@pytest.fixture
def family(folder: Path) -> Family:
    return Family.open(folder)


@pytest.fixture
def backend_of(hospitals: Scenario) -> Callable[[Family], InProcess]:
    return lambda family: InProcess(workers(hospitals, family))


@pytest.fixture
def backend(hospitals: Scenario, family: Family) -> InProcess:
    return InProcess(workers(hospitals, family))


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, to show that nothing changed."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
