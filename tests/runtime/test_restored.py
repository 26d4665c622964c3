"""A coordinator's folder is restored from an older backup, beside sites with stores of their own that know more."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.errors import SiteError, StoreError
from fedunlearn.evaluation import Gate
from fedunlearn.lineage import Request
from fedunlearn.methods import make
from fedunlearn.runtime import Family, Split, bank, depart, rollback, seal, settle, unlearn
from fedunlearn.runtime.backend import Backend
from fedunlearn.runtime.seal import catch_up, erase_sealed
from fedunlearn.scenario import Scenario, workers_here
from fedunlearn.scenario.afar import extend_afar
from tests.conftest import snapshot
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
