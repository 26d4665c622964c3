"""Who confirms a ledger, where sites have stores of their own; `tests/cli/test_log.py` has what is said where none has."""

import shutil
from pathlib import Path

from fedunlearn.runtime import Family, Split, confirmed, elsewhere, remarks, rests_on, unwitnessed
from fedunlearn.scenario import workers_here
from tests.runtime.test_restored import forget
from tests.scenario.elsewhere import SITES, afar, elsewhere as scenario_of, in_process

MODELS = {"shared": {"born": "federated", "clients": list(SITES)}}


def test_stores_that_are_elsewhere_are_named_and_not_missed(tmp_path: Path) -> None:
    scenario, folder = scenario_of(MODELS), tmp_path / "family"
    away = in_process(scenario, tmp_path / "sites")
    family = afar(scenario, folder, away)
    assert set(elsewhere(family)) == set(SITES)
    assert confirmed(family) == {0: list(family.places)}
    assert all(site in rests_on(family) for site in SITES)
    (home,) = set(family.places) - set(SITES)
    mirror, note = folder / "homes" / home / "place.json", folder / "acknowledged.json"
    whole, noted = mirror.read_bytes(), note.read_bytes()
    mirror.unlink()
    assert unwitnessed(family)  # the note says that it had one
    note.unlink()
    assert not unwitnessed(family)  # as a crash right behind the first line leaves it
    assert len(remarks(family)) == 1
    mirror.write_bytes(whole)
    note.write_bytes(noted)
    forget(family, Split(workers_here(scenario, family), away, family.id), "1")
    mirror.unlink()
    note.unlink()
    assert unwitnessed(Family.open(folder))
    shutil.rmtree(folder / "homes")  # nobody is here: nobody can have lost a mirror
    gone = Family.open(folder)
    assert not unwitnessed(gone)
    assert set(elsewhere(gone)) == set(gone.places)
    assert confirmed(gone) == {}
    assert "no line by any place" in rests_on(gone)
