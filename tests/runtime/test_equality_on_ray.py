"""Ray and Flower's simulation give what this process gives: three methods on three topologies each.

`pytest -m slow tests/runtime/test_equality_on_ray.py`, a few minutes; most of it is processes that start.
"""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedunlearn.lineage import Request
from fedunlearn.runtime import Backend, Family, InProcess, Record, Worker, unlearn
from fedunlearn.runtime.flower import Flower, client_app
from fedunlearn.runtime.ray import Ray
from fedunlearn.scenario import find_topology, load, train, workers
from fedunlearn.scenario.places import open_worker
from tests.conftest import snapshot
from tests.runtime.actors import DEADLINE, QUIETLY, in_a_network_of_its_own, outside, ray_here
from tests.runtime.unreliable import Unreliable, lend

pytestmark = [
    pytest.mark.slow,
    *QUIETLY,
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),  # run_simulation itself: there is no other way in one process
    pytest.mark.filterwarnings("ignore:.*:FutureWarning:ray"),
]
TOPOLOGIES = ("hospitals", "increments", "transfers")
METHODS = ("steer", "lfssd", "activation_mask")


@pytest.fixture(scope="module", params=TOPOLOGIES)
def trained_one(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "family"
    train(load(find_topology(request.param)), folder)
    return folder


def all_methods(
    trained: Path, folder: Path, over: Callable[[Family], Backend]
) -> Iterator[tuple[str, dict[str, Any], dict[str, bytes]]]:
    """Facts, and what homes hold but for their mirrors, of every method on the family as it was trained."""
    scenario = load(find_topology(trained.parent.name.rstrip("0123456789")))
    (asked,) = scenario.requests.values()
    for method in METHODS:
        if folder.exists():
            shutil.rmtree(folder)
        lend(trained, folder)
        family = Family.open(folder)
        record: Record = unlearn(family, Request(classes=tuple(asked.classes)), method, over(family))
        assert not record.nothing
        homes = snapshot(folder / "homes")
        yield method, record.facts, {p: d for p, d in homes.items() if not p.endswith("place.json")}


def in_process(trained: Path, folder: Path) -> list[tuple[str, dict[str, Any], dict[str, bytes]]]:
    scenario = load(find_topology(trained.parent.name.rstrip("0123456789")))
    return list(all_methods(trained, folder, lambda f: InProcess(workers(scenario, f))))


@ray_here
def test_actors(trained_one: Path, tmp_path: Path) -> None:
    folder = tmp_path / "away" / "family"
    sites = {place: partial(Unreliable, folder, place) for place in Family.open(trained_one).places}
    with Ray(sites, num_cpus=2, deadline=DEADLINE) as backend:  # type: ignore[arg-type]
        there = list(all_methods(trained_one, folder, lambda _: backend))
    assert there == in_process(trained_one, tmp_path / "here" / "family")


@ray_here
def test_flowers_simulation(trained_one: Path, tmp_path: Path) -> None:
    from flwr.simulation import run_simulation

    folder, server, found = tmp_path / "away" / "family", ServerApp(), list[Any]()
    places = Family.open(trained_one).places

    def worker_of(context: Context) -> Worker:
        return open_worker(str(folder), places[int(context.node_config["partition-id"])])

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        found.extend(all_methods(trained_one, folder, lambda _: Flower(grid, deadline=DEADLINE, join=DEADLINE)))

    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": 2}}
    run_simulation(server, client_app(worker_of), len(places), backend_config=resources)  # type: ignore[arg-type]
    assert found == in_process(trained_one, tmp_path / "here" / "family")


@outside
def test_in_a_network_of_its_own() -> None:
    in_a_network_of_its_own(__file__)
