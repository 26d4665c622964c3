"""Families that share the stores of their sites: each trains, forgets, rolls back and is sealed as if it were alone there."""

import json
import random
from pathlib import Path

import pytest

from fedunlearn.errors import SiteError
from fedunlearn.lineage import Request
from fedunlearn.runtime import Backend, Family, Split, bank, behind, check_site, rollback, seal, unlearn
from fedunlearn.runtime.tasks import Answer, Fetch, Fetched, Measure, Measured, Survey, Task, Train
from fedunlearn.scenario import Scenario, extend_afar, of_family, retrained, workers_here
from fedunlearn.store import Bank, Store, check_store, write_atomically
from tests.conftest import LEAVE
from tests.scenario.elsewhere import MODELS, SITES, WAYS, Counting, afar, elsewhere, sites_of

SCENARIO = elsewhere({"shared": {**MODELS["shared"], "rounds": 1}, "eastern": MODELS["eastern"], "few": MODELS["few"]})
ANYTHING = "whatever is left, for the test"


def both(family: Family, away: Backend, scenario: Scenario = SCENARIO) -> Split:
    return Split(workers_here(scenario, family), away, family.id)


def forget(family: Family, away: Backend, request: Request = LEAVE) -> Family:
    unlearn(family, request, "logit_mask", both(family, away), accept_untested=ANYTHING)
    return Family.open(family.folder)


def part(sites: Path, family: Family, site: str) -> Store:
    return Store(sites / site / "families" / family.id)


def held(sites: Path, family: Family) -> dict[str, bytes]:
    """All files that are one family's, at all sites."""
    folders = [part(sites, family, site).folder for site in SITES]
    return {str(p): p.read_bytes() for f in folders for p in sorted(f.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("way", WAYS)
def test_each_lives_as_if_it_were_alone(way: str, tmp_path: Path) -> None:
    sites = tmp_path / "sites"
    away = WAYS[way](SCENARIO, sites)
    ours, theirs = (afar(SCENARIO.seeded(seed), tmp_path / name, away) for seed, name in ((1, "ours"), (2, "theirs")))
    trained = dict(ours.heads)
    assert ours.id != theirs.id
    assert bank(ours, both(ours, away)) == bank(theirs, both(theirs, away)) > 0

    untouched = held(sites, theirs)
    ours = forget(ours, away)
    rollback(ours, both(ours, away), lift_exclusion=True)
    ours = Family.open(ours.folder)
    assert ours.heads == trained
    ours = forget(ours, away, Request(classes=("1",)))
    assert ours.heads != trained
    seal(ours, both(ours, away))
    assert held(sites, theirs) == untouched

    theirs = forget(theirs, away)
    forgotten = dict(theirs.heads)
    rollback(theirs, both(theirs, away), lift_exclusion=False)
    theirs = forget(Family.open(theirs.folder), away)
    assert theirs.heads == forgotten
    seal(theirs, both(theirs, away), LEAVE.id)
    for family in (Family.open(ours.folder), Family.open(theirs.folder)):
        assert not behind(family)
        for site in SITES:
            store = part(sites, family, site)
            mine = {v: "a head" for m, v in family.heads.items() if family.lineage[m].home == site}
            assert set(store.versions()) == set(mine)  # what is sealed is gone
            found = check_store(store, mine)
            assert not found.damage
            assert not found.orphans
    assert not list((sites / "north").glob("*.json"))  # nothing beside the two
    for site in SITES:
        found = check_site(sites / site)
        assert found.files
        assert not found.damage
        assert not found.orphans


def test_a_sites_owner_finds_a_flipped_bit_in_any_file(tmp_path: Path) -> None:
    sites = tmp_path / "sites"
    away = WAYS["in-process"](SCENARIO, sites)
    for name in ("ours", "theirs"):
        family = afar(SCENARIO, tmp_path / name, away)
        bank(family, both(family, away))
        forget(family, away)
    folder, chance = sites / "east", random.Random(7)
    write_atomically(folder / "consent" / f"{1:016x}.json", json.dumps({"id": f"{1:016x}", "what": "w", "asked": "t"}).encode())
    (told,) = check_site(folder).damage
    assert "not a task that waits for its owner (approved: Field required); delete it" in told
    next((folder / "consent").iterdir()).unlink()
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    assert {p.parent.name for p in files} >= {"packs", "versions", "tables", "bank", family.id}
    for path in files:
        data = path.read_bytes()
        at = chance.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :])
        assert any(str(path) in told for told in check_site(folder).damage), path
        path.write_bytes(data)
    head = family.heads["eastern"]
    part(sites, family, "east").manifest_path(head).unlink()
    (folder / "notes.txt").write_text("mine")
    found = check_site(folder)
    assert [t for t in found.damage if "missing; it is the current version of eastern" in t]
    assert found.orphans[folder / "notes.txt"] == "no file of a place"


def test_two_families_that_are_the_same_erase_nothing_of_one_another(tmp_path: Path) -> None:
    """From one topology and seed: all their versions have the same names."""
    sites = tmp_path / "sites"
    away = WAYS["in-process"](SCENARIO, sites)
    ours, theirs = (afar(SCENARIO, tmp_path / name, away) for name in ("ours", "theirs"))
    assert ours.heads == theirs.heads
    before = held(sites, theirs)
    seal(forget(ours, away), both(ours, away))
    assert held(sites, theirs) == before
    classes = {c for s in SITES for p in Bank(part(sites, ours, s).folder).paths() for c in Bank(Path()).open(p)[1]}
    assert "0" not in classes
    theirs = forget(theirs, away)
    rollback(theirs, both(theirs, away), lift_exclusion=True)


def test_what_one_has_forgotten_the_other_does_not_train_on_but_still_preserves(tmp_path: Path) -> None:
    scenario = elsewhere({"few": MODELS["few"]})
    sites = tmp_path / "sites"
    away = Counting(sites_of(scenario, sites))
    ours, old = (afar(scenario, tmp_path / name, away) for name in ("ours", "old"))
    unlearn(ours, Request(classes=("1",)), "logit_mask", both(ours, away, scenario), accept_untested=ANYTHING)
    new = afar(scenario, tmp_path / "new", away)
    assert new.lineage["few"].data[0].rows.keys() == {"0", "2"}
    assert new.ledger.lines[-1].body["withheld"] == {"north/main": old.lineage["few"].data[0].rows["1"]}
    assert old.ledger.lines[-1].body["withheld"] == {}
    extended = extend_afar(old, {"models": {"more": {**MODELS["more"], "epochs": 1, "classes": ["1", "3"]}}}, "more.yaml", away)
    assert extended.lineage["more"].data[0].rows.keys() == {"3"}
    version, rows = old.heads["few"], old.lineage["few"].data[0].rows
    weighed = Measure("north", version, "main", "squares", "last", None, tuple(rows))
    (answer,) = both(old, away, scenario).carry([weighed])
    assert isinstance(answer, Measured)
    assert answer.importance.count == sum(rows.values())


def test_what_others_have_excluded_since_is_said_to_be_missing_in_a_reference(tmp_path: Path) -> None:
    """What an heir is to be like is another model then; what was excluded before it was trained makes no difference."""
    scenario = elsewhere({"shared": {**MODELS["shared"], "keep": "last", "rounds": 1}})
    sites, asked = tmp_path / "sites", Request(classes=("3",), sites=("north",))
    away = WAYS["in-process"](scenario, sites)
    ours, theirs = (afar(scenario.seeded(seed), tmp_path / name, away) for seed, name in ((1, "ours"), (2, "theirs")))
    forget(ours, away, Request(classes=("3",), sites=("south",)))
    again = retrained(theirs, scenario.seeded(2), asked, both(theirs, away, scenario))
    rows = theirs.lineage.rows["south/main"]["3"]
    assert again.lacks == {"south/main": rows}
    record = unlearn(theirs, asked, "steer", both(theirs, away, scenario), retrained=again)
    words = f"not tested: the retrained model lacks {rows} rows of south/main, which requests on other families exclude there"
    (heir,) = record.facts["models"]
    assert heir["target"] == "as_retrained"
    assert any(text.startswith(words) for text in heir["untested"])
    assert not record.accepted
    later = afar(scenario.seeded(3), tmp_path / "later", away)  # it was trained without them itself
    assert not retrained(later, scenario.seeded(3), asked, both(later, away, scenario)).lacks
    small = elsewhere({"shared": {**MODELS["shared"], "keep": "last", "rounds": 1, "clients": ["north", "east"]}})
    joined = afar(small.seeded(4), tmp_path / "joined", away)
    more = {"models": {"southern": {"born": "incremental", "from": ["shared"], "site": "south"}}}
    joined = extend_afar(joined, more, "more.yaml", away)  # south joined without them
    assert not retrained(joined, of_family(joined), asked, both(joined, away, of_family(joined))).lacks


def test_a_reference_lies_in_the_part_of_its_family(tmp_path: Path) -> None:
    sites = tmp_path / "sites"
    away = Counting(sites_of(SCENARIO, sites))
    ours = afar(SCENARIO, tmp_path / "ours", away)
    retrained(ours, SCENARIO, LEAVE, both(ours, away))
    assert {p.name for s in SITES for p in (sites / s / "families").iterdir()} == {ours.id}


def test_a_training_that_was_cut_off_goes_on_as_the_same_family(tmp_path: Path) -> None:
    """What it left at sites is then swept with the family's own."""

    class CutOff(Exception):
        pass

    def cut(task: Task, answer: Answer) -> Answer:
        if isinstance(task, Train):
            raise CutOff
        return answer

    with pytest.raises(CutOff):
        afar(SCENARIO, tmp_path / "ours", Counting(sites_of(SCENARIO, tmp_path / "sites"), cut))
    named = Family(tmp_path / "ours").id
    assert named
    assert afar(SCENARIO, tmp_path / "ours", WAYS["in-process"](SCENARIO, tmp_path / "sites")).id == named
    (tmp_path / "ours" / "family.id").unlink()  # from then on the ledger says it
    assert Family.open(tmp_path / "ours").id == named


def test_a_message_cannot_choose_another_folder(tmp_path: Path) -> None:
    worker = sites_of(SCENARIO, tmp_path)["north"]
    for family in ("../../elsewhere", "a" * 31, "A" * 32):
        with pytest.raises(SiteError, match="expected 32 hexadecimal digits"):
            worker.handle(Survey("north", ("main",), family=family))
    assert not list(tmp_path.iterdir())


def test_weights_of_one_family_are_not_sent_to_another(tmp_path: Path) -> None:
    away = WAYS["in-process"](SCENARIO, tmp_path / "sites")
    ours, theirs = (afar(SCENARIO.seeded(s), tmp_path / str(s), away) for s in (1, 2))
    (answer,) = both(theirs, away).carry([Fetch("north", ours.heads["few"])])
    assert "unknown version" in str(answer)
    (answer,) = both(ours, away).carry([Fetch("north", ours.heads["few"])])
    assert isinstance(answer, Fetched)
