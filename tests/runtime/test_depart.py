"""A place that is gone for good: the family goes on without it, and says what it cannot know any more."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.errors import InputError, SiteError
from fedunlearn.lineage import Request
from fedunlearn.methods import FIUn, LogitMask
from fedunlearn.report import document
from fedunlearn.runtime import (
    Family,
    InProcess,
    behind,
    cases,
    collect,
    depart,
    fsck,
    needed,
    owed,
    resume,
    rollback,
    seal,
    sealable,
    unlearn,
    waiting,
)
from fedunlearn.scenario import Scenario, backend_of, extend, sites_away, train, train_afar, workers, workers_here
from fedunlearn.scenario.files import parse
from tests.conftest import LEAVE, snapshot
from tests.deployed.conftest import SCENARIO, site_files
from tests.runtime.test_offline import Offline, rows
from tests.scenario import elsewhere
from tests.scenario.small import changed

LAST = FIUn(layers="last")
ANYTHING = "whatever is left, for the test"
EAST = {"eastern", "parallel"}  # whose home it is
MORE = {"models": {"more": {"born": "incremental", "from": ["shared"], "site": "west"}}}

Backend = Callable[[Family], InProcess]


def without(family: Family, hospitals: Scenario, *places: str) -> Family:
    for place in places:
        family = depart(family, Offline(workers(hospitals, family), {place}), place, reason="it closed")
    return family


def test_nobody_asks_a_place_that_has_departed(family: Family, hospitals: Scenario) -> None:
    before = family.heads
    after = without(family, hospitals, "east")
    assert after.ledger.lines[-1].body["lost"] == {m: before[m] for m in EAST}
    assert after.heads == {m: v for m, v in before.items() if m not in EAST}
    assert "east" not in after.places
    assert not behind(after)
    carrier = Offline(workers(hospitals, after), {"east"})
    record = unlearn(after, LEAVE, LAST, carrier, accept_untested=ANYTHING)
    assert "east" not in carrier.asked
    assert set(rows(record)) == {"shared", "merged", "triage"}
    assert rows(record)["merged"]["status"] == "committed"
    assert record.facts["absent"] == []
    seal(after, carrier)
    assert "east" not in carrier.asked
    assert not owed(after)
    assert not any(before[m] in Family.open(after.folder).ledger.lines[-1].body["erases"] for m in EAST)


def test_its_store_is_an_orphan_that_gc_erases(family: Family, hospitals: Scenario) -> None:
    after, kept = without(family, hospitals, "east"), set(needed(family))
    found = fsck(after.folder)
    assert not found.damage
    assert found.orphans == {after.folder / "homes" / "east": "of a place that has departed"}
    assert set(needed(after)) == kept - {"east"}
    assert collect(after, after.places, dry=True)["homes/east"].bytes > 0
    assert (after.folder / "homes" / "east").exists()
    collect(after, after.places)
    found = fsck(after.folder)
    assert not found.damage
    assert not found.orphans


def test_what_waits_for_it_is_lost_and_said_to_hold_what_it_held(family: Family, hospitals: Scenario) -> None:
    offline = Offline(workers(hospitals, family), {"east"})
    unlearn(family, LEAVE, LAST, offline, quorum=0, accept_untested=ANYTHING)
    stuck = Family.open(family.folder)
    assert set(waiting(stuck)) >= EAST
    with pytest.raises(InputError, match="still wait for a place to be online"):
        sealable(stuck)
    after = without(stuck, hospitals, "east")
    if left := set(waiting(after)):
        assert left.isdisjoint(EAST)
        resume(after, InProcess(workers(hospitals, after)))
    after = Family.open(after.folder)
    case = cases(after)[0]
    assert set(case.lost) == EAST
    assert EAST.isdisjoint(case.left)
    line = seal(after, Offline(workers(hospitals, after), {"east"}))
    assert EAST.isdisjoint(line.body["left"])
    assert not owed(after)


def test_where_it_alone_had_evidence_only_a_method_that_needs_none_goes_on(family: Family, hospitals: Scenario) -> None:
    after = without(family, hospitals, "north", "south")
    before = snapshot(after.folder)
    with pytest.raises(InputError, match=r"no heir can be edited: .* nobody who is left has any; logit_mask needs none"):
        unlearn(after, LEAVE, LAST, InProcess(workers(hospitals, after)))
    for method, why in ((LAST, "nobody who is left has any"), (LogitMask(), "has no output to mask")):
        with pytest.raises(InputError, match=f"no heir can be edited: .*{why}") as error:  # no class: nothing to mask
            unlearn(after, Request(sites=("north",)), method, InProcess(workers(hospitals, after)))
        assert "logit_mask needs none" not in str(error.value)
    assert {n: b for n, b in snapshot(after.folder).items() if not n.endswith(".lock")} == {
        n: b for n, b in before.items() if not n.endswith(".lock")
    }
    record = unlearn(after, LEAVE, LogitMask(), InProcess(workers(hospitals, after)), accept_untested=ANYTHING)
    assert rows(record)["merged"]["status"] == "committed"
    assert rows(record)["merged"]["points"] == []


def test_a_request_may_name_it(family: Family, hospitals: Scenario) -> None:
    after = without(family, hospitals, "north")
    asked = Request(classes=("0",), sites=("north",))
    with pytest.raises(InputError, match="no heir can be edited"):
        unlearn(after, asked, LAST, InProcess(workers(hospitals, after)))
    mine = Request(classes=("1",), sites=("north", "south"))
    record = unlearn(after, mine, LAST, InProcess(workers(hospitals, after)), accept_untested=ANYTHING)
    assert {p.split(" @ ")[1] for p in rows(record)["shared"]["points"]} == {"south/main"}


def test_who_waits_for_evidence_that_is_gone_is_left_as_it_is(family: Family, hospitals: Scenario) -> None:
    offline = Offline(workers(hospitals, family), {"south"})
    asked = Request(classes=("5",), sites=("south", "west"))
    unlearn(family, asked, LAST, offline, quorum=0, accept_untested=ANYTHING)
    stuck = Family.open(family.folder)
    assert set(waiting(stuck)) == {"shared", "eastern", "triage"}  # to which it came from south alone
    after = without(stuck, hospitals, "south")
    record = resume(after, InProcess(workers(hospitals, after)))
    assert rows(record)["shared"]["status"] == "untouched"
    assert not waiting(Family.open(after.folder))
    assert sealable(Family.open(after.folder))


def test_a_rollback_leaves_out_what_is_lost(family: Family, hospitals: Scenario) -> None:
    before = family.heads
    unlearn(family, LEAVE, LAST, InProcess(workers(hospitals, family)), accept_untested=ANYTHING)
    after = without(Family.open(family.folder), hospitals, "east")
    line = rollback(after, Offline(workers(hospitals, after), {"east"}), lift_exclusion=True)
    assert EAST.isdisjoint(line.body["heads"])
    assert Family.open(family.folder).heads == {m: v for m, v in before.items() if m not in EAST}


def test_models_go_on_being_born_elsewhere(family: Family, hospitals: Scenario) -> None:
    after = without(family, hospitals, "east")
    for spec, words in (
        ({"born": "incremental", "from": ["shared"], "site": "east"}, "place 'east' departed on .* name a place that is there"),
        ({"born": "incremental", "from": ["eastern"], "site": "west"}, "'eastern' is lost: place 'east' departed"),
    ):
        with pytest.raises(InputError, match=words):
            extend(after, {"models": {"more": spec}}, "more.yaml")
    grown = extend(after, MORE, "more.yaml")
    assert set(grown.heads) == {*after.heads, "more"}
    assert grown.departed.keys() == {"east"}
    assert not fsck(grown.folder).damage
    record = unlearn(grown, LEAVE, LAST, InProcess(workers(hospitals, grown)), accept_untested=ANYTHING)
    assert "more" in rows(record)


def test_a_report_shows_the_family_as_it_was_also_after_an_extension(family: Family, hospitals: Scenario) -> None:
    unlearn(family, LEAVE, LAST, InProcess(workers(hospitals, family)), accept_untested=ANYTHING)
    before = family.heads
    after = without(Family.open(family.folder), hospitals, "east")
    grown = extend(after, MORE, "more.yaml")
    for one in (after, grown):
        line = next(x for x in one.ledger.lines if x.kind == "unlearned")
        told = document(one, line, {})
        assert {m["name"] for m in told["models"]} == set(before)
        assert any("east" in limit["text"] for limit in told["limits"] if limit["about"] == "Departed")
        assert one.lineage_at(line) == family.lineage


def test_an_extension_that_is_cut_off_leaves_the_family_as_it_was(family: Family, hospitals: Scenario) -> None:
    after = without(family, hospitals, "east")
    ledger, lineage = after.ledger.path.read_bytes(), after.lineage
    extend(after, MORE, "more.yaml")
    after.ledger.path.write_bytes(ledger)  # as far as its ledger line
    assert Family.open(after.folder).lineage == lineage


def test_what_cannot_depart(folder: Path, family: Family, hospitals: Scenario) -> None:
    before = snapshot(folder)
    with pytest.raises(InputError, match=r"place 'eats'.*did you mean 'east'"):
        depart(family, InProcess({}), "eats")
    assert {n: b for n, b in snapshot(folder).items() if not n.endswith(".lock")} == {
        n: b for n, b in before.items() if not n.endswith(".lock")
    }
    after = without(family, hospitals, "east")
    with pytest.raises(InputError, match=r"'east': departed on .* already \(ledger line 1\)"):
        depart(after, InProcess({}), "east")
    after = without(after, hospitals, "west")
    with pytest.raises(InputError, match="every model that is left is there"):
        depart(after, InProcess({}), "server")


def test_the_word_of_the_ledger_alone_decides(family: Family, hospitals: Scenario) -> None:
    """A copy of the folder from before follows once it has the ledger's new line."""
    old = Path(shutil.copytree(family.folder, family.folder.with_name("old")))
    after = without(family, hospitals, "east")
    shutil.copy(after.folder / "ledger.jsonl", old / "ledger.jsonl")
    assert Family.open(old).heads == after.heads
    assert Family.open(old).places == after.places


def test_what_is_out_of_reach_was_not_measured_and_is_not_tested(family: Family, hospitals: Scenario) -> None:
    after = without(family, hospitals, "east")
    folder = Path(shutil.copytree(after.folder, after.folder.with_name("other")))
    record = unlearn(after, Request(classes=("5",)), LAST, InProcess(workers(hospitals, after)), accept_untested=ANYTHING)
    assert rows(record)["shared"]["unmeasured"] == ["east/main (departed)"]
    told = document(Family.open(after.folder), Family.open(after.folder).ledger.lines[-1], {})
    (shared,) = [m for m in told["models"] if m["name"] == "shared"]
    assert any("not measured, or on some of the rows only: east/main (departed)" in text for text in shared["findings"])
    assert sorted(told["reached"]["lost"]) == sorted(after.lost)
    assert any(f"It reaches {len(after.lost)} models more, which are lost" in text for text in told["verdict"]["sentences"])
    other = Family.open(folder)
    record = unlearn(other, Request(sites=("east", "west")), LAST, InProcess(workers(hospitals, other)))
    assert "not tested: what is to be forgotten at east cannot be scored at its home" in rows(record)["triage"]["untested"]  # type: ignore[operator]


def test_a_case_names_what_is_lost_and_holds_it_whenever_it_was_asked(family: Family, hospitals: Scenario) -> None:
    after = without(family, hospitals, "east")
    unlearn(after, LEAVE, LAST, InProcess(workers(hospitals, after)), accept_untested=ANYTHING)
    (case,) = cases(Family.open(family.folder))
    assert set(case.lost) == EAST


def test_a_case_whose_only_holder_is_lost_is_not_one_that_nobody_holds(tmp_path: Path) -> None:
    plain = changed("data.without", {"south": ["1"]})
    plain["models"]["other"] = {"born": "incremental", "site": "south", "epochs": 1}
    del plain["models"]["two"]
    scenario = parse(plain, "small.yaml")
    family = depart(train(scenario, tmp_path / "family"), InProcess({}, offline={"south": "away"}), "north")
    unlearn(family, Request(classes=("1",)), "logit_mask", InProcess(workers(scenario, family)))
    (case,) = cases(Family.open(family.folder))
    assert (case.state, case.lost, case.left) == ("lost", ("one",), ())


def test_a_model_that_is_lost_still_says_since_when(family: Family, hospitals: Scenario) -> None:
    asked = Request(classes=("5",), since="eastern")
    unlearn(family, asked, LogitMask(), InProcess(workers(hospitals, family)), accept_untested=ANYTHING)
    after = extend(without(Family.open(family.folder), hospitals, "east"), MORE, "more.yaml")
    assert {case.request.what for case in cases(after)} == {asked.what}
    seal(after, InProcess(workers(hospitals, after)))


GONE: set[str] = set()


def load_site(name: str) -> Any:
    if name in GONE:
        raise OSError(f"the disk of {name} is gone")
    return elsewhere.load_site(name)


def test_rows_of_what_departed_are_not_opened_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = {k: elsewhere.MODELS[k] for k in ("shared", "eastern")}
    net = {"name": "mlp", "hidden": 8}
    scenario = parse({"name": "own", "data": {"factory": f"{__name__}:load_site"}, "net": net, "models": models}, "own.yaml")
    family = train(scenario, tmp_path / "family")
    monkeypatch.setattr(f"{__name__}.GONE", {"south"})
    with pytest.raises(InputError, match="the disk of south is gone"):
        workers(scenario, family)
    with backend_of(family, departing=("south",)) as carrier:
        after = depart(family, carrier, "south")
    with backend_of(after) as carrier:
        record = unlearn(after, Request(classes=("0",)), LAST, carrier, accept_untested=ANYTHING)
    assert {p for m in rows(record).values() for p in m["points"] if "south" in p} == set()  # type: ignore[attr-defined]
    held_on = {"born": "incremental", "from": ["shared"], "site": "north", "epochs": 1, "ewc": 1.0}
    grown = extend(Family.open(after.folder), {"models": {"more": held_on}}, "more.yaml")
    assert "more" in grown.heads


def test_a_site_whose_folder_is_gone_is_offline_until_it_departs(tmp_path: Path) -> None:
    site_files(tmp_path / "sites")
    with sites_away(SCENARIO, tmp_path / "sites") as away:
        family = train_afar(SCENARIO, tmp_path / "family", away, workers_here(SCENARIO, Family(tmp_path / "family")))
    for site in ("south", "east"):
        shutil.rmtree(tmp_path / "sites" / site)
    with backend_of(family, sites=tmp_path / "sites") as carrier, pytest.raises(SiteError, match="south: there is no folder"):
        unlearn(family, Request(classes=("1",)), LAST, carrier)
    for site in ("south", "east"):
        with backend_of(family, sites=tmp_path / "sites", departing=(site,)) as carrier:
            family = depart(family, carrier, site)
    with backend_of(family, sites=tmp_path / "sites") as carrier:
        record = unlearn(family, Request(classes=("1",)), LAST, carrier, accept_untested=ANYTHING)
    assert rows(record)["shared"]["points"]
    assert not behind(Family.open(family.folder))
