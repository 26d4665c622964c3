"""A coordinator's folder, a site's or the homes are restored from an older backup, beside others that know more."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.data import Exclusions
from fedunlearn.errors import SiteError, StoreError
from fedunlearn.evaluation import Gate
from fedunlearn.lineage import Request
from fedunlearn.methods import make
from fedunlearn.runtime import (
    Backend,
    Family,
    InProcess,
    Split,
    bank,
    behind,
    catch_up,
    confirmed,
    depart,
    erase_sealed,
    fsck,
    owed,
    rollback,
    seal,
    settle,
    unlearn,
)
from fedunlearn.runtime.books.family import ERASED
from fedunlearn.runtime.place.mirror import Mirror, part, path
from fedunlearn.scenario import Scenario, workers, workers_here
from fedunlearn.scenario.train_afar import extend_afar
from fedunlearn.store import Store
from tests.conftest import LEAVE, snapshot
from tests.scenario.elsewhere import WAYS, afar, elsewhere, in_process

MODELS: dict[str, Any] = {
    "shared": {"born": "federated", "clients": ["north", "south", "east"]},
    "eastern": {"born": "incremental", "from": ["shared"], "site": "east"},
}
EDIT = make("fiun", {"alpha": 1.0, "lam": 0.5})
LATER = {"born": "incremental", "from": "eastern", "site": "east"}
LENIENT = Gate(score_at_roots=True)


def forget(family: Family, backend: Backend, c: str) -> None:
    unlearn(family, Request(classes=(c,)), EDIT, backend, LENIENT, accept_untested="a test")


COMMANDS: dict[str, Callable[[Family, Backend], object]] = {
    "unlearn": lambda family, backend: forget(family, backend, "3"),
    "rollback": lambda family, backend: rollback(family, backend, lift_exclusion=False),
    "seal": seal,
    "depart": lambda family, backend: depart(family, backend, "south"),
    "bank": bank,
    "extend": lambda family, backend: extend_afar(family, {"models": {"later": LATER}}, "more.yaml", backend),
}


@pytest.fixture
def after(folder: Path, hospitals: Scenario) -> Path:
    """A family in one folder that has forgotten something."""
    family = Family.open(folder)
    unlearn(family, LEAVE, "logit_mask", InProcess(workers(hospitals, family)), accept_untested="a test")
    return folder


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[[Scenario, Path], Backend]:
    return WAYS[request.param]


def restored(folder: Path, away: Callable[[Scenario, Path], Backend]) -> tuple[Family, Backend]:
    """A ledger that lacks the last request, which the sites have carried out."""
    scenario = elsewhere(MODELS)
    family = afar(scenario, folder / "family", away(scenario, folder / "sites"))
    backend = Split(workers_here(scenario, family), away(scenario, folder / "sites"), family.id)
    forget(family, backend, "1")
    shutil.copytree(folder / "family", folder / "backup")
    forget(Family.open(folder / "family"), backend, "2")
    shutil.rmtree(folder / "family")
    (folder / "backup").rename(folder / "family")
    shutil.rmtree(folder / "family" / "homes", ignore_errors=True)  # nobody on this machine remembers
    return Family.open(folder / "family"), backend


def test_nothing_is_written_to_a_ledger_that_its_sites_have_overtaken(
    tmp_path: Path, way: Callable[[Scenario, Path], Backend]
) -> None:
    family, backend = restored(tmp_path, way)
    ledger, sites = family.ledger.path.read_bytes(), snapshot(tmp_path / "sites")
    for command in COMMANDS.values():
        with pytest.raises(StoreError, match=r"lacks ledger lines that places have acknowledged: .*east"):
            command(Family.open(family.folder), backend)
        assert family.ledger.path.read_bytes() == ledger
        assert snapshot(tmp_path / "sites") == sites


def test_a_site_that_refuses_a_ledger_erases_nothing_for_it(tmp_path: Path) -> None:
    """Even where the note of who has acknowledged what was restored as well, and says that all is well."""
    family, backend = restored(tmp_path, in_process)
    sites = snapshot(tmp_path / "sites")
    family.ledger.append("sealed", {"seals": [1], "requests": [], "left": [], "erases": [], "reason": None})
    family.note_acknowledged(dict.fromkeys(family.places, family.ledger.lines[-1].hash))
    for command in (catch_up, erase_sealed, settle):
        with pytest.raises(SiteError, match=r"places failed: .*east.*: has acknowledged a ledger of 3 lines"):
            command(Family.open(family.folder), backend)
        assert snapshot(tmp_path / "sites") == sites


def a_site_restored(
    folder: Path, way: Callable[[Scenario, Path], Backend], between: str, last: str = ""
) -> tuple[Family, Backend, Store]:
    """A family that has forgotten a class (and had it sealed); but the store of east is as it was before one of both."""
    scenario = elsewhere(MODELS)
    family = afar(scenario, folder / "family", way(scenario, folder / "sites"))
    for step in ("unlearn", "seal"):
        backend = Split(workers_here(scenario, family), way(scenario, folder / "sites"), family.id)
        if step == between:
            shutil.copytree(folder / "sites" / "east", folder / "backup")
        forget(family, backend, "1") if step == "unlearn" else seal(family, backend)
        family = Family.open(family.folder)
        if step == (last or between):
            break
    shutil.rmtree(folder / "sites" / "east")
    (folder / "backup").rename(folder / "sites" / "east")
    backend = Split(workers_here(scenario, family), way(scenario, folder / "sites"), family.id)
    return family, backend, part(Store(folder / "sites" / "east"), family.id)


def test_a_site_from_before_a_request_excludes_its_data_though_it_lacks_the_edit(
    tmp_path: Path, way: Callable[[Scenario, Path], Backend]
) -> None:
    family, backend, east = a_site_restored(tmp_path, way, "unlearn")
    assert not behind(family)  # as the note has it
    with pytest.raises(SiteError, match=r"east: its store lacks the current version of eastern"):
        settle(family, backend)
    (chosen,) = Exclusions.read(path(east)).by_request.values()
    assert chosen.classes == ("1",)
    family = Family.open(family.folder)
    assert behind(family) == ("east",)
    assert all("east" not in places for places in confirmed(family).values())
    mirror = Mirror.of(east)
    assert mirror is not None
    assert (mirror.line, mirror.heads) == (family.ledger.lines[0].hash, {"eastern": family.heads["eastern"]})


def test_a_site_without_a_mirror_excludes_it_as_well(tmp_path: Path) -> None:
    family, backend, east = a_site_restored(tmp_path, in_process, "unlearn")
    path(east).unlink()
    for _ in range(2):
        with pytest.raises(SiteError, match=r"east: its store lacks the current version of eastern"):
            settle(family, backend)
        assert Exclusions.read(path(east)).by_request
    assert behind(Family.open(family.folder)) == ("east",)


def test_a_site_from_before_a_seal_erases_again(tmp_path: Path, way: Callable[[Scenario, Path], Backend]) -> None:
    family, backend, east = a_site_restored(tmp_path, way, "seal")
    erased = {*family.ledger.lines[-1].body["erases"]}
    assert erased & {*east.versions()}
    assert not owed(family)  # as the note has it
    catch_up(family, backend)
    assert not erased & {*east.versions()}
    assert family.heads["eastern"] in east.versions()
    note = family.folder / ERASED
    before = note.read_bytes()
    catch_up(family, backend)
    assert (owed(family), note.read_bytes()) == ((), before)


def test_a_site_from_before_a_request_that_is_sealed_owes_that_again(tmp_path: Path) -> None:
    """It lacks what is in force, so it can acknowledge nothing; that it has the old versions again is known all the same."""
    family, backend, east = a_site_restored(tmp_path, in_process, "unlearn", "seal")
    assert {*family.ledger.lines[-1].body["erases"]} & {*east.versions()}
    assert not owed(family)  # as the note has it
    with pytest.raises(SiteError, match=r"east: its store lacks the current version of eastern"):
        settle(family, backend)
    assert owed(Family.open(family.folder)) == ("east",)
    depart(Family.open(family.folder), backend, "east")
    assert Family.open(family.folder).departed["east"].body["unerased"]


def test_homes_from_before_a_seal_owe_it_again(after: Path, hospitals: Scenario) -> None:
    """Those in the family's folder say so themselves."""
    family, homes = Family.open(after), after / "homes"
    shutil.copytree(homes, after.parent / "homes")
    seal(family, InProcess(workers(hospitals, family)))
    erased = {*family.ledger.lines[-1].body["erases"]}
    shutil.rmtree(homes)
    (after.parent / "homes").rename(homes)
    family = Family.open(after)
    assert set(owed(family)) == set(family.places)
    catch_up(family, InProcess(workers(hospitals, family)))
    assert not owed(family)
    assert not any(erased & {*family.store(place).versions()} for place in family.places)


def test_a_home_from_before_a_request_is_missing_a_version_and_no_more(after: Path, hospitals: Scenario) -> None:
    family, home = Family.open(after), after / "homes" / "east"
    shutil.copytree(home, after.parent / "east")
    unlearn(family, Request(classes=("5",)), "logit_mask", InProcess(workers(hospitals, family)), accept_untested="a test")
    shutil.rmtree(home)
    (after.parent / "east").rename(home)
    family = Family.open(after)
    with pytest.raises(SiteError, match=r"east: its store lacks the current version of eastern"):
        settle(family, InProcess(workers(hospitals, family)))
    assert "5" in {c for chosen in Exclusions.read(path(family.store("east"))).by_request.values() for c in chosen.classes}
    damage = fsck(after).damage
    assert damage
    assert all("mirror" not in words and "place.json" not in words for words in damage)
    assert any(family.heads["eastern"] in words for words in damage)
