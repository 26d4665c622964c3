"""A place that is offline stops a request, unless it was asked to go on; then what waits is said, and finished later."""

import random
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest

from fedunlearn.errors import InputError, SiteError
from fedunlearn.lineage import Request
from fedunlearn.methods import FIUn
from fedunlearn.runtime import (
    Family,
    InProcess,
    Record,
    Worker,
    behind,
    resume,
    rollback,
    settle,
    unlearn,
    waiting,
    waiting_plan,
)
from fedunlearn.runtime.roll import Roll
from fedunlearn.runtime.tasks import Answer, Apply, Commit, Failure, Measure, Task
from fedunlearn.scenario import Scenario, extend, workers
from tests.conftest import LEAVE, snapshot

LAST = FIUn(layers="last")


class Offline(InProcess):
    """Some places do not answer, from some call on, or to some kinds of task."""

    def __init__(
        self, held: Mapping[str, Worker], away: Collection[str], kinds: tuple[type, ...] = (object,), after: int = 0
    ) -> None:
        super().__init__(held)
        self.away, self.kinds, self.after = set(away), kinds, after
        self.calls = 0
        self.asked: list[str] = []

    def carry(self, tasks: Sequence[Task]) -> list[Answer]:
        self.calls += 1
        self.asked += [t.place for t in tasks]
        return [
            Failure(t.place, "no answer within 3 s", offline=True) if self._silent(t) else super(Offline, self).carry([t])[0]
            for t in tasks
        ]

    def _silent(self, task: Task) -> bool:
        return task.place in self.away and isinstance(task, self.kinds) and self.calls > self.after


@pytest.fixture
def held(hospitals: Scenario, family: Family) -> dict[str, Worker]:
    return dict(workers(hospitals, family))


@pytest.fixture(scope="module")
def whole(hospitals: Scenario, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Record:
    """What comes of the request when everybody is there."""
    family = Family.open(Path(shutil.copytree(trained, tmp_path_factory.mktemp("whole") / "family")))
    return unlearn(family, LEAVE, LAST, InProcess(workers(hospitals, family)))


def rows(record: Record) -> dict[str, dict[str, object]]:
    return {m["name"]: m for m in record.facts["models"]}


@pytest.mark.parametrize("kinds", [(object,), (Measure,), (Apply,)])
def test_a_place_that_is_offline_stops_a_request(
    kinds: tuple[type, ...], folder: Path, family: Family, held: dict[str, Worker]
) -> None:
    before, versions = snapshot(folder), set(held["west"].store.versions())
    with pytest.raises(
        SiteError, match=r"nothing was changed; 1 of \d places failed: east( \(parallel, eastern\))?: no answer within 3 s"
    ):
        unlearn(family, LEAVE, LAST, Offline(held, {"east"}, kinds))
    after = snapshot(folder)
    assert {p: d for p, d in after.items() if "/homes/" not in f"/{p}"} == {
        p: d for p, d in before.items() if "/homes/" not in f"/{p}"
    }
    assert Family.open(folder).heads == family.heads
    assert versions <= set(held["west"].store.versions())


def test_what_waits_is_said_and_finished_when_the_place_is_back(
    family: Family, folder: Path, held: dict[str, Worker], whole: Record
) -> None:
    old = dict(family.heads)
    record = unlearn(family, LEAVE, LAST, Offline(held, {"east"}), quorum=0)
    assert not record.accepted
    assert record.facts["absent"] == ["east"]
    assert record.cost["absent"] == {"east": "no answer within 3 s"}
    eastern = rows(record)["eastern"]
    assert eastern["status"] == "waiting"
    assert eastern["version_before"] is None
    assert {"model": "eastern", "text": "waits for east to be online"} in record.facts["objections"]
    assert Family.open(folder).heads["eastern"] == old["eastern"]
    assert rows(record)["shared"]["status"] == "committed"
    assert Family.open(folder).heads["shared"] == rows(record)["shared"]["version_after"] != old["shared"]
    again = Family.open(folder)
    assert set(waiting(again)) == {n for n, m in rows(record).items() if m["status"] == "waiting"}
    assert behind(again) == ("east",) or not held["east"].store.folder.is_dir()

    later = resume(again, InProcess(held))
    assert later.facts["request"] == record.facts["request"]
    assert set(rows(later)) == {n for n, m in rows(record).items() if m["status"] == "waiting"}
    assert rows(later)["eastern"]["version_after"] == rows(whole)["eastern"]["version_after"]
    finished = Family.open(folder)
    assert not waiting(finished)
    assert finished.heads["eastern"] == rows(whole)["eastern"]["version_after"]
    assert not behind(finished)
    with pytest.raises(InputError, match="there is nothing to resume"):
        resume(finished, InProcess(held))


def test_what_waits_may_also_be_tried_again(family: Family, folder: Path, held: dict[str, Worker], whole: Record) -> None:
    """Asked for once more instead of resumed: those that are left, by the evidence of the models as they were before."""
    record = unlearn(family, LEAVE, LAST, Offline(held, {"east"}), quorum=0)
    left = {n for n, m in rows(record).items() if m["status"] != "committed"}
    again = unlearn(Family.open(folder), LEAVE, LAST, InProcess(held))
    assert set(rows(again)) == left
    assert rows(again)["eastern"]["version_after"] == rows(whole)["eastern"]["version_after"]
    assert not waiting(Family.open(folder))
    assert waiting_plan(Family.open(folder)) is None


def test_a_global_model_waits_for_those_who_weigh_it(
    family: Family, folder: Path, held: dict[str, Worker], whole: Record
) -> None:
    """`merged` has no data at its server: while all who trained it are away, nothing says that their rows are excluded."""
    record = unlearn(family, LEAVE, LAST, Offline(held, {"east", "west"}), quorum=0)
    assert rows(record)["merged"]["status"] == "waiting"
    assert {"model": "merged", "text": "waits for east, west to be online"} in record.facts["objections"]
    later = resume(Family.open(folder), InProcess(held))
    assert rows(later)["merged"]["version_after"] == rows(whole)["merged"]["version_after"]


def test_a_waiting_heir_that_is_still_away_goes_on_waiting(family: Family, folder: Path, held: dict[str, Worker]) -> None:
    unlearn(family, LEAVE, LAST, Offline(held, {"east", "west"}), quorum=0)
    first = Family.open(folder)
    assert {"eastern", "triage"} <= set(waiting(first))
    second = resume(first, Offline(held, {"west"}), quorum=0)
    assert rows(second)["triage"]["status"] == "waiting"
    assert set(waiting(Family.open(folder))) == {n for n, m in rows(second).items() if m["status"] == "waiting"}
    third = resume(Family.open(folder), InProcess(held))
    assert set(rows(third)) == {n for n, m in rows(second).items() if m["status"] == "waiting"}
    assert not waiting(Family.open(folder))


def test_evidence_goes_on_without_one_of_its_sites_and_says_so(family: Family, held: dict[str, Worker]) -> None:
    record = unlearn(family, LEAVE, LAST, Offline(held, {"north"}), quorum=0.5)
    shared = rows(record)["shared"]
    assert shared["unmeasured"] == ["shared @ north/main"]
    assert shared["status"] in ("committed", "pending")


def test_without_any_evidence_nothing_is_changed(family: Family, folder: Path, held: dict[str, Worker]) -> None:
    lines = len(family.ledger.lines)
    with pytest.raises(
        SiteError, match="no heir can be edited: shared, parallel, eastern, triage, merged waits for north, south"
    ):
        unlearn(family, LEAVE, LAST, Offline(held, {"north", "south"}), quorum=0)
    assert len(Family.open(folder).ledger.lines) == lines


def test_fewer_than_the_quorum_are_too_few(family: Family, folder: Path, held: dict[str, Worker]) -> None:
    says = r"nothing was changed; 3 of 5 places are there, quorum 0.8 \(east did not answer before\); 1 of 3 places"
    with pytest.raises(SiteError, match=says):
        unlearn(family, LEAVE, LAST, Offline(held, {"east", "north"}), quorum=0.8)
    assert unlearn(family, LEAVE, LAST, Offline(held, {"east", "north"}), quorum=0.6).facts["absent"] == ["east", "north"]
    for wrong in (-0.1, 1.1):
        with pytest.raises(InputError, match="expected a share of the places, from 0"):
            Roll(("a",), wrong)


def test_only_silence_is_gone_past(family: Family, folder: Path, held: dict[str, Worker]) -> None:
    class Broken(InProcess):
        def carry(self, tasks: Sequence[Task]) -> list[Answer]:
            return [Failure(t.place, "disk is gone") if t.place == "east" else super(Broken, self).carry([t])[0] for t in tasks]

    with pytest.raises(SiteError, match="east: disk is gone"):
        unlearn(family, LEAVE, LAST, Broken(held), quorum=0)
    assert Family.open(folder).heads == family.heads


def test_who_is_missed_once_is_not_asked_again(family: Family, held: dict[str, Worker]) -> None:
    backend = Offline(held, {"east"})
    unlearn(family, LEAVE, LAST, backend, quorum=0)
    rounds = backend.asked[: len(backend.asked) - len(family.places)]  # settling asks all, once
    assert len([p for p in rounds if p == "east"]) == len(
        [h for h in ("eastern", "parallel") if family.lineage[h].home == "east"]
    )


def test_a_commit_that_a_place_missed_is_shown_and_sent_again(family: Family, folder: Path, held: dict[str, Worker]) -> None:
    record = unlearn(family, LEAVE, LAST, Offline(held, {"west"}, (Commit,)), quorum=0.9)
    assert record.facts["absent"] == []
    assert behind(Family.open(folder)) == ("west",)
    settle(Family.open(folder), InProcess(held))
    assert behind(Family.open(folder)) == ()
    with pytest.raises(SiteError, match=r"committed \(ledger line \d+\), but not yet everywhere; run `fedunlearn settle`"):
        rollback(Family.open(folder), Offline(held, {"west"}, (Commit,)), lift_exclusion=True)
    assert behind(Family.open(folder)) == ("west",)


def test_places_elsewhere_are_behind_until_they_acknowledge(family: Family, folder: Path, held: dict[str, Worker]) -> None:
    shutil.move(folder / "homes" / "west", folder.parent / "west")  # its disk is another's: only what it said is known here
    assert behind(family) == ()
    family.ledger.append("trained", {"heads": {}})  # says nothing to places
    assert behind(Family.open(folder)) == ()
    family.ledger.append("trained", {"heads": {"shared": family.heads["shared"]}})
    assert "west" in behind(Family.open(folder))
    family.note_acknowledged({"west": family.ledger.lines[-1].hash})
    assert "west" not in behind(Family.open(folder))


def test_what_was_born_of_a_waiting_model_is_finished_with_it(
    family: Family, folder: Path, held: dict[str, Worker], hospitals: Scenario
) -> None:
    unlearn(family, LEAVE, LAST, Offline(held, {"east"}), quorum=0)
    more = {"models": {"late": {"born": "incremental", "from": ["eastern"], "site": "west"}}}
    grown = extend(Family.open(folder), more, "more.yaml")
    plan = waiting_plan(grown)
    assert plan is not None
    assert "late" in {h.name for h in plan.heirs}
    assert "shared" not in {h.name for h in plan.heirs}
    record = resume(grown, InProcess(workers(hospitals, grown)))
    assert rows(record)["late"]["status"] in ("committed", "pending")


def test_a_rollback_takes_what_waits_back_too(family: Family, folder: Path, held: dict[str, Worker]) -> None:
    old = dict(family.heads)
    unlearn(family, LEAVE, LAST, Offline(held, {"east"}), quorum=0)
    rollback(Family.open(folder), InProcess(held), lift_exclusion=True)
    assert Family.open(folder).heads == old
    assert not waiting(Family.open(folder))


@pytest.mark.parametrize("seed", range(8))
def test_whoever_is_away_whenever_no_family_is_half_committed(
    seed: int, family: Family, folder: Path, held: dict[str, Worker]
) -> None:
    rng, old = random.Random(seed), dict(family.heads)
    away = rng.sample(sorted(held), rng.randint(1, 3))
    request = rng.choice([LEAVE, Request(classes=("1", "2"))])
    try:
        record = unlearn(family, request, LAST, Offline(held, away, after=rng.randint(0, 3)), quorum=0)
    except SiteError:
        assert Family.open(folder).heads == old
        return
    after = Family.open(folder)
    for name, row in rows(record).items():
        assert (after.heads[name] != old[name]) == (row["status"] == "committed" and row["version_after"] != old[name])
        assert (name in waiting(after)) == (row["status"] == "waiting")
        assert after.lineage[name].home in away or row["status"] != "waiting" or row["unmeasured"]
    if waiting(after):
        resume(after, InProcess(held))
    settle(Family.open(folder), InProcess(held))
    assert not waiting(Family.open(folder))
    assert behind(Family.open(folder)) == ()
