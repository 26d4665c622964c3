"""Whatever befalls an actor or the coordinator, and whenever: the same record, or an error that names the site, in time.

`pytest -m slow tests/runtime/test_ray_faults.py`: five draws of each, about a quarter of an hour,
most of it for actors that start.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from fedunlearn.runtime import Family, InProcess, Record, behind, settle, unlearn
from fedunlearn.runtime.ray import Ray
from fedunlearn.runtime.tasks import Answer, Task
from fedunlearn.scenario import Scenario, workers
from tests.conftest import LEAVE, ROOT
from tests.runtime.actors import (
    DEADLINE,
    QUIETLY,
    backend as backend,
    idle,
    in_a_network_of_its_own,
    lent as lent,
    outside,
    ray_here,
    started as started,
)
from tests.runtime.test_faults import LAST, whole as whole
from tests.runtime.unreliable import PID, law, order, suffered

pytestmark = [pytest.mark.slow, *QUIETLY]
BEFALLS = {
    "killed while measuring": ("killed at work", ["Measure"]),
    "killed while applying": ("killed at work", ["Apply"]),
    "killed before answering": ("killed after it", ["Apply", "Commit"]),
    "hangs": ("hangs", ["Measure", "Apply", "Commit"]),
    "does it twice": ("twice", ["Measure", "Apply", "Commit"]),
    "answers for another": ("another", ["Measure", "Apply"]),
    "garbage": ("no answer", ["Measure", "Apply", "Commit"]),
}
MENDED = {"killed at work", "killed after it", "twice"}


class Noting(InProcess):
    """Which places are asked what."""

    asked: dict[str, list[str]]

    def carry(self, tasks: Sequence[Task]) -> list[Answer]:
        for task in tasks:
            self.asked.setdefault(type(task).__name__, []).append(task.place)
        return super().carry(tasks)


@pytest.fixture
def asked(family: Family, hospitals: Scenario) -> dict[str, list[str]]:
    noting = Noting(workers(hospitals, family))
    noting.asked = {}
    unlearn(family, LEAVE, LAST, noting)
    return {kind: sorted(set(places)) for kind, places in noting.asked.items()}


@ray_here
@pytest.mark.parametrize("draw", range(5))
@pytest.mark.parametrize("what", BEFALLS)
def test_an_actor_that_fails(
    what: str, draw: int, backend: Ray, lent: Path, asked: dict[str, list[str]], whole: tuple[Record, dict[str, str]]
) -> None:
    rng, (how, kinds) = random.Random(f"{what} {draw}"), BEFALLS[what]
    kind = rng.choice(kinds)
    site, once = rng.choice(asked[kind]), draw > 0 or how not in MENDED
    place = lent.parent / site
    patience = 4 + 20 * idle(backend)
    if how == "hangs":
        backend.deadline = patience
    order(place, how, kind, seconds=10 * DEADLINE if how == "hangs" else rng.uniform(0, 0.05), times=1 if once else 99)

    def settled() -> None:
        backend.deadline = DEADLINE
        order(place, "nothing", "none", times=0)
        settle(Family.open(lent), backend)

    begun = time.monotonic()
    became = law(lent, lambda: unlearn(Family.open(lent), LEAVE, LAST, backend).facts, whole[0].facts, whole[1], site, settled)
    assert suffered(place) or became == "late"
    if how in MENDED and (once or how == "twice"):
        assert became == "same"
    else:
        assert became == ("late" if kind == "Commit" else "nothing")
    if how == "hangs":
        assert time.monotonic() - begun < patience + DEADLINE / 2  # one round, and whatever else a busy machine needs


@ray_here
@pytest.mark.parametrize("draw", range(5))
def test_an_actor_that_is_killed_at_any_moment(
    draw: int, backend: Ray, lent: Path, whole: tuple[Record, dict[str, str]]
) -> None:
    """From outside, by its process id, while it does whatever it does then; as often as it is asked again, less one."""
    rng, long = random.Random(f"moment {draw}"), 40 * idle(backend)
    site = rng.choice(sorted(backend.sites))

    def befalls() -> None:
        for _ in range(2):
            time.sleep(rng.uniform(0, long))
            with suppress(ProcessLookupError):
                os.kill(int((lent.parent / site / PID).read_text()), signal.SIGKILL)

    fate = threading.Thread(target=befalls)
    fate.start()
    became = law(
        lent, lambda: unlearn(Family.open(lent), LEAVE, LAST, backend).facts, whole[0].facts, whole[1], site, lambda: None
    )
    fate.join()
    assert became == "same"


COORDINATOR = """
import sys
from functools import partial
from pathlib import Path
from fedunlearn.runtime import Family, unlearn
from fedunlearn.runtime.ray import Ray
from tests.conftest import LEAVE
from tests.runtime.actors import idle
from tests.runtime.test_faults import LAST
from tests.runtime.unreliable import Unreliable

address, lent = sys.argv[1], Path(sys.argv[2])
sites = {place: partial(Unreliable, lent, place) for place in Family.open(lent).places}
with Ray(sites, address) as backend:
    idle(backend)
    print("ready", flush=True)
    unlearn(Family.open(lent), LEAVE, LAST, backend)
    print("done", flush=True)
"""


@ray_here
@pytest.mark.parametrize("draw", range(5))
def test_a_coordinator_that_is_killed(draw: int, backend: Ray, lent: Path, whole: tuple[Record, dict[str, str]]) -> None:
    """A process of its own on the same cluster; its actors end with it, wherever they are. Another one takes over."""
    import ray

    rng, before, long = random.Random(f"coordinator {draw}"), dict(Family.open(lent).heads), 40 * idle(backend)
    words = [sys.executable, "-c", COORDINATOR, ray.get_runtime_context().gcs_address, str(lent)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, long))
        process.kill()
    again = Family.open(lent)
    if again.heads == before:
        assert unlearn(again, LEAVE, LAST, backend).facts == whole[0].facts
    else:
        settle(again, backend)
    assert Family.open(lent).heads == whole[1]
    assert not behind(Family.open(lent))


@outside
def test_in_a_network_of_its_own() -> None:
    in_a_network_of_its_own(__file__)
