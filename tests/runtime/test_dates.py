"""By when a case must be done: whose word counts, in which calendar, and what is late."""

import time
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from fedunlearn.errors import InputError
from fedunlearn.lineage import Request
from fedunlearn.report import document
from fedunlearn.runtime import Family, InProcess, cases, unlearn
from fedunlearn.scenario import Scenario, request_of
from fedunlearn.scenario.requests import named_in
from tests.runtime.test_cases import ASKED, IDLE, the_one
from tests.runtime.test_merged import FREE


def test_a_deadline_of_the_scenario_counts_whatever_name_it_was_asked_by(family: Family, backend: InProcess) -> None:
    named = Request(("3",), id="named", received="2026-10-01", due="2026-10-31")
    unlearn(family, Request(("3",), id="by-content", received="2026-11-01"), IDLE, backend)
    (found,) = cases(Family.open(family.folder), [named], today=date(2026, 11, 2))
    assert (found.request.id, found.request.received, found.request.due) == ("by-content", "2026-10-01", "2026-10-31")
    assert found.overdue
    assert set(found.names) == {"by-content", "named"}
    twice = [Request(("5",), id="once"), Request(("5",), id="twice")]
    assert [c.request.id for c in cases(Family.open(family.folder), twice)] == ["by-content", "once"]


def test_a_date_that_was_moved_stays_moved_when_a_name_is_asked_again(
    family: Family, folder: Path, backend: InProcess, hospitals: Scenario
) -> None:
    plain = hospitals.model_dump(mode="json", by_alias=True)
    plain["requests"]["leave"] |= {"due": "2020-02-05", "received": "2020-01-05"}
    scenario = hospitals.model_validate(plain)

    def again(due: str | None = None) -> Request:
        return request_of(scenario, named=["leave"], due=due, family=Family.open(folder))

    with pytest.raises(InputError, match="as it was noted it is due 2020-02-05"):
        unlearn(family, again("2099-01-01"), "fiun", backend, FREE, noted=named_in(scenario))
    unlearn(family, again("2099-01-01"), IDLE, backend, noted=named_in(scenario), reason="agreed")
    unlearn(Family.open(folder), again(), "fiun", backend, FREE, noted=named_in(scenario))
    (found,) = cases(Family.open(folder), named_in(scenario))
    assert (found.request.due, found.first_due, found.late) == ("2099-01-01", "2020-02-05", False)
    assert found.request.received == "2020-01-05"


def test_a_date_that_was_noted_is_moved_only_with_a_word(family: Family, folder: Path, backend: InProcess) -> None:
    noted, other = replace(ASKED, due="2026-11-15"), Request(("5",), id="leave-5", due="2026-11-20")
    with pytest.raises(InputError, match=r"leave-3 .*: due 2026-12-01, and as it was noted it is due 2026-11-15; .*--reason"):
        unlearn(family, ASKED, "fiun", backend, FREE, noted=[noted, other])
    unlearn(family, replace(other, due="2026-11-19"), "fiun", backend, FREE, noted=[noted, other])  # earlier: nobody minds
    unlearn(Family.open(folder), ASKED, IDLE, backend, noted=[noted, other], reason="a difficult case")
    unlearn(Family.open(folder), ASKED, "fiun", backend, FREE, noted=[noted, other])  # it was moved already
    found = {x.request.id: x for x in cases(Family.open(folder), [noted, other], today=date(2026, 12, 2))}
    assert [found[name].request.due for name in ("leave-3", "leave-5")] == ["2026-12-01", "2026-11-19"]
    assert [found[name].first_due for name in ("leave-3", "leave-5")] == ["2026-11-15", None]
    told = document(Family.open(folder), Family.open(folder).ledger.lines[-1], {})
    assert [(x["number"], x["reason"], x["from"]) for x in told["request"]["moved"]] == [(2, "a difficult case", "2026-11-15")]


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="this system cannot change its time zone while a program runs")
@pytest.mark.parametrize("zone", ["XXX+12", "XXX-14"], ids=["farthest west", "farthest east"])
def test_days_are_of_one_calendar_wherever_a_machine_is(
    zone: str, family: Family, folder: Path, backend: InProcess, hospitals: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        before = datetime.now(UTC).date().isoformat()
        unlearn(family, request_of(hospitals, classes="3", case="today", due=before), "fiun", backend, FREE)
        (found,) = cases(Family.open(folder))
        after = datetime.now(UTC).date().isoformat()
        assert {found.request.received, found.done} <= {before, after}
        assert (found.late, found.overdue) == (found.done != before, False)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_names_for_the_same_are_one_case_that_is_due_first(family: Family, backend: InProcess) -> None:
    one, other = (
        Request(("3",), id="one", received="2026-10-05", due="2027-01-01"),
        Request(("3",), id="other", due="2026-10-31"),
    )
    (planned,) = cases(family, [one, other], today=date(2026, 11, 2))
    assert (planned.request, planned.also) == (replace(one, due="2026-10-31"), ("other",))
    assert planned.overdue
    unlearn(family, one, IDLE, backend)
    (tried,) = cases(Family.open(family.folder), [one, other], today=date(2026, 11, 2))
    assert (tried.request, set(tried.names), tried.also) == (planned.request, {"one", "other"}, ())
    assert tried.overdue


def test_a_case_that_was_done_after_its_day_is_late(family: Family, folder: Path, backend: InProcess) -> None:
    unlearn(family, replace(ASKED, received="2020-01-01", due="2020-02-01"), IDLE, backend)
    assert (the_one(folder).overdue, the_one(folder).late, the_one(folder).done) == (True, False, None)
    unlearn(Family.open(folder), ASKED, "fiun", backend, FREE, reason="it took long")
    assert the_one(folder).first_due == "2020-02-01"
    unlearn(Family.open(folder), Request(("5",), id="five", received="2020-01-01", due="2020-02-01"), "fiun", backend, FREE)
    five = next(case for case in cases(Family.open(folder)) if case.request.id == "five")
    assert (five.overdue, five.late, five.done) == (False, True, Family.open(folder).ledger.lines[-1].time[:10])
