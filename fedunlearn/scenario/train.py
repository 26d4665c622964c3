"""Train a scenario's family: every model in order of depth, the lineage as it happens, one ledger line at the end."""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from blake3 import blake3
from torch import nn

from fedunlearn.data import Exclusions, Selection, SiteData
from fedunlearn.errors import InputError, unknown
from fedunlearn.lineage import Lineage, Model, Request, ordered
from fedunlearn.nets import head_of, weights_of
from fedunlearn.runtime import Family, InProcess, in_force, settle
from fedunlearn.scenario.build import SHARD, check_samples, device_of, net_maker, open_site_data
from fedunlearn.scenario.build import workers as make_workers
from fedunlearn.scenario.files import head_source
from fedunlearn.scenario.schema import Distributed, Federated, Scenario, Transfer
from fedunlearn.store import write_atomically
from fedunlearn.tensors import Tensors, average
from fedunlearn.training import Born, Portion, Recipe, distributed, federated, incremental, seed_of, transfer

Progress = Callable[[str], None]


def train(
    scenario: Scenario, folder: Path, *, without: Request | Sequence[Request] = (), progress: Progress = lambda _: None
) -> Family:
    """Train every model of a scenario and keep the family in a folder.

    Args:
        scenario: what to train.
        folder: where to keep it; must not hold a family yet.
        without: train as if this data had never been there (after `since`): the retrained reference. A model for which no
            row is left then stays what it started from.
        progress: told, in words, what is being done.

    Returns:
        The family.

    Raises:
        InputError: the folder holds a family already, or the scenario cannot be trained; nothing is written then.
    """
    family = Family(folder)
    if family.ledger.lines:
        raise InputError(f"{folder}: holds a family already; choose another folder (--out)")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; choose a folder (--out)")
    if folder.exists() and any(folder.iterdir()) and not (folder / "scenario.yaml").exists():
        raise InputError(f"{folder}: is not empty and not ours; choose another folder (--out)")
    data = open_site_data(scenario, folder / "homes")
    requests = (without,) if isinstance(without, Request) else tuple(without)
    school = _School(scenario, data, net_maker(scenario, data), requests)
    school.check()
    models: list[Model] = []
    weights: dict[str, Tensors] = {}
    heads: dict[str, str] = {}
    write_atomically(folder / "scenario.yaml", _yaml(scenario))
    order = ordered(scenario.parents)
    started = time.perf_counter()
    for number, name in enumerate(order, 1):
        progress(f"training {name} ({scenario.models[name].born}, {number} of {len(order)})")
        for child in school.births(name, [weights[p] for p in scenario.models[name].source]):
            models.append(child.model)
            if child.model.kept:
                weights[name] = child.weights
                head = head_of(school.make(len(child.model.head), 0), child.model.head)
                heads[name] = family.store(child.model.home).write(child.weights, head)
    seconds = time.perf_counter() - started
    trained = sum(
        scenario.models[m.name.split("/", 1)[0]].settings[0] * n for m in models for s in m.data for n in s.rows.values()
    )
    tests = {p: d.held_out["test"].counts() for p, d in data.items() if "test" in d.held_out}
    family.write_lineage(Lineage(tuple(models), {p: tuple(counts) for p, counts in tests.items()}))
    body = {
        "heads": heads,
        "scenario": scenario.name,
        "seed": scenario.seed,
        "without": [r.to_json() for r in requests],
        "rows_per_second": round(trained / seconds, 1),
    }
    family.ledger.append("trained", body)
    settle(family, InProcess(make_workers(scenario, family)))
    return family


def reference(family: Family, scenario: Scenario, request: Request, progress: Progress = lambda _: None) -> Family:
    """The family as it would be without the data of a request and of those in force: retrained once, kept beside it.

    Args:
        family: the family.
        scenario: what it was trained from.
        request: what is left out.
        progress: told, in words, what is being done.

    Raises:
        InputError: the request names something that is not there; nothing is trained then.
    """
    request.check(family.lineage)
    if request.samples:
        check_samples(open_site_data(scenario, family.folder / "homes"), request)
    requests = tuple(dict.fromkeys((*in_force(family), request)))
    asked = sorted(json.dumps([r.classes, r.samples, r.sites, r.since]) for r in requests)
    folder = family.folder / "reference" / blake3(_yaml(scenario) + json.dumps(asked).encode()).hexdigest(16)
    kept = Family(folder)
    if kept.ledger.lines:
        return kept
    if folder.exists():
        shutil.rmtree(folder)  # its training was cut off; nothing in it is anybody's only copy
    progress(f"retraining the family without {', '.join(r.words() for r in requests)}, to compare with")
    return train(scenario, folder, without=requests, progress=progress)


@dataclass(frozen=True)
class _School:
    """Brings up one model after another."""

    scenario: Scenario
    data: Mapping[str, SiteData]
    make: Callable[[int, int], nn.Module]
    without: tuple[Request, ...]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """What the data names."""
        return next(d.shards[SHARD].classes for d in self.data.values() if d.shards)

    def head(self, name: str) -> tuple[str, ...]:
        """Names of a model's outputs: those of the nearest transfer above it, else all classes."""
        source = head_source(self.scenario, name)
        spec = self.scenario.models[source] if source else None
        return spec.head if isinstance(spec, Transfer) else self.classes

    def check(self) -> None:
        """Find out before the first model is trained what would stop the last.

        Raises:
            InputError: a head names an unknown class, or a model has no row to train on.
        """
        for name, spec in self.scenario.models.items():
            for c in self.head(name):
                if c not in self.classes:
                    raise unknown("class", c, self.classes, where=f"models.{name}.head")
            rows = sum(len(self.data[s].training(SHARD, self.head(name))) for s in spec.sites)
            if not rows and not self.without:
                raise InputError(f"models.{name}: none of its sites ({', '.join(spec.sites)}) holds a row to train on")

    def births(self, name: str, parents: list[Tensors]) -> Iterable[Born]:
        """A model and, in a federation, all those on the way to it; the last is the one that is kept."""
        spec, head = self.scenario.models[name], self.head(name)
        seed = seed_of(self.scenario.seed, name)
        epochs, lr = spec.settings
        recipe = Recipe(name, spec.place, spec.source, head, epochs, lr, spec.batch, seed, device_of())
        portions = {site: [self._portion(name, site, head)] for site in spec.sites}

        def make() -> nn.Module:
            return self.make(len(head), seed)

        if isinstance(spec, Transfer):  # parents share a body; their heads are replaced
            body = head_of(make(), head).names
            parents = [{n: t for n, t in p.items() if n not in body} for p in parents]
        start = average(parents) if parents else weights_of(make())
        if isinstance(spec, Federated):
            yield from federated(recipe, make, start, portions, spec.rounds)
        elif isinstance(spec, Distributed):
            yield distributed(recipe, make, start, portions)
        elif isinstance(spec, Transfer):
            yield transfer(recipe, make, start, portions[spec.site])
        else:
            yield incremental(recipe, make, start, portions[spec.site])

    def _portion(self, name: str, site: str, head: tuple[str, ...]) -> Portion:
        held, by_request = self.data[site], dict(self.data[site].exclusions.by_request)
        for request in self.without:
            left_out = self._left_out(request, name, site)
            if left_out is not None:
                by_request[f"without {request.id}"] = left_out
        excluded = Exclusions(by_request)
        rows = replace(held, excluded=lambda: excluded).training(SHARD)
        return Portion(site, SHARD, rows.for_head(head), excluded)

    def _left_out(self, request: Request, name: str, site: str) -> Selection | None:
        order = ordered(self.scenario.parents)
        if request.since is not None and order.index(name) <= order.index(request.since):
            return None
        if request.samples:
            here = tuple(s.split("/", 1)[1] for s in request.samples if s.split("/", 1)[0] == site)
            return Selection(samples=here) if here else None
        return Selection(classes=request.classes) if not request.sites or site in request.sites else None


def _yaml(scenario: Scenario) -> bytes:
    """A scenario as a file that reads back equal; JSON is YAML."""
    return (json.dumps(scenario.model_dump(by_alias=True, mode="json"), indent=1) + "\n").encode()
