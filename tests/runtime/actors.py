"""For tests that start Ray. It listens on every interface, which nobody can change: they run where there is only loopback."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from fedunlearn.runtime import Family
from fedunlearn.runtime.ray import Ray
from fedunlearn.runtime.tasks import Fetch
from tests.conftest import ROOT
from tests.runtime.unreliable import Unreliable, lend

ALONE = [name for _, name in socket.if_nameindex()] == ["lo"]
ray_here = pytest.mark.skipif(
    not (ALONE and find_spec("ray")),
    reason="needs Ray, and no network but loopback; test_in_a_network_of_its_own runs it there",
)
outside = pytest.mark.skipif(
    ALONE or not find_spec("ray"), reason="needs Ray; not needed where there is no network but loopback"
)
os.environ.setdefault("RAY_worker_niceness", "0")  # else actors starve on a busy machine: by default Ray starts them at 15
DEADLINE = 600.0  # an actor that has to be made imports torch first: seconds, or minutes on a busy machine
QUIETLY = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # Ray leaves /dev/null and its children open
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]
INSIDE = ["unshare", "--map-root-user", "--net", "sh", "-c"]


def in_a_network_of_its_own(file: str) -> None:
    """Run a test file where there is only loopback (`unshare -n`); skip where this machine does not let us."""
    with suppress(OSError):
        if subprocess.run([*INSIDE, "ip link set lo up"], capture_output=True, check=False).returncode == 0:
            tests = f"ip link set lo up && exec {sys.executable} -m pytest --durations=0 -p no:cacheprovider -p no:xdist {file}"
            done = subprocess.run([*INSIDE, tests], cwd=ROOT, capture_output=True, text=True, check=False)
            print(done.stdout)
            assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
            assert " passed" in done.stdout
            return
    pytest.skip("this machine does not let us make a network namespace (unshare -n)")


@pytest.fixture(scope="module")
def lent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the actors' family is; its files are put back before every test."""
    return tmp_path_factory.mktemp("lent") / "family"


@pytest.fixture(scope="module")
def started(trained: Path, lent: Path) -> Iterator[Ray]:
    """One Ray and one set of actors for all tests of a module."""
    lend(trained, lent)
    sites = {place: partial(Unreliable, lent, place) for place in Family.open(lent).places}
    with Ray(sites, num_cpus=2, deadline=DEADLINE) as backend:  # type: ignore[arg-type]
        yield backend


@pytest.fixture
def backend(started: Ray, trained: Path, lent: Path) -> Iterator[Ray]:
    shutil.rmtree(lent)
    lend(trained, lent)
    yield started
    started.deadline = DEADLINE


def idle(backend: Ray) -> float:
    """Seconds that a round takes in which nothing is done. Actors that were lost are made anew before: they import."""
    tasks = [Fetch(place, "none") for place in backend.sites]
    backend.carry(tasks)
    started = time.monotonic()
    backend.carry(tasks)
    return time.monotonic() - started
