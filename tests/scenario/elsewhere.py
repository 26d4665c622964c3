"""Sites with rows, stores and nets of their own, in this process or behind a grid, and all that they can train."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fedunlearn.data import MIRROR, Exclusions, SiteData, held_out, open_rows, open_site
from fedunlearn.nets import build
from fedunlearn.runtime import Backend, Family, InProcess, Worker
from fedunlearn.runtime.flower import Flower, client_app
from fedunlearn.runtime.tasks import Answer, Task
from fedunlearn.scenario import Scenario, train_afar, workers_here
from fedunlearn.scenario.files import parse
from fedunlearn.store import Store
from fedunlearn.training.flower import LocalGrid

SITES = ("north", "south", "east")
NET = {"name": "mlp", "hidden": 8, "norm": True}
MODELS: dict[str, Any] = {
    "shared": {"born": "federated", "clients": ["north", "south", "east"], "rounds": 2, "keep": "all"},
    "next": {"born": "federated", "from": ["shared"], "clients": ["north", "east"], "rounds": 2, "strategy": "fedadam"},
    "later": {"born": "federated", "from": ["next"], "clients": ["south"], "strategy": "fedadam"},
    "eastern": {"born": "incremental", "from": ["shared"], "site": "east", "schedule": "cosine"},
    "few": {"born": "incremental", "site": "north", "head": ["0", "1", "2"], "net": "wide", "batch": 8},
    "more": {"born": "incremental", "from": ["few"], "site": "north", "adds": ["3"], "classes": ["3"]},
    "moved": {"born": "incremental", "from": ["more"], "site": "south", "adds": ["4", "5"]},
    "both": {"born": "incremental", "from": ["eastern", "later"], "site": "east", "home": "server"},
    "triage": {"born": "transfer", "from": ["eastern", "shared"], "site": "south", "head": ["6", "2"]},
    "tuned": {"born": "transfer", "from": ["both"], "site": "east", "head": ["1", "0"], "layers": "all", "home": "server"},
    "merged": {"born": "federated", "from": ["eastern", "both"], "clients": ["south", "east"], "keep": "all"},
}


def load_site(site: str) -> tuple[Any, Any, Sequence[str], Sequence[str]]:
    """Every site's third of the digits; east has no zeros."""
    rows = open_rows("digits")
    mine = [i for i in range(SITES.index(site), len(rows), len(SITES)) if site != "east" or rows.y[i]][:240]
    some = rows.take(mine)
    return some.x.numpy(), some.y.numpy(), some.classes, some.keys


def scenario_of(models: dict[str, Any], **data: Any) -> Scenario:
    named = {n: {**({"epochs": 1} if "born" in m else {}), **m} for n, m in models.items()}
    plain = {"name": "elsewhere", "data": data, "net": NET, "nets": {"wide": {"name": "mlp", "hidden": 12}}, "models": named}
    return parse(deepcopy(plain), "here")


def at_hand(models: dict[str, Any]) -> Scenario:
    return scenario_of(models, factory="tests.scenario.elsewhere:load_site")


def elsewhere(models: dict[str, Any], **data: Any) -> Scenario:
    return scenario_of(models, sites="own", **data)


def site_worker(scenario: Scenario, folder: Path, site: str) -> Worker:
    """As a site makes it: of its own rows, its own store and its own nets."""
    store = Store(folder / site)
    rows, calibration, test = held_out(open_site("tests.scenario.elsewhere:load_site", site), 0.2, 0.3, 7)
    held = {"calibration": calibration, "test": test}
    data = SiteData(site, {"main": rows}, held, partial(Exclusions.read, store.folder / MIRROR))
    specs = {"": scenario.net, **scenario.nets}
    return Worker(site, store, data, lambda outputs, net, seed=0: build(specs[net], (8, 8), outputs, seed))


def sites_of(scenario: Scenario, folder: Path) -> dict[str, Worker]:
    return {site: site_worker(scenario, folder, site) for site in scenario.sites}


class Counting(InProcess):
    """Counts what would be messages, and may answer something else."""

    def __init__(self, held: dict[str, Worker], alter: Callable[[Task, Answer], Answer] = lambda _, answer: answer) -> None:
        super().__init__(held)
        self.carried: list[list[Task]] = []
        self.alter = alter

    def carry(self, tasks: Sequence[Task]) -> list[Answer]:
        self.carried.append(list(tasks))
        return [self.alter(t, a) for t, a in zip(tasks, super().carry(tasks), strict=True)]


def in_process(scenario: Scenario, folder: Path) -> Backend:
    return InProcess(sites_of(scenario, folder))


def over_grid(scenario: Scenario, folder: Path) -> Backend:
    held = sites_of(scenario, folder)
    app = client_app(lambda context: held[str(context.node_config["site"])])
    return Flower(LocalGrid(app, {i: {"site": s} for i, s in enumerate(held, 1)}), deadline=60, join=0)


WAYS = {"in-process": in_process, "flower": over_grid}


def load_test(_: str) -> tuple[Any, Any]:
    rows = open_rows("digits")
    return rows.x[-200:].numpy(), rows.y[-200:].numpy()


def load_letters(_: str) -> tuple[Any, Any, Sequence[str]]:
    return torch.rand(8, 8, 8).numpy(), torch.arange(8).numpy() % 2, ("a", "0")


def afar(scenario: Scenario, folder: Path, backend: Backend, **more: Any) -> Family:
    return train_afar(scenario, folder, backend, workers_here(scenario, Family(folder)), **more)
