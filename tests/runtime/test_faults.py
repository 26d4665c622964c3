"""Whatever goes wrong at a site or at the coordinator, and whenever: the same record, or an error that names the site.

A few draws run always, twenty of each as the slow suite.
"""

import random
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from flwr.app import Error, Message, RecordDict

from fedunlearn.methods import FIUn
from fedunlearn.runtime import Family, InProcess, Record, Worker, behind, settle, unlearn
from fedunlearn.runtime.flower import Flower, exchange
from fedunlearn.runtime.flower.records import from_records, to_records
from fedunlearn.runtime.tasks import Answer, Task
from fedunlearn.scenario import Scenario, workers
from fedunlearn.training.flower import LocalGrid
from tests.conftest import LEAVE
from tests.runtime.grids import app_of, nodes
from tests.runtime.unreliable import law

LAST = FIUn(layers="last")
DEADLINE = 2.0
DRAWS = [*range(3), *(pytest.param(i, marks=pytest.mark.slow) for i in range(3, 20))]


class Clock:
    """Time that passes only while somebody waits: how busy the machine is does not matter."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(exchange, "time", made)
    return made


class Fault(LocalGrid):
    """Something happens at one site, from its n-th message on, so many times. Messages are handled when they are sent."""

    def __init__(self, held: dict[str, Worker], site: str, first: int, times: int, what: str) -> None:
        super().__init__(app_of(held), nodes(held))
        self.site, self.first, self.times, self.what = site, first, times, what
        self.seen, self.done = 0, 0
        self.late: list[Message] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        names = []
        for message in messages:
            site = self.contexts[message.metadata.dst_node_id].node_config["site"]
            mine = site == self.site and message.metadata.message_type == "query.fedunlearn"
            self.seen += mine
            hit = mine and self.seen > self.first and self.done < self.times
            if hit and self.what == "dies before":
                message.metadata.__dict__["_message_id"] = f"lost-{self.seen}"
                self.late.append(Message(Error(5, "Node Unavailable"), reply_to=message))
                names.append(message.metadata.message_id)
            else:
                (name,) = super().push_messages([message])
                names.append(name)
                if hit:
                    self.late += self._spoiled(message, self._replies.pop(name))
            self.done += hit
        return names

    def _spoiled(self, message: Message, reply: Message) -> list[Message]:
        match self.what:
            case "dies after":
                return [Message(Error(5, "Node Unavailable"), reply_to=message)]
            case "hangs":
                return []
            case "twice":
                return [reply, reply]
            case "for another":
                reply.content = to_records("another", from_records(reply.content)[1])
            case "garbage":
                reply.content = RecordDict({})
        return [reply]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        given, self.late = self.late, []
        return [*given, *super().pull_messages(message_ids)]


@pytest.fixture(scope="module")
def whole(hospitals: Scenario, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, dict[str, str]]:
    """What comes of the request when nothing goes wrong."""
    family = Family.open(Path(shutil.copytree(trained, tmp_path_factory.mktemp("whole") / "family")))
    record = unlearn(family, LEAVE, LAST, InProcess(workers(hospitals, family)))
    return record, dict(family.heads)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("what", ["dies before", "dies after", "hangs", "twice", "for another", "garbage"])
def test_a_site_that_fails_leaves_no_family_half_committed(
    what: str,
    draw: int,
    family: Family,
    folder: Path,
    hospitals: Scenario,
    whole: tuple[Record, dict[str, str]],
    clock: Clock,
) -> None:
    rng = random.Random(f"{what} {draw}")
    held = dict(workers(hospitals, family))
    site, first, times = rng.choice(sorted(held)), rng.randint(0, 3), rng.choice([1, 1, 99])
    grid = Fault(held, site, first, times, what)
    backend = Flower(grid, deadline=DEADLINE, join=0)
    became = law(
        folder,
        lambda: unlearn(family, LEAVE, LAST, backend).facts,
        whole[0].facts,
        whole[1],
        site,
        lambda: settle(Family.open(folder), InProcess(held)),
    )
    assert clock.now <= 5 * DEADLINE  # of as many rounds; a hang would never end
    if not grid.done or what == "twice" or (times == 1 and what.startswith("dies")):
        assert became == "same"  # nothing happened, or asking again mends it
    else:
        assert became != "same"


class Killed(BaseException):
    """The coordinator's process is gone; nothing of it catches this."""


class Mortal(InProcess):
    """A coordinator that dies before or after so many rounds of messages."""

    def __init__(self, held: dict[str, Worker], rounds: int, after: bool) -> None:
        super().__init__(held)
        self.rounds, self.after = rounds, after

    def carry(self, tasks: Sequence[Task]) -> list[Answer]:
        self.rounds -= 1
        if self.rounds < 0 and not self.after:
            raise Killed
        found = super().carry(tasks)
        if self.rounds < 0:
            raise Killed
        return found


@pytest.mark.parametrize("draw", DRAWS)
def test_a_coordinator_that_dies_leaves_all_or_nothing(
    draw: int, family: Family, folder: Path, hospitals: Scenario, whole: tuple[Record, dict[str, str]]
) -> None:
    rng, held, before = random.Random(draw), dict(workers(hospitals, family)), dict(family.heads)
    with pytest.raises(Killed):
        unlearn(family, LEAVE, LAST, Mortal(held, rng.randint(0, 3), rng.random() < 0.5))
    again = Family.open(folder)
    if again.heads == before:
        record = unlearn(again, LEAVE, LAST, InProcess(held))
        assert record.facts == whole[0].facts
    else:
        assert again.heads == whole[1]
        settle(again, InProcess(held))
    assert Family.open(folder).heads == whole[1]
    assert not behind(Family.open(folder))
