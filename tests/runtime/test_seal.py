"""What is sealed is truly gone and the ledger says so; what a rollback needs never goes; damage and cuts are found.

Long because all of it starts from one family that has forgotten, made once.
"""

import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from fedunlearn.errors import InputError, OvertakenError, SiteError, StoreError
from fedunlearn.methods import FIUn
from fedunlearn.runtime import (
    Family,
    InProcess,
    bank,
    behind,
    cases,
    catch_up,
    collect,
    erase_sealed,
    fsck,
    needed,
    owed,
    rollback,
    seal,
    settle,
    unlearn,
)
from fedunlearn.runtime.books.evaluations import keep_results
from fedunlearn.runtime.books.records import record_of
from fedunlearn.runtime.place.consent import Consent
from fedunlearn.runtime.tasks import Apply, Commit, Measure, Seal, Sealed
from fedunlearn.scenario import Scenario, assessed, reference, workers
from fedunlearn.store import Bank, Store, write_atomically
from fedunlearn.store.files import with_hash
from tests.conftest import LEAVE, NORTH, snapshot
from tests.runtime.forgetting import Asking
from tests.runtime.remains import raw
from tests.runtime.test_offline import Offline

LAST = FIUn(layers="last")
ANYTHING = "whatever is left, for the test"


def worked(hospitals: Scenario, folder: Path) -> InProcess:
    return InProcess(workers(hospitals, Family.open(folder)))


def forget(hospitals: Scenario, folder: Path, classes: str = "0") -> Family:
    unlearn(Family.open(folder), type(LEAVE)(classes=(classes,)), LAST, worked(hospitals, folder), accept_untested=ANYTHING)
    return Family.open(folder)


@pytest.fixture(scope="module")
def forgotten(hospitals: Scenario, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family that banked its importances and forgot a class from its last layers; not to be changed."""
    folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("forgotten") / "family"))
    bank(Family.open(folder), worked(hospitals, folder))
    forget(hospitals, folder)
    return folder


@pytest.fixture
def after(forgotten: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(forgotten, tmp_path / "after"))


def contents(folder: Path, versions: dict[str, str]) -> dict[str, bytes]:
    """Bytes of every tensor, by its hash, of some versions (by home)."""
    found = {}
    for version, place in versions.items():
        store = Store(folder / "homes" / place)
        weights = store.read(version).weights
        found |= {store.manifest(version)["tensors"][n]: raw(t) for n, t in weights.items() if t.numel() > 8}
    return found


def test_what_only_erased_versions_hold_is_in_no_file_after_a_seal(hospitals: Scenario, after: Path) -> None:
    family = Family.open(after)
    line, lineage = family.ledger.lines[-1], family.lineage
    old = {family.ledger.heads(line.number)[m]: lineage[m].home for m in line.body["heads"]}
    new = {v: lineage[m].home for m, v in family.heads.items()}
    kept = contents(after, new)
    gone = {h: data for h, data in contents(after, old).items() if h not in kept}
    for place in family.places:
        held = Bank(family.store(place).folder)
        for what, by_class in map(held.open, held.paths()):
            gone |= {f"{what}{n}": raw(t) for n, t in by_class["0"].sums.items() if bool(t.any())} if "0" in by_class else {}
    assert len(gone) > 10
    pool = after / "homes" / "north" / "shadows" / "of-all-rows" / "0.safetensors"
    pool.parent.mkdir(parents=True)
    pool.write_bytes(next(iter(gone.values())))
    told = seal(family, worked(hospitals, after), LEAVE.id, reason="the window is over")
    assert told.body["requests"] == [LEAVE.id]
    assert set(old) <= set(told.body["erases"])
    for path, data in snapshot(after).items():
        assert not [name for name, part in gone.items() if part in data], path
    again = Family.open(after)
    assert again.heads == family.heads
    assert not owed(again)
    assert not behind(again)
    assert not fsck(after).damage
    assert contents(after, new).keys() == kept.keys()
    with pytest.raises(InputError, match=rf"request {LEAVE.id} was sealed on \d.* cannot be rolled back"):
        rollback(again, worked(hospitals, after), lift_exclusion=False)
    with pytest.raises(InputError, match="is sealed already"):
        seal(again, worked(hospitals, after), LEAVE.id)
    with pytest.raises(InputError, match=f"unknown request in force 'leave'; did you mean '{LEAVE.id[:2]}|known: {LEAVE.id}"):
        seal(again, worked(hospitals, after), "leave")
    assert [c.state for c in cases(again)] == ["sealed"]


def test_cached_references_go_when_they_were_trained_on_it(hospitals: Scenario, after: Path) -> None:
    family = Family.open(after)
    without = {Path(reference(family, hospitals, LEAVE).folder)}
    folders = set((after / "reference").iterdir())
    assert without < folders  # the other left out class 0 of one hospital only
    cut_off = after / "reference" / "0"
    (cut_off / "homes").mkdir(parents=True)
    damaged = Path(shutil.copytree(next(iter(without)), after / "reference" / "1"))
    (damaged / "ledger.jsonl").write_text("{}\n")
    pack = next((after / "homes" / "west" / "packs").iterdir())
    whole = pack.read_bytes()
    pack.write_bytes(whole[:-1])
    told = fsck(after)
    assert len([t for t in told.damage if f"or delete {damaged}" in t]) == 1
    assert [t for t in told.damage if str(pack) in t]  # one damaged thing hides no other
    assert cut_off in told.orphans
    pack.write_bytes(whole)
    seal(family, worked(hospitals, after))
    assert set((after / "reference").iterdir()) == without  # of what cannot be read nobody knows what it was trained on


def test_gc_never_erases_what_a_rollback_brings_back(hospitals: Scenario, trained: Path, after: Path) -> None:
    before = Family.open(trained).heads
    planned = collect(Family.open(after), Family.open(after).places, dry=True)
    assert not any(s.versions for s in planned.values())
    assert collect(Family.open(after), Family.open(after).places) == planned
    candidates = set(Family.open(after).heads.values()) - set(before.values())
    rollback(Family.open(after), worked(hospitals, after), lift_exclusion=True)
    family = Family.open(after)
    assert family.heads == before
    assert not fsck(after).damage
    (after / "acknowledged.json.writing").write_text("{")  # by a command that was cut off
    shown = snapshot(after)
    planned = collect(family, family.places, dry=True)
    assert snapshot(after) == shown
    erased = collect(family, family.places)
    assert erased == planned
    assert {v for s in erased.values() for v in s.versions} >= candidates
    assert not fsck(after).damage
    assert not fsck(after).orphans
    assert not any(s.versions or s.tensors for s in collect(family, family.places).values())


def test_a_place_that_has_not_erased_yet_owes_it(hospitals: Scenario, after: Path) -> None:
    held = dict(workers(hospitals, Family.open(after)))
    with pytest.raises(SiteError, match=r"sealed \(ledger line \d\), but not yet erased everywhere.*east: no answer"):
        seal(Family.open(after), Offline(held, {"east"}, (Seal,)))
    family = Family.open(after)
    assert owed(family) == ("east",)
    with pytest.raises(InputError, match="was sealed on"):
        rollback(family, InProcess(held), lift_exclusion=True)
    (done,) = erase_sealed(family, InProcess(held))
    assert done.versions
    assert not owed(Family.open(after))
    assert erase_sealed(Family.open(after), InProcess(held)) == []
    task = Seal("east", tuple(v for h in needed(family).values() for v in h), {}, "line", family.ledger.hashes)
    assert held["east"].handle(task) == Sealed("line", 0, 0, 0, 0)


def test_whoever_is_not_there_keeps_nobody_else_from_catching_up(hospitals: Scenario, after: Path) -> None:
    held = dict(workers(hospitals, Family.open(after)))
    with pytest.raises(SiteError, match="not yet erased everywhere"):
        seal(Family.open(after), Offline(held, {"east", "west"}))
    assert set(owed(Family.open(after))) == set(behind(Family.open(after))) == {"east", "west"}
    with pytest.raises(SiteError, match="east: no answer"):
        catch_up(Family.open(after), Offline(held, {"east"}))
    assert owed(Family.open(after)) == behind(Family.open(after)) == ("east",)
    catch_up(Family.open(after), InProcess(held))
    assert owed(Family.open(after)) == behind(Family.open(after)) == ()


def test_a_place_refuses_to_erase_what_it_holds_to_be_in_force(hospitals: Scenario, after: Path) -> None:
    before = snapshot(after)
    with pytest.raises(SiteError, match=r"would erase the current version of .*eastern"):
        workers(hospitals, Family.open(after))["east"].handle(Seal("east", (), {}, "line", Family.open(after).ledger.hashes))
    assert snapshot(after) == before


def test_a_place_that_knows_more_erases_nothing_for_an_older_ledger(hospitals: Scenario, after: Path, tmp_path: Path) -> None:
    backup = shutil.copytree(after, tmp_path / "backup")
    forget(hospitals, after, "1")
    for place in Family.open(after).places:  # the coordinator is restored, its places are not
        shutil.rmtree(Family.open(backup).store(place).folder)
        shutil.copytree(Family.open(after).store(place).folder, Family.open(backup).store(place).folder)
    family, east = Family.open(backup), workers(hospitals, Family.open(backup))["east"]
    keep, before = tuple(v for h in needed(family).values() for v in h), snapshot(backup)
    with pytest.raises(OvertakenError, match="has acknowledged a ledger of 3 lines"):
        east.handle(Seal("east", keep, {}, "line", family.ledger.hashes))
    assert snapshot(backup) == before


def test_the_owner_is_asked_before_anything_is_erased(hospitals: Scenario, after: Path, tmp_path: Path) -> None:
    asking = Asking(workers(hospitals, Family.open(after))["west"], Consent(tmp_path / "consent"))
    family = Family.open(after)
    keep = tuple(v for h in needed(family).values() for v in h)
    with pytest.raises(SiteError, match="has not allowed it yet: erase every version but"):
        asking.handle(Seal("west", keep, {}, "line", family.ledger.hashes))
    (wish,) = asking.consent.wishes()
    asking.consent.approve(wish.id)
    assert isinstance(asking.handle(Seal("west", keep, {}, "line", family.ledger.hashes)), Sealed)


def test_later_requests_start_from_what_earlier_ones_left_and_are_undone_in_turn(
    hospitals: Scenario, trained: Path, after: Path
) -> None:
    """Evidence against the current versions; sealing one seals those before it, whose old versions hold its data too."""
    once = Family.open(after).heads
    asked: list[Measure | Apply] = []

    class Watching(InProcess):
        def carry(self, tasks):  # type: ignore[no-untyped-def]
            asked.extend(t for t in tasks if isinstance(t, Measure | Apply))
            return super().carry(tasks)

    held = workers(hospitals, Family.open(after))
    second = type(LEAVE)(classes=("1",))
    unlearn(Family.open(after), second, LAST, Watching(held), accept_untested=ANYTHING)
    twice = Family.open(after)
    assert {t.version for t in asked} <= set(once.values())
    assert all(t.question.gone == ("0",) for t in asked if isinstance(t, Apply))
    assert not fsck(after).damage
    rolled = Path(shutil.copytree(after, after.with_name("rolled")))
    for heads in (once, Family.open(trained).heads):
        rollback(Family.open(rolled), worked(hospitals, rolled), lift_exclusion=True)
        assert Family.open(rolled).heads == heads
    first, last = twice.ledger.lines[-2], twice.ledger.lines[-1]
    only_first = Path(shutil.copytree(after, after.with_name("first")))
    assert seal(Family.open(only_first), worked(hospitals, only_first), LEAVE.id).body["seals"] == [first.number]
    assert [c.state for c in cases(Family.open(only_first))] == ["sealed", "pending"]  # triage is not reached by the last layer
    rollback(Family.open(only_first), worked(hospitals, only_first), lift_exclusion=True)
    assert Family.open(only_first).heads == once
    assert not fsck(only_first).damage
    assert seal(twice, worked(hospitals, after), second.id).body["seals"] == [first.number, last.number]
    assert not fsck(after).damage


def test_a_cut_ledger_is_found_by_whoever_knows_more(hospitals: Scenario, after: Path) -> None:
    path = after / "ledger.jsonl"
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    family = Family.open(after)
    with pytest.raises(StoreError, match=r"lacks ledger lines that places have acknowledged: .*north"):
        unlearn(family, NORTH, LAST, worked(hospitals, after))
    assert any("lacks ledger lines" in text for text in fsck(after).damage)
    with pytest.raises(StoreError, match=r"lacks ledger lines that places have acknowledged: .*north"):
        settle(family, worked(hospitals, after))
    with pytest.raises(SiteError, match=r"has acknowledged a ledger of 2 lines .* the one that asks has 1"):
        workers(hospitals, family)["north"].handle(Commit("north", {}, {}, (family.ledger.lines[-1].hash,)))
    (after / "acknowledged.json").unlink(missing_ok=True)
    shutil.rmtree(after / "homes")
    assert "lacks" not in str(fsck(after).damage)  # nobody knows more any longer
    path.write_bytes(whole)


def test_a_place_takes_no_ledger_that_does_not_continue_the_one_it_knows(hospitals: Scenario, after: Path) -> None:
    """However long it has grown since it was restored from an older backup."""
    family = Family.open(after)
    north, first = workers(hospitals, family)["north"], family.ledger.lines[0].hash
    for more in (1, 2, 3):
        with pytest.raises(SiteError, match="it was cut or rewritten"):
            north.handle(Commit("north", {}, {}, (first, *("f" * 64,) * more)))
    with pytest.raises(SiteError, match="a ledger without a line"):
        north.handle(Commit("north", {}, {}, ()))


def test_a_flipped_bit_in_any_file_is_found(forgotten: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(forgotten, tmp_path / "flipped"))
    for twin in sorted((folder / "reference").iterdir())[1:]:
        shutil.rmtree(twin)
    keep_evaluations(Family.open(folder))
    store = Family.open(folder).store("west")
    store.write_state(store.versions()[0], {"moment": torch.ones(3)})
    write_atomically(store.folder / "shadows" / "pool" / "000.safetensors", with_hash(save({"w": torch.ones(3)})))
    assert not fsck(folder).damage
    chance = random.Random(7)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
    kinds = {"ledger.jsonl", "lineage.json", "scenario.yaml", "acknowledged.json", "place.json"}
    assert kinds <= {p.name for p in files}
    folders = {"packs", "versions", "tables", "carried", "bank", "pool", "evaluations", "records"}
    assert folders <= {p.parent.name for p in files}
    for path in files:
        data = path.read_bytes()
        for at in {len(data) - 1, chance.randrange(len(data))}:
            flipped = data[at] ^ (1 << chance.randrange(8))
            path.write_bytes(data[:at] + bytes([flipped]) + data[at + 1 :])
            assert fsck(folder).damage, (path, at)
        path.write_bytes(data)
    assert not fsck(folder).damage


def keep_evaluations(family: Family) -> None:
    """What the gate saw, as if it had been taken afterwards."""
    line = family.ledger.lines[-1]
    rows = record_of(family, line).facts["models"]
    both = ("version_before", "version_after")
    keep_results(
        family,
        line,
        {r["name"]: {t: {**of, "seconds": {}} | {v: r[v] for v in both} for t, of in r["evaluation"].items()} for r in rows},
    )
    assert assessed(family, line)
