"""A request of which a wider one has done all, or some: that is not done twice, and the ledger answers both."""

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.errors import InputError
from fedunlearn.evaluation import Gate
from fedunlearn.lineage import Request, discover
from fedunlearn.methods import FIUn, make
from fedunlearn.report import document, page
from fedunlearn.runtime import Family, InProcess, cases, fsck, resume, rollback, seal, unlearn, waiting
from fedunlearn.runtime.books.cases import Standing
from fedunlearn.runtime.settle import exclusions
from fedunlearn.scenario import Scenario, line_of, workers
from tests.conftest import LEAVE, NORTH
from tests.runtime.test_merged import FREE
from tests.runtime.test_offline import Offline

PART = Request(NORTH.classes, sites=NORTH.sites, id="part", received="2026-10-01", due="2026-10-31")
FOR_TEST = {"gate": FREE, "accept_untested": "for the test"}


def standing(folder: Path, request: Request, named: tuple[Request, ...] = ()) -> Standing:
    every = cases(Family.open(folder), named, today=date(2026, 11, 30))
    return next(case for case in every if case.request.what == request.what)


def reached(family: Family, request: Request) -> set[str]:
    return {h.name for h in discover(family.lineage, request).heirs}


def test_what_a_wider_request_did_is_answered_and_not_edited_again(family: Family, folder: Path, backend: InProcess) -> None:
    unlearn(family, LEAVE, "fiun", backend, **FOR_TEST)
    heads = Family.open(folder).heads
    done = standing(folder, PART, (PART,))
    assert (done.state, done.lines, done.within, done.left, done.overdue) == ("applied", (), (1,), (), False)
    assert standing(folder, PART, (PART, replace(PART, id="twice"))).also == ("twice",)
    record = unlearn(Family.open(folder), PART, "fiun", backend, **FOR_TEST)
    assert record.nothing
    assert record.facts["within"] == [1]
    now = Family.open(folder)
    assert now.heads == heads
    assert (standing(folder, PART).state, standing(folder, PART).lines) == ("applied", (2,))
    assert exclusions(now)["north"]["part"].classes == ("0",)
    assert not fsck(folder).damage
    with pytest.raises(InputError, match=r"request part .*: is applied already \(ledger line 1\)"):
        unlearn(now, PART, "fiun", backend, **FOR_TEST)
    told = document(now, line_of(now, "part"), {})
    mine = {m["name"]: m for m in told["models"] if m["name"] in reached(now, PART)}
    assert {m["earlier"] for m in mine.values()} == {1}
    assert all(m["findings"][0] == "Edited by ledger line 1 for a wider request, and that is in force." for m in mine.values())
    assert "for a wider one" in page(told)


def test_what_it_did_is_held_again_when_it_is_rolled_back(family: Family, folder: Path, backend: InProcess) -> None:
    unlearn(family, LEAVE, "fiun", backend, **FOR_TEST)
    unlearn(Family.open(folder), PART, "fiun", backend, **FOR_TEST)
    for _ in range(2):
        rollback(Family.open(folder), backend, lift_exclusion=False)
    after = standing(folder, PART)
    assert set(after.left) == reached(family, PART)
    assert after.overdue
    record = unlearn(Family.open(folder), PART, "fiun", backend, **FOR_TEST)
    assert {m["name"] for m in record.facts["models"]} == reached(family, PART)
    assert standing(folder, PART).state == "applied"


def test_an_answer_without_a_line_of_its_own_goes_with_the_wider_one(family: Family, folder: Path, backend: InProcess) -> None:
    unlearn(family, LEAVE, "fiun", backend, **FOR_TEST)
    rollback(Family.open(folder), backend, lift_exclusion=True)
    before = standing(folder, PART, (PART,))
    assert (before.state, before.within, before.overdue) == ("planned", (), True)


def test_only_what_a_wider_request_left_is_edited(family: Family, folder: Path, backend: InProcess) -> None:
    strict = Gate(retained_drop_at_most=0)
    unlearn(family, LEAVE, "logit_mask", backend, strict, accept_untested="for the test")
    (wide,) = cases(Family.open(folder))
    left = set(wide.left) & reached(family, PART)
    assert left < reached(family, PART)
    assert set(standing(folder, PART, (PART,)).left) == left
    assert standing(folder, PART, (PART,)).state == "pending"
    record = unlearn(Family.open(folder), PART, "fiun", backend, **FOR_TEST)
    assert {m["name"] for m in record.facts["models"]} == left


def test_a_refused_wider_request_has_done_nothing(family: Family, folder: Path, backend: InProcess) -> None:
    unlearn(family, LEAVE, make("steer", {"factor": 0}), backend)
    assert standing(folder, PART, (PART,)).state == "planned"
    record = unlearn(Family.open(folder), PART, "fiun", backend, **FOR_TEST)
    assert {m["name"] for m in record.facts["models"]} == reached(family, PART)
    assert "within" not in record.facts


def test_what_was_judged_by_less_is_not_done(family: Family, folder: Path, backend: InProcess) -> None:
    """All that two sites gave is judged beside a retrained model: that class 0, which only they had, is gone is not seen."""
    both = Request(sites=("north", "south"))
    unlearn(family, both, FIUn(layers="last"), backend, **FOR_TEST)
    assert Family.open(folder).ledger.lines[-1].body["heads"]
    assert standing(folder, LEAVE, (LEAVE,)).state == "planned"
    record = unlearn(Family.open(folder), LEAVE, "fiun", backend, **FOR_TEST)
    assert {m["name"] for m in record.facts["models"]} == reached(family, LEAVE)


def test_a_wider_request_finishes_what_was_refused_or_waits(family: Family, folder: Path, hospitals: Scenario) -> None:
    held = dict(workers(hospitals, family))
    options: dict[str, Any] = {"quorum": 0, **FOR_TEST}
    unlearn(family, PART, "fiun", Offline(held, {"east"}), **options)
    waits = set(waiting(Family.open(folder)))
    assert waits
    unlearn(Family.open(folder), LEAVE, "fiun", InProcess(held), **FOR_TEST)
    assert not waiting(Family.open(folder))
    assert (standing(folder, PART).state, standing(folder, PART).left) == ("applied", ())
    with pytest.raises(InputError, match="no model waits"):
        resume(Family.open(folder), InProcess(held))
    seal(Family.open(folder), InProcess(held))
    assert standing(folder, PART).state == "sealed"
