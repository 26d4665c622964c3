"""Several requests in one pass do what one combined request does; each of them is a case that the one line carries out."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.data import MIRROR
from fedunlearn.data.exclusions import Exclusions
from fedunlearn.errors import InputError
from fedunlearn.evaluation import Gate
from fedunlearn.lineage import Model, Request
from fedunlearn.methods import FIUn
from fedunlearn.report import document, page
from fedunlearn.runtime import (
    Backend,
    Family,
    InProcess,
    Worker,
    cases,
    fsck,
    resume,
    rollback,
    seal,
    unlearn,
    waiting,
    waiting_plan,
)
from fedunlearn.runtime.books.cases import changed_by
from fedunlearn.runtime.books.tried import outstanding
from fedunlearn.scenario import Scenario, line_of, workers
from tests.conftest import snapshot
from tests.report.conftest import CLASSES, data, invented
from tests.runtime.grids import over_grid
from tests.runtime.test_equality import outcome
from tests.runtime.test_offline import Offline

LEAVING = tuple(
    Request((c,), id=f"leave-{c}", received=f"2026-11-0{n}", due=f"2026-12-0{4 - n}") for n, c in enumerate("137", 1)
)
ALL = Request(merges=LEAVING)
LAST = FIUn(layers="last")
ANYTHING = "whatever is left, for the test"
FREE = Gate(forgotten_at_most=1, retained_drop_at_most=1)


@pytest.fixture
def held(hospitals: Scenario, family: Family) -> dict[str, Worker]:
    return dict(workers(hospitals, family))


def states(folder: Path, today: date = date(2026, 11, 30)) -> dict[str, str]:
    return {x.request.id: x.state for x in cases(Family.open(folder), today=today)}


def plainly(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts without what the request is called."""
    plan = {k: v for k, v in facts["plan"].items() if k not in ("request", "cases")}
    return {**{k: v for k, v in facts.items() if k != "request"}, "plan": plan}


def test_a_merged_pass_is_one_combined_request_here_and_over_the_grid(
    hospitals: Scenario, trained: Path, tmp_path: Path
) -> None:
    combined = Request(classes=ALL.classes, id=ALL.id)

    def here(family: Family) -> Backend:
        return InProcess(workers(hospitals, family))

    ways: tuple[tuple[Request, Callable[[Family], Backend]], ...] = (
        (combined, here), (ALL, here), (ALL, lambda family: over_grid(hospitals, family)),
    )  # fmt: skip
    one, merged, grid = (
        outcome(Path(shutil.copytree(trained, tmp_path / str(i))), request, FIUn(), way)
        for i, (request, way) in enumerate(ways)
    )
    assert any(m["version_after"] != m["version_before"] for m in merged["facts"]["models"])
    assert plainly(merged["facts"]) == plainly(one["facts"])
    assert merged["homes"] == one["homes"]
    assert (grid["facts"], grid["homes"]) == (merged["facts"], merged["homes"])
    assert merged["facts"]["request"]["merges"] == [r.to_json() for r in LEAVING]


def test_one_line_carries_out_every_case_and_one_rollback_or_seal_is_of_all(
    family: Family, folder: Path, held: dict[str, Worker]
) -> None:
    before = dict(family.heads)
    record = unlearn(family, ALL, "fiun", InProcess(held), FREE)
    assert record.accepted
    (line,) = (x for x in Family.open(folder).ledger.lines if x.kind == "unlearned")
    found = cases(Family.open(folder), [replace(r, due=None) for r in LEAVING])
    assert [(x.request, x.state, x.lines) for x in found] == [(r, "applied", (line.number,)) for r in LEAVING]
    excluded = Exclusions.read(folder / "homes" / "north" / MIRROR).by_request
    assert [s.classes for s in excluded.values()] == [ALL.classes]
    for name in (*(r.id for r in LEAVING), line.body["request"], None):
        assert line_of(Family.open(folder), name) == line

    rollback(Family.open(folder), InProcess(held), lift_exclusion=True)
    assert Family.open(folder).heads == before
    assert states(folder) == {r.id: "rolled back" for r in LEAVING}

    first, others = LEAVING[0], Request(merges=LEAVING[1:])
    unlearn(Family.open(folder), first, "fiun", InProcess(held), FREE)
    assert states(folder) == {"leave-1": "applied", "leave-3": "rolled back", "leave-7": "rolled back"}
    unlearn(Family.open(folder), others, "fiun", InProcess(held), FREE)
    told = seal(Family.open(folder), InProcess(held), "leave-7")
    assert told.body["requests"] == ["leave-1", "leave-3", "leave-7"]
    assert set(states(folder).values()) == {"sealed"}
    assert not fsck(folder).damage
    with pytest.raises(InputError, match="unknown request in force 'leave-2'; did you mean 'leave-"):
        seal(Family.open(folder), InProcess(held), "leave-2")


def test_a_case_is_held_back_by_its_own_heirs_only(tmp_path: Path) -> None:
    models = [
        Model("one", "north", "incremental", CLASSES, (), data("a")),
        Model("other", "south", "incremental", CLASSES, (), data("b", site="south")),
        Model("both", "east", "incremental", CLASSES, ("one", "other")),
    ]
    a, b = (Request((name,), id=name, due="2026-12-01") for name in "ab")
    held_back = {"one": {"status": "pending"}}
    family, line = invented(tmp_path, models, Request(merges=(a, b)), lambda r: held_back.get(r["name"], {}))
    late = date(2026, 12, 2)
    assert [(x.request.id, x.state, x.left, x.overdue) for x in cases(family, today=late)] == [
        ("a", "pending", ("one",), True),
        ("b", "applied", (), False),
    ]
    family.ledger.append("sealed", {"seals": [line.number], "requests": [], "left": [], "erases": []})
    assert [(x.state, x.left) for x in cases(family)] == [("sealed", ("one",)), ("sealed", ())]
    held_back |= {"both": {"status": "pending"}}
    family, line = invented(tmp_path / "again", models, Request(merges=(a, b)), lambda r: held_back.get(r["name"], {}))
    assert [(x.request.id, x.state, x.left) for x in cases(family)] == [
        ("a", "refused", ("both", "one")),
        ("b", "pending", ("both",)),
    ]
    family.ledger.append("sealed", {"seals": [line.number], "requests": [], "left": [], "erases": []})
    assert [x.state for x in cases(family)] == ["refused", "sealed"]  # nothing that holds a was changed
    assert changed_by(line) == ("b",)

    told = document(family, line, {})["request"]["cases"]
    assert [(x["id"], x["due"], x["roots"], x["heirs"]) for x in told] == [
        ("a", "2026-12-01", ["one"], ["one", "both"]),
        ("b", "2026-12-01", ["other"], ["other", "both"]),
    ]
    text = page(document(family, line, {}))
    assert all(f"Merged in it: {x}" in text for x in "ab")


def test_what_waits_for_a_place_is_finished_for_every_case(
    hospitals: Scenario, trained: Path, family: Family, folder: Path, held: dict[str, Worker], tmp_path: Path
) -> None:
    whole = Family.open(Path(shutil.copytree(trained, tmp_path / "whole")))
    unlearn(whole, ALL, LAST, InProcess(workers(hospitals, whole)), accept_untested=ANYTHING)
    unlearn(family, ALL, LAST, Offline(held, {"east"}), quorum=0, accept_untested=ANYTHING)
    assert {x.state for x in cases(Family.open(folder))} == {"pending"}
    assert all("eastern" in x.left for x in cases(Family.open(folder)))
    says = r"leave-3 \(class 3\): waits for a place .*; resume it first \(fedunlearn unlearn --resume\), or leave it out"
    with pytest.raises(InputError, match=says):
        unlearn(Family.open(folder), Request(merges=(Request(("5",)), LEAVING[1])), LAST, InProcess(held))
    record = resume(Family.open(folder), InProcess(held))
    assert Request.from_json(record.facts["request"]) == ALL
    done = Family.open(folder)
    assert done.heads["eastern"] == whole.heads["eastern"]
    left = {x.request: x.left for x in cases(Family.open(whole.folder))}
    assert {x.request: x.left for x in cases(done)} == left
    assert list(left) == list(LEAVING)


def test_what_waits_for_several_cases_waits_until_each_is_done(
    hospitals: Scenario, family: Family, folder: Path, held: dict[str, Worker]
) -> None:
    two, anyhow = Request(merges=LEAVING[:2]), {"gate": FREE, "accept_untested": ANYTHING}
    unlearn(family, two, LAST, Offline(held, {"east"}), quorum=0, **anyhow)
    assert "eastern" in waiting(Family.open(folder))
    plan = waiting_plan(Family.open(folder))
    assert plan is not None
    assert plan.request == two
    unlearn(Family.open(folder), LEAVING[0], LAST, InProcess(held), **anyhow)
    assert waiting(Family.open(folder))["eastern"].number == 1  # for the other case
    plan = waiting_plan(Family.open(folder))
    assert plan is not None
    assert plan.request == LEAVING[1]  # the first is done, and not done again
    assert {h.name for h in plan.heirs} == set(waiting(Family.open(folder)))
    resume(Family.open(folder), InProcess(held))
    assert not waiting(Family.open(folder))
    assert waiting_plan(Family.open(folder)) is None
    assert not any("eastern" in x.left for x in cases(Family.open(folder)))
    seal(Family.open(folder), InProcess(held))


def test_what_waits_for_one_request_is_not_forgotten_when_it_waits_for_another(
    family: Family, folder: Path, held: dict[str, Worker]
) -> None:
    away, anyhow = Offline(held, {"east"}), {"gate": FREE, "accept_untested": ANYTHING}
    for one in LEAVING[:2]:
        unlearn(Family.open(folder), one, LAST, away, quorum=0, **anyhow)
    assert [(line.number, "eastern" in models) for line, models in outstanding(Family.open(folder))] == [(1, True), (2, True)]
    for left in (1, 0):
        resume(Family.open(folder), InProcess(held))
        assert len(outstanding(Family.open(folder))) == left
    assert not any("eastern" in x.left for x in cases(Family.open(folder)))


def test_wrong_names_and_what_cannot_be_merged_are_refused_and_nothing_is_changed(
    family: Family, folder: Path, held: dict[str, Worker]
) -> None:
    unlearn(family, LEAVING[0], "fiun", InProcess(held), FREE)
    before = snapshot(folder)
    nobody = Request(("0",), sites=("west",), id="nobody")
    at_west = Request(("1",), sites=("west",), id="at-west")
    for merged, says in (
        (ALL, r"request leave-1 \(class 1\): is applied already \(ledger line 1\); leave it out"),
        (Request(merges=(at_west, nobody)), r"nobody \(class 0 of west\): no kept model was trained on it; .* leave it out"),
        (Request(merges=(LEAVING[1], Request(("11",), id="x"))), "unknown class '11'; did you mean '1'"),
        (
            Request(("2",), id="leave-1"),
            r"line 1 is of another request of that name \(class 1\); give this one a name of its own",
        ),
    ):
        with pytest.raises(InputError, match=says):
            unlearn(Family.open(folder), merged, "fiun", InProcess(held), FREE)
    assert snapshot(folder) == before
