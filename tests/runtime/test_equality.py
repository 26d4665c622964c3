"""Over a Flower grid every method does to every topology what it does in this process, content hashes included.

A covering part runs always: each method and each topology. The whole product is the slow suite, a few minutes:
`pytest -m slow tests/runtime/test_equality.py`.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.errors import InputError
from fedunlearn.evaluation import Gate
from fedunlearn.lineage import Request
from fedunlearn.methods import METHODS, FIUn, Method, make
from fedunlearn.runtime import Backend, Family, InProcess, unlearn
from fedunlearn.scenario import find_topology, load, train, workers
from tests.conftest import ROOT, snapshot
from tests.runtime.grids import over_grid

TOPOLOGIES = sorted(path.stem for path in (ROOT / "topologies").glob("*.yaml"))
MENU: dict[str, Method | str] = {name: name for name in METHODS} | {"fiun-last": FIUn(layers="last")}
NOWHERE = {name for name in METHODS if make(name).needs}
PAIRS = [(topology, method) for topology in TOPOLOGIES for method in MENU]
COVERING = {(TOPOLOGIES[i % len(TOPOLOGIES)], method) for i, method in enumerate(MENU)}
SOME = [pair if pair in COVERING else pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS]


@pytest.fixture(scope="module")
def families(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Trained once each."""
    made = {"hospitals": trained}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "family"
            train(load(find_topology(name)), made[name])
        return made[name]

    return of


def outcome(
    folder: Path, request: Request, method: Method | str, backend: Callable[[Family], Backend], gate: Gate | None = None
) -> dict[str, Any]:
    """What comes of a request, or what is said; and what homes hold but for mirrors, which hash the ledger and so its times."""
    family, found = Family.open(folder), dict[str, Any]()
    before, over = dict(family.heads), backend(family)
    try:
        record = unlearn(family, request, method, over, gate)
        found |= {"facts": record.facts, "traffic": record.cost.get("traffic", {})}
    except InputError as error:
        found["says"] = str(error)
    homes = snapshot(folder / "homes")
    changed = Family.open(folder).heads != before
    return found | {"changed": changed, "homes": {p: d for p, d in homes.items() if not p.endswith("place.json")}}


@pytest.mark.parametrize(("topology", "name"), SOME)
def test_the_grid_gives_what_this_process_gives(
    topology: str, name: str, families: Callable[[str], Path], tmp_path: Path
) -> None:
    scenario, trained = load(find_topology(topology)), families(topology)
    (asked,) = scenario.requests.values()
    request = Request(classes=tuple(asked.classes))
    here, there = (
        outcome(Path(shutil.copytree(trained, tmp_path / str(i))), request, MENU[name], way)
        for i, way in enumerate((lambda f: InProcess(workers(scenario, f)), lambda f: over_grid(scenario, f)))
    )
    assert here.pop("traffic", {}) == {}
    traffic = there.pop("traffic", {})
    assert here == there
    assert ("says" in here) == (name in NOWHERE)
    if name in NOWHERE:
        assert not here["changed"]
        return
    assert any(m["version_after"] != m["version_before"] for m in here["facts"]["models"])
    assert traffic
    assert set(traffic) <= set(scenario.places)
    assert all(t["up"] and t["down"] for t in traffic.values())
