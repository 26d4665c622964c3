"""The same record over Ray actors, whatever happens to them. One Ray and one set of actors for all of these tests.

Ray listens on every interface and cannot be told otherwise, so these tests run only where there is no interface but loopback;
the last one makes such a place (`unshare -n`) where it may, and runs this file in it.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from fedunlearn.errors import InputError, SiteError
from fedunlearn.methods import FIUn, Method
from fedunlearn.runtime import Family, InProcess, Worker, rollback, unlearn
from fedunlearn.runtime.ray import Ray
from fedunlearn.runtime.tasks import Answer, Fetch, Fetched, Task
from fedunlearn.scenario import workers
from fedunlearn.scenario.files import of_family
from tests.conftest import LEAVE, ROOT, snapshot

ALONE = [name for _, name in socket.if_nameindex()] == ["lo"]
ray_here = pytest.mark.skipif(
    not (ALONE and find_spec("ray")),
    reason="needs Ray, and no network but loopback; test_in_a_network_of_its_own runs it there",
)
pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning",  # Ray leaves /dev/null and its children open
    "ignore:subprocess .* is still running:ResourceWarning",
)
DEADLINE = 60.0


class Faulty:
    """A worker that a file beside the family tells when to fail: `<place> <kind of task> <what> <when>`."""

    def __init__(self, worker: Worker, orders: Path) -> None:
        self.worker, self.orders, self.place, self.methods = worker, orders, worker.place, worker.methods

    def handle(self, task: Task) -> Answer:
        place, kind, what, when = self.orders.read_text().split() if self.orders.exists() else ("",) * 4
        if (place, kind) != (task.place, type(task).__name__):
            return self.worker.handle(task)
        if when == "after":
            self.worker.handle(task)
        if what == "die":
            self.orders.unlink()
        if what in ("die", "die-always"):
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "hang":
            time.sleep(1000)
        return "rubbish"  # type: ignore[return-value]


def open_faulty(folder: Path, place: str) -> Faulty:
    family = Family.open(folder)
    return Faulty(workers(of_family(family), family)[place], folder.parent / "orders")


def no_data() -> Worker:
    raise InputError("rows.csv: cannot be read; is the disk there?")


@pytest.fixture(scope="module")
def lent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the actors' family is; its files are put back before every test."""
    return tmp_path_factory.mktemp("lent") / "family"


@pytest.fixture(scope="module")
def started(trained: Path, lent: Path) -> Iterator[Ray]:
    shutil.copytree(trained, lent)
    sites = {place: partial(open_faulty, lent, place) for place in Family.open(lent).places}
    with Ray(sites, num_cpus=2, deadline=DEADLINE) as backend:  # type: ignore[arg-type]
        yield backend


@pytest.fixture
def backend(started: Ray, trained: Path, lent: Path) -> Iterator[Ray]:
    shutil.rmtree(lent)
    shutil.copytree(trained, lent)
    (lent.parent / "orders").unlink(missing_ok=True)
    yield started
    started.deadline = DEADLINE


def held(folder: Path) -> dict[str, object]:
    """What all homes of a family hold; of a mirror, all but the hash of a ledger line, in which times and costs stand."""
    found: dict[str, object] = dict(snapshot(folder / "homes"))
    for path in [p for p in found if p.endswith("place.json")]:
        mirror = json.loads(found[path])  # type: ignore[arg-type]
        assert mirror.pop("line")
        found[path] = mirror
    return found


@ray_here
@pytest.mark.parametrize("method", [FIUn(layers="last"), FIUn(layers="all"), "logit_mask"], ids=["last", "all", "mask"])
def test_the_record_equals_that_of_one_process_and_so_does_a_rollback(
    backend: Ray, lent: Path, family: Family, backend_of: Callable[[Family], InProcess], method: Method | str
) -> None:
    for place in list(backend._actors):
        backend._end(place)  # a living store remembers the packs of the folder that the fixture has replaced
    away, words = Family.open(lent), list[str]()
    backend.progress = words.append
    here, there = unlearn(family, LEAVE, method, backend_of(family)), unlearn(away, LEAVE, method, backend)
    assert there.facts == here.facts
    assert [m["version_after"] for m in there.facts["models"]] != [m["version_before"] for m in there.facts["models"]]
    assert held(lent) == held(family.folder)
    assert {word.partition(":")[0] for word in words} == set(away.places)
    assert all(up > 0 and down > 0 for up, down in backend.traffic.values())
    rollback(family, backend_of(family), lift_exclusion=True)
    rollback(away, backend, lift_exclusion=True)
    assert away.heads == family.heads
    assert snapshot(lent / "homes").keys() == snapshot(family.folder / "homes").keys()


@ray_here
@pytest.mark.parametrize("orders", ["north Measure die before", "east Apply die after"])
def test_a_site_that_is_killed_is_asked_again(
    backend: Ray, lent: Path, family: Family, backend_of: Callable[[Family], InProcess], orders: str
) -> None:
    (lent.parent / "orders").write_text(orders)
    record = unlearn(Family.open(lent), LEAVE, "fiun", backend)
    assert not (lent.parent / "orders").exists()
    assert record.facts == unlearn(family, LEAVE, "fiun", backend_of(family)).facts


@ray_here
@pytest.mark.parametrize(
    ("orders", "message"),
    [
        ("south Measure hang before", r"nothing was changed; 1 of \d places failed: south: no answer within 4 s"),
        ("west Apply die-always after", r"nothing was changed; 1 of \d places failed: west: its process died 3 times"),
        ("east Apply lie before", r"nothing was changed; 1 of \d places failed: east: .*answer.* str"),
    ],
)
def test_a_site_that_stays_away_is_named_and_nothing_is_committed(backend: Ray, lent: Path, orders: str, message: str) -> None:
    ledger, heads = (lent / "ledger.jsonl").read_bytes(), dict(Family.open(lent).heads)
    backend.deadline = 4.0 if "hang" in orders else DEADLINE
    (lent.parent / "orders").write_text(orders)
    started = time.monotonic()
    with pytest.raises(SiteError, match=message):
        unlearn(Family.open(lent), LEAVE, "fiun", backend)
    assert time.monotonic() - started < DEADLINE
    assert (lent / "ledger.jsonl").read_bytes() == ledger
    (lent.parent / "orders").unlink()
    backend.deadline = DEADLINE
    assert Family.open(lent).heads == heads
    unlearn(Family.open(lent), LEAVE, "logit_mask", backend)  # the site is back
    assert Family.open(lent).heads != heads


@ray_here
def test_what_a_place_sends_is_one_s_own_to_change(backend: Ray, lent: Path) -> None:
    version = Family.open(lent).heads["shared"]
    (answer,) = backend.carry([Fetch("server", version)])
    assert isinstance(answer, Fetched)
    for tensor in answer.weights.values():
        tensor += 1  # what comes out of the object store is read-only


@ray_here
def test_places_that_cannot_be_asked_say_why(started: Ray) -> None:
    with Ray({"north": no_data}) as backend:
        texts = [str(getattr(a, "text", a)) for a in backend.carry([Fetch("nroth", "v"), Fetch("north", "v")])]
    assert texts[0].startswith("unknown place 'nroth'; did you mean 'north'?")
    assert texts[1] == "cannot open: rows.csv: cannot be read; is the disk there?"


@ray_here
def test_gpus_that_are_not_there_are_refused_at_once(started: Ray) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"num_gpus: 0.5 for each of 1 places, but the cluster has 0 GPUs; give less"):
            Ray({"north": no_data}, num_gpus=0.5).__enter__()


def test_a_missing_ray_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'Ray is not installed; run: pip install "fedunlearn\[ray\]"'):
        Ray({}).__enter__()


def test_it_is_used_in_a_with_block() -> None:
    with pytest.raises(InputError, match="Ray: not started; use it as `with Ray"):
        Ray({}).carry([])


@pytest.mark.skipif(ALONE or not find_spec("ray"), reason="needs Ray; not needed where there is no network but loopback")
def test_in_a_network_of_its_own() -> None:
    inside = ["unshare", "--map-root-user", "--net", "sh", "-c"]
    with suppress(OSError):
        if subprocess.run([*inside, "ip link set lo up"], capture_output=True, check=False).returncode == 0:
            tests = f"ip link set lo up && exec {sys.executable} -m pytest -p no:cacheprovider -p no:xdist {__file__}"
            done = subprocess.run([*inside, tests], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
            assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
            assert " passed" in done.stdout
            return
    pytest.skip("this machine does not let us make a network namespace (unshare -n)")
