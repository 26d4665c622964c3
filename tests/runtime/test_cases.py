"""A request is one case, however often it is tried, and what is done is not done again."""

import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from fedunlearn.errors import InputError, StoreError
from fedunlearn.evaluation import Gate
from fedunlearn.lineage import Request, discover
from fedunlearn.methods import FIUn, make
from fedunlearn.report import document, page
from fedunlearn.runtime import Family, InProcess, cases, fsck, pending, rollback, seal, unlearn
from fedunlearn.runtime.books.cases import Standing
from fedunlearn.runtime.books.family import LINEAGE
from fedunlearn.runtime.settle import exclusions
from fedunlearn.scenario import Scenario, extend, line_of, of_family, reference, workers
from tests.conftest import snapshot
from tests.runtime.test_merged import FREE

IDLE = make("steer", {"factor": 0})  # changes nothing, and is refused
RUIN = FIUn(alpha=0, lam=0)  # ruins every model, and is held back
ASKED = Request(("3",), id="leave-3", received="2026-11-01", due="2026-12-01")


def the_one(folder: Path, today: date = date(2026, 11, 30)) -> Standing:
    (found,) = cases(Family.open(folder), today=today)
    return found


def test_a_second_try_is_the_same_case_with_its_name_and_dates(family: Family, folder: Path, backend: InProcess) -> None:
    unlearn(family, ASKED, IDLE, backend)
    assert the_one(folder).state == "refused"
    unlearn(Family.open(folder), Request(("3",)), IDLE, backend)
    assert the_one(folder).request == ASKED
    assert len(the_one(folder).lines) == 2
    assert the_one(folder, date(2026, 12, 2)).overdue
    unlearn(Family.open(folder), Request(("3",), id="again", received="2026-11-20", due="2027-01-15"), IDLE, backend)
    assert the_one(folder, date(2026, 12, 2)).request == ASKED  # whoever asked first is still due then
    assert the_one(folder, date(2026, 12, 2)).overdue
    later = replace(ASKED, due="2027-02-01")
    with pytest.raises(InputError, match=r"request leave-3 .*: due 2027-02-01, and by ledger line 1 it is due .*--reason"):
        unlearn(Family.open(folder), later, "fiun", backend, FREE)
    assert (the_one(folder).first_due, the_one(folder).done) == (None, None)
    unlearn(Family.open(folder), later, "fiun", backend, FREE, reason="a difficult case")
    found = the_one(folder, date(2027, 3, 2))
    assert (found.request.id, found.request.received, found.request.due) == ("leave-3", "2026-11-01", "2027-01-15")
    assert (found.state, found.overdue) == ("applied", False)
    assert (found.first_due, found.late) == (ASKED.due, False)
    with pytest.raises(InputError, match=r"request again \(class 5\): ledger line 3 is of another request of that name"):
        unlearn(Family.open(folder), Request(("5",), id="again"), "fiun", backend, FREE)


def test_what_is_applied_is_not_edited_again_until_it_is_rolled_back(family: Family, folder: Path, backend: InProcess) -> None:
    unlearn(family, ASKED, "fiun", backend, FREE)
    before = snapshot(folder)
    with pytest.raises(InputError, match=r"is applied already \(ledger line 1\); no model .*; to do it again, .* rollback"):
        unlearn(Family.open(folder), Request(("3",), id="other"), "logit_mask", backend, FREE)
    assert snapshot(folder) == before
    rollback(Family.open(folder), backend, lift_exclusion=True)
    assert unlearn(Family.open(folder), ASKED, "fiun", backend, FREE).accepted
    seal(Family.open(folder), backend)
    with pytest.raises(InputError, match=r"is sealed already \(ledger line 3\); no model that holds it has come since$"):
        unlearn(Family.open(folder), ASKED, "fiun", backend, FREE)


def test_that_nobody_held_it_is_an_answer_and_in_the_ledger(family: Family, folder: Path, backend: InProcess) -> None:
    nobody = Request(("0",), sites=("west",), id="nobody", due="2026-11-01")
    heads = dict(family.heads)
    record = unlearn(family, nobody, "fiun", backend)
    assert record.nothing
    assert Family.open(folder).heads == heads
    assert (the_one(folder).state, the_one(folder).overdue, the_one(folder).lines) == ("held by no model", False, (1,))
    now = Family.open(folder)
    assert "nobody" in page(document(now, line_of(now, "nobody"), {}))
    assert not fsck(folder).damage
    assert exclusions(now)["west"]["nobody"].classes == ("0",)  # nor may a model learn it afterwards
    rollback(now, backend, lift_exclusion=True)
    assert exclusions(Family.open(folder)) == {}
    assert unlearn(Family.open(folder), nobody, "fiun", backend).nothing
    assert the_one(folder).lines == (1, 3)


def test_a_name_is_of_one_request_whether_it_was_merged_or_not(family: Family, folder: Path, backend: InProcess) -> None:
    """Exclusions go by the name of what was carried out: another request of that name would take their place."""
    one, two, other = (Request((c,), id=f"leave-{c}") for c in "125")
    unlearn(family, Request(merges=(one, two), id="case"), "logit_mask", backend, FREE)
    with pytest.raises(InputError, match=r"request case \(class 5\): ledger line 1 carried out several under that name"):
        unlearn(Family.open(folder), Request(("5",), id="case"), "logit_mask", backend, FREE)
    with pytest.raises(InputError, match=r"request leave-1 \(class 5, 6\): ledger line 1 is of one request of that name"):
        unlearn(Family.open(folder), Request(merges=(other, Request(("6",))), id="leave-1"), "logit_mask", backend, FREE)


def test_a_candidate_goes_with_the_line_that_made_it(family: Family, folder: Path, backend: InProcess) -> None:
    unlearn(family, ASKED, FIUn(layers="last"), backend, Gate(0.5, 0.0), accept_untested="for the test")
    line = Family.open(folder).ledger.lines[-1].body
    assert pending(Family.open(folder)) == line["pending"] != {}
    rollback(Family.open(folder), backend, lift_exclusion=True)
    assert pending(Family.open(folder)) == {}


def test_a_later_try_does_not_take_back_what_an_earlier_one_did(family: Family, folder: Path, backend: InProcess) -> None:
    """What one method has committed is not left because another leaves it alone."""
    unlearn(family, ASKED, "logit_mask", backend, Gate(retained_drop_at_most=0), accept_untested="for the test")
    (first,) = cases(Family.open(folder))
    heads = Family.open(folder).heads
    assert set(first.left) < heads.keys()
    record = unlearn(Family.open(folder), ASKED, RUIN, backend)
    assert {m["name"] for m in record.facts["models"]} == set(first.left)
    (again,) = cases(Family.open(folder))
    assert (again.left, again.state) == (first.left, first.state)
    assert Family.open(folder).heads == heads


def test_the_report_of_a_later_try_knows_what_an_earlier_one_did(family: Family, folder: Path, backend: InProcess) -> None:
    unlearn(family, ASKED, "logit_mask", backend, Gate(retained_drop_at_most=0), accept_untested="for the test")
    done = set(Family.open(folder).ledger.lines[-1].body["heads"])
    assert done
    unlearn(Family.open(folder), ASKED, RUIN, backend)
    now = Family.open(folder)
    told = document(now, line_of(now, ASKED.id), {})
    for model in (m for m in told["models"] if m["name"] in done):
        assert (model["status"], model["earlier"]) == ("committed", 1)
        assert model["risk"] != "open"
        assert model["findings"][0] == "Edited by ledger line 1 for this request, and that is in force."
        assert "line 1" in model["why"]
    assert any(s.startswith("An earlier line for the same request") for s in told["verdict"]["sentences"])


def test_the_line_that_is_said_to_have_done_it_is_in_force(family: Family, folder: Path, backend: InProcess) -> None:
    unlearn(family, ASKED, "fiun", backend, FREE)
    extend(
        Family.open(folder), {"models": {"local": {"born": "incremental", "from": ["shared"], "site": "north"}}}, "more.yaml"
    )
    held = InProcess(workers(of_family(Family.open(folder)), Family.open(folder)))
    unlearn(Family.open(folder), Request(("4",), id="four"), "fiun", held, FREE)
    rollback(Family.open(folder), held, lift_exclusion=True)
    with pytest.raises(InputError, match=r"is applied already \(ledger line 1\)"):
        unlearn(Family.open(folder), ASKED, "fiun", held, FREE)


def test_what_is_rolled_back_is_held_again(family: Family, folder: Path, backend: InProcess) -> None:
    unlearn(family, ASKED, "fiun", backend, FREE)
    held = {h.name for h in discover(family.lineage, ASKED).heirs}
    assert the_one(folder).left == ()
    rollback(Family.open(folder), backend, lift_exclusion=False)
    assert (the_one(folder).state, set(the_one(folder).left)) == ("rolled back", held)


def test_what_has_been_excluded_since_is_in_no_reference_of_an_earlier_line(
    hospitals: Scenario, family: Family, backend: InProcess
) -> None:
    unlearn(family, ASKED, IDLE, backend)
    unlearn(Family.open(family.folder), Request(("5",)), "logit_mask", backend, FREE)
    now = Family.open(family.folder)
    twin = reference(now, hospitals, ASKED, before=1)
    assert not any({"3", "5"} & set(s.rows) for m in twin.lineage.models for s in m.data)


def test_a_lineage_that_the_ledger_does_not_know_is_not_obeyed(family: Family) -> None:
    path = family.folder / LINEAGE
    path.write_text(path.read_text().replace('"parents": [\n    "shared"\n   ]', '"parents": []', 1))
    with pytest.raises(StoreError, match="is not what the ledger recorded"):
        Family.open(family.folder)


def test_a_case_is_sealed_when_none_of_its_lines_can_be_rolled_back(family: Family, folder: Path, backend: InProcess) -> None:
    """What a second try did to those that the first had left is a version of its own, and a rollback window of its own."""
    nothing_lost = Gate(forgotten_at_most=0.5, retained_drop_at_most=0.0)
    unlearn(family, ASKED, "logit_mask", backend, nothing_lost, accept_untested="for the test")
    first = the_one(folder)
    assert "triage" in first.left
    seal(Family.open(folder), backend)
    assert the_one(folder).state == "sealed"
    unlearn(Family.open(folder), ASKED, "fiun", backend, FREE)
    assert the_one(folder).lines == (1, 3)
    assert the_one(folder).state == "applied"
    rollback(Family.open(folder), backend, lift_exclusion=True)
    assert (the_one(folder).state, the_one(folder).left) == ("sealed", first.left)


def test_a_case_can_be_sealed_by_every_name_that_it_has_had(family: Family, folder: Path, backend: InProcess) -> None:
    unlearn(family, ASKED, "fiun", backend, FREE)
    rollback(Family.open(folder), backend, lift_exclusion=True)
    unlearn(Family.open(folder), Request(("3",), id="again"), "fiun", backend, FREE)
    assert the_one(folder).request.id == ASKED.id
    with pytest.raises(InputError, match=r"unknown request in force 'leave-4'; did you mean 'leave-3'\? known: again, leave-3"):
        seal(Family.open(folder), backend, "leave-4")
    assert seal(Family.open(folder), backend, ASKED.id).body["requests"] == ["again"]
    assert the_one(folder).state == "sealed"


def test_a_seal_says_what_it_erases_once_and_what_is_left_of_each_request(trained: Path, tmp_path: Path) -> None:
    """A model that the first request could not edit holds it still, whatever a later request did to that model."""
    family = Family.open(Path(shutil.copytree(trained, tmp_path / "family")))
    models = {"triage-2": {"born": "transfer", "from": ["shared"], "site": "west", "head": ["1", "2", "3"], "epochs": 1}}
    family = extend(family, {"models": models}, "more.yaml")
    plain = of_family(family)
    erased: list[str] = []
    for number, forget in enumerate(("0", "1")):
        backend = InProcess(workers(plain, family))
        request = Request(classes=(forget,), id=f"leave-{forget}")
        record = unlearn(family, request, "logit_mask", backend, accept_untested="whatever is left, for the test")
        statuses = {m["name"]: m["status"] for m in record.facts["models"]}
        assert statuses["triage-2"] == ("committed" if number else "untouched")
    for request_id in ("leave-0", "leave-1"):
        left = seal(Family.open(family.folder), backend, request_id).body["left"]
        assert ("triage-2" in left) == (request_id == "leave-0")
    for line in (x for x in Family.open(family.folder).ledger.lines if x.kind == "sealed"):
        assert not set(line.body["erases"]) & set(erased)
        erased += line.body["erases"]
    assert erased


def test_a_case_is_sealed_by_its_own_seal_whatever_a_wider_one_does_later(
    family: Family, folder: Path, backend: InProcess
) -> None:
    unlearn(family, ASKED, "fiun", backend, FREE)
    wider = Request((*ASKED.classes, "5"), id="wider")
    unlearn(Family.open(folder), wider, "fiun", backend, FREE)
    seal(Family.open(folder), backend, ASKED.id)
    states = {case.request.id: case.state for case in cases(Family.open(folder))}
    assert states == {ASKED.id: "sealed", "wider": "applied"}
    rollback(Family.open(folder), backend, lift_exclusion=True)
    assert {case.request.id: case.state for case in cases(Family.open(folder))}[ASKED.id] == "sealed"
