"""A request that is asked for again: who holds it still, by which evidence, and what is kept for that meanwhile."""

import shutil
from pathlib import Path

import pytest

from fedunlearn.errors import InputError
from fedunlearn.evaluation import Gate
from fedunlearn.lineage import Request
from fedunlearn.methods import FIUn, make
from fedunlearn.report import document
from fedunlearn.runtime import (
    Family,
    InProcess,
    Record,
    cases,
    collect,
    resume,
    rollback,
    seal,
    unlearn,
    waiting,
    waiting_plan,
)
from fedunlearn.scenario import Scenario, extend, of_family, workers
from tests.conftest import LEAVE
from tests.runtime.test_merged import FREE
from tests.runtime.test_offline import LAST, Offline

ASKED = Request(("3",), id="leave-3")
IDLE = make("steer", {"factor": 0})  # changes nothing, and is refused
RUIN = FIUn(alpha=0, lam=0)  # ruins every model, and is held back


def left(folder: Path, request: Request) -> tuple[str, ...]:
    return next(case.left for case in cases(Family.open(folder)) if case.request.what == request.what)


def versions(record: Record) -> dict[str, str]:
    return {m["name"]: m["version_after"] for m in record.facts["models"]}


def test_what_is_rolled_back_is_left_again_whatever_came_after(family: Family, folder: Path, backend: InProcess) -> None:
    """A refused try cannot be rolled back itself: it stays in force, about those that the first had left."""
    trained = dict(family.heads)
    unlearn(family, ASKED, "logit_mask", backend, Gate(retained_drop_at_most=0), accept_untested="for the test")
    assert left(folder, ASKED) == ("triage",)
    unlearn(Family.open(folder), ASKED, RUIN, backend)
    rollback(Family.open(folder), backend, lift_exclusion=True)
    assert Family.open(folder).heads == trained
    assert set(left(folder, ASKED)) == set(trained)
    record = unlearn(Family.open(folder), ASKED, "fiun", backend, FREE)
    assert versions(record).keys() == trained.keys()
    assert left(folder, ASKED) == ()


@pytest.mark.parametrize("swept", [False, True])
def test_evidence_is_of_no_version_that_has_been_rolled_back(
    swept: bool, trained: Path, hospitals: Scenario, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "family"))
    backend = InProcess(workers(hospitals, Family.open(folder)))
    unlearn(Family.open(folder), Request(("1",)), "fiun", backend, FREE)
    unlearn(Family.open(folder), ASKED, IDLE, backend)
    rollback(Family.open(folder), backend, lift_exclusion=True)
    if swept:
        collect(Family.open(folder), Family.open(folder).places)
    again = unlearn(Family.open(folder), ASKED, "fiun", backend, FREE)
    plain = Path(shutil.copytree(trained, tmp_path / "plain"))
    first = unlearn(Family.open(plain), ASKED, "fiun", InProcess(workers(hospitals, Family.open(plain))), FREE)
    assert versions(again) == versions(first)


def test_what_still_waits_after_a_second_try_is_finished_alike_and_alone(
    trained: Path, hospitals: Scenario, tmp_path: Path
) -> None:
    found = []
    for kind in ("resume", "unlearn"):
        folder = Path(shutil.copytree(trained, tmp_path / kind))
        held = dict(workers(hospitals, Family.open(folder)))
        unlearn(Family.open(folder), LEAVE, FIUn(), Offline(held, {"east", "west"}), FREE, quorum=0)
        if kind == "resume":
            resume(Family.open(folder), Offline(held, {"west"}), quorum=0)
        else:
            unlearn(Family.open(folder), LEAVE, FIUn(), Offline(held, {"west"}), FREE, quorum=0)
        plan = waiting_plan(Family.open(folder))
        assert plan is not None
        assert {h.name for h in plan.heirs} == waiting(Family.open(folder)).keys() == set(left(folder, LEAVE))
        found.append(versions(resume(Family.open(folder), InProcess(held))))
    assert found[0] == found[1]


def test_what_comes_between_tries_of_one_that_holds_it_is_left_too(family: Family, folder: Path, hospitals: Scenario) -> None:
    held = dict(workers(hospitals, family))
    unlearn(family, LEAVE, FIUn(alpha=1), Offline(held, {"east"}), Gate(1, 0.0), accept_untested="for the test", quorum=0)
    assert "shared" in left(folder, LEAVE)
    local = {"local": {"born": "incremental", "from": ["shared"], "site": "north"}}
    family = extend(Family.open(folder), {"models": local}, "more.yaml")
    held = dict(workers(of_family(family), family))
    assert "local" in left(folder, LEAVE)
    resume(Family.open(folder), InProcess(held))
    assert "local" in left(folder, LEAVE)
    record = unlearn(Family.open(folder), LEAVE, FIUn(), InProcess(held), FREE)
    assert "local" in versions(record)
    assert left(folder, LEAVE) == ()


def test_what_waiting_models_need_is_not_sealed_after_a_second_try(family: Family, folder: Path, hospitals: Scenario) -> None:
    held = dict(workers(hospitals, family))
    before = family.heads["shared"]
    unlearn(family, LEAVE, LAST, Offline(held, {"east"}), FREE, quorum=0)
    unlearn(Family.open(folder), LEAVE, RUIN, Offline(held, {"east"}), quorum=0)
    with pytest.raises(InputError, match="still wait for a place to be online, which needs the old versions"):
        seal(Family.open(folder), InProcess(held))
    assert before in Family.open(folder).store("server").versions()


@pytest.mark.parametrize("again", [False, True], ids=["tried once", "tried again, in vain"])
@pytest.mark.parametrize("sealed", [False, True])
def test_evidence_of_what_had_forgotten_is_told_once_its_past_is_sealed(
    sealed: bool, again: bool, family: Family, folder: Path, backend: InProcess
) -> None:
    unlearn(family, ASKED, "logit_mask", backend, Gate(retained_drop_at_most=0), accept_untested="for the test")
    if again:
        assert not unlearn(Family.open(folder), ASKED, RUIN, backend).accepted
        assert not Family.open(folder).ledger.lines[-1].body["heads"]
    if sealed:
        seal(Family.open(folder), backend)
    record = unlearn(Family.open(folder), ASKED, "fiun", backend, FREE)
    measured = {p.partition(" @ ")[0] for m in record.facts["models"] for p in m["points"]}
    assert measured
    assert record.facts.get("spent", []) == (sorted(measured) if sealed else [])
    said = [x["about"] for x in document(Family.open(folder), Family.open(folder).ledger.lines[-1], {})["limits"]]
    assert ("Measured after forgetting" in said) is sealed
