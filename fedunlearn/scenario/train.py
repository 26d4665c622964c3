"""Train a scenario's family: every model in order of depth, the lineage as it happens, one ledger line at the end."""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3

from fedunlearn.errors import InputError
from fedunlearn.lineage import Lineage, Model, Request, ordered
from fedunlearn.nets import head_of
from fedunlearn.runtime import Family, InProcess, in_force, settle
from fedunlearn.scenario.build import check_samples, net_maker, open_data, open_site_data
from fedunlearn.scenario.build import workers as make_workers
from fedunlearn.scenario.files import of_family, parse
from fedunlearn.scenario.schema import Imported, Scenario
from fedunlearn.scenario.school import Given, School
from fedunlearn.store import write_atomically
from fedunlearn.training import Born, federated

Progress = Callable[[str], None]
BACKENDS = ("in-process", "flower")


def train(
    scenario: Scenario,
    folder: Path,
    *,
    without: Request | Sequence[Request] = (),
    backend: str = "in-process",
    progress: Progress = lambda _: None,
) -> Family:
    """Train every model of a scenario and keep the family in a folder.

    Args:
        scenario: what to train.
        folder: where to keep it; must not hold a family yet.
        without: train as if this data had never been there (after `since`): the retrained reference. A model for which no
            row is left then stays what it started from.
        backend: who runs federations: "in-process", or "flower" (its strategies, its messages, its ClientApp).
        progress: told, in words, what is being done.

    Returns:
        The family.

    Raises:
        InputError: the folder holds a family already, or the scenario cannot be trained; nothing is written then.
        TrainingError: a client or a rank died, or a strategy gave nothing; no family is there then.
    """
    family = Family(folder)
    if family.ledger.lines:
        raise InputError(f"{folder}: holds a family already; choose another folder (--out), or extend it (fedunlearn extend)")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; choose a folder (--out)")
    if folder.exists() and any(folder.iterdir()) and not (folder / "scenario.yaml").exists():
        raise InputError(f"{folder}: is not empty and not ours; choose another folder (--out)")
    requests = (without,) if isinstance(without, Request) else tuple(without)
    school = _school(scenario, folder, requests, backend)
    order = ordered(scenario.parents)
    school.check(order)
    write_atomically(folder / "scenario.yaml", _yaml(scenario))
    _bring_up(family, school, order, _Brood(), progress, {"scenario": scenario.name, "seed": scenario.seed})
    return family


def extend(
    family: Family,
    more: Mapping[str, Any],
    where: str,
    *,
    backend: str = "in-process",
    progress: Progress = lambda _: None,
) -> Family:
    """Train further models onto a family: further rounds, increments, transfers, from the versions that are current now.

    What committed requests have excluded is not trained on again. What training carries along (moments of a server's
    optimiser, replayed rows, anchors) is resumed only with the very version it belongs to, otherwise built anew; the ledger
    says which.

    Args:
        family: the family; its scenario grows by the new models.
        more: `models` (and, where new ones are needed, `nets` and `requests`) as in a topology; parents may be the
            family's.
        where: the file, to say in errors.
        backend: who runs federations.
        progress: told, in words, what is being done.

    Returns:
        The family, opened anew.

    Raises:
        InputError: a model is there already, or cannot be trained; nothing is written then.
        TrainingError: a client or a rank died, or a strategy gave nothing; the family stays as it was.
    """
    if not isinstance(more, Mapping) or not all(isinstance(v, Mapping | None) for v in more.values()):
        raise InputError(f"{where}: expected a mapping with models, found {type(more).__name__}")
    old = of_family(family)
    plain = old.model_dump(by_alias=True, mode="json")
    for key in more:
        if key not in ("models", "nets", "requests"):
            raise InputError(f"{where}: {key}: an extension names models, nets and requests; the rest is the family's")
        there = sorted(set(more[key] or {}) & set(plain[key]))
        if there:
            raise InputError(f"{where}: {key}.{there[0]}: the family has one already; choose another name")
        plain[key] = {**plain[key], **(more[key] or {})}
    scenario = parse(plain, where)
    for name, spec in scenario.sets.items():
        new = [s for s in scenario.sites_of(name) if spec.set is not None and s not in old.sites_of(name)]
        if new:
            known = ", ".join(old.sites_of(name)) or "none"
            raise InputError(f"{where}: site {new[0]!r}: all rows of {spec.set} are dealt; sites that hold some: {known}")
    school = _school(scenario, family.folder, (), backend)
    order = tuple(n for n in ordered(scenario.parents) if n not in old.models)
    if not order:
        raise InputError(f"{where}: names no new model")
    school.check(order)
    lineage = family.lineage
    brood = _Brood(list(lineage.models))
    for name in {p for n in order for p in scenario.models[n].source if p in lineage.by_name}:
        version = family.store(lineage[name].home).read(family.heads[name])
        state = family.store(lineage[name].home).read_state(version.name)
        brood.given[name] = Given(version.weights, version.head, version.name, state)
    write_atomically(family.folder / "scenario.yaml", _yaml(scenario))
    _bring_up(family, school, order, brood, progress, {"scenario": scenario.name, "seed": scenario.seed})
    return Family.open(family.folder)


@dataclass
class _Brood:
    """What is there so far: models in order of time, and what later ones may start from."""

    models: list[Model] = field(default_factory=list)
    given: dict[str, Given] = field(default_factory=dict)


def _school(scenario: Scenario, folder: Path, without: tuple[Request, ...], backend: str) -> School:
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r}: expected {' or '.join(BACKENDS)}")
    federate: Callable[..., Any] = federated
    if backend == "flower":
        from fedunlearn.training.flower import federated_flower  # an extra: asked for only here

        federate = federated_flower
    opened = open_data(scenario, folder / "homes")
    return School(scenario, opened.places, opened.classes, net_maker(scenario, opened.places), without, federate)


def _bring_up(
    family: Family, school: School, order: Sequence[str], brood: _Brood, progress: Progress, said: Mapping[str, Any]
) -> None:
    """Train models one after another; the ledger line at the end is what makes them part of the family."""
    scenario, started = school.scenario, time.perf_counter()
    heads: dict[str, str] = {}
    carried: dict[str, list[str]] = {}
    first = len(brood.models)
    for number, name in enumerate(order, 1):
        progress(f"training {name} ({scenario.models[name].born}, {number} of {len(order)})")
        parents = [brood.given[p] for p in scenario.models[name].source]
        if words := school.carried(name, parents):
            carried[name] = words
        for child in school.births(name, parents, brood.models):
            brood.models.append(child.model)
            if child.model.name != name and not child.model.data:
                progress(f"training {name}: {child.model.name} is there")
            if child.model.kept:
                brood.given[child.model.name] = _keep(family, school, child)
                heads[child.model.name] = brood.given[child.model.name].version
    seconds = time.perf_counter() - started
    tests = {p: tuple(d.held_out["test"].counts()) for p, d in school.data.items() if "test" in d.held_out}
    family.write_lineage(Lineage(tuple(brood.models), tests))
    body = {
        **said,
        "heads": heads,
        "models": len(brood.models),
        "carried": carried,
        "without": [r.to_json() for r in school.without],
        "rows_per_second": round(_rows_trained(scenario, brood.models[first:]) / seconds, 1),
    }
    family.ledger.append("trained", body)
    fresh = Family(family.folder)
    settle(fresh, InProcess(make_workers(scenario, fresh)))


def _keep(family: Family, school: School, child: Born) -> Given:
    model = child.model
    head = head_of(school.make(len(model.head), model.net, 0), model.head)
    store = family.store(model.home)
    version = store.write(child.weights, head, model.net)
    if child.state:
        store.write_state(version, child.state)
    return Given(child.weights, head, version, child.state)


def _rows_trained(scenario: Scenario, models: Sequence[Model]) -> int:
    epochs = {n: s.settings[0] for n, s in scenario.models.items() if not isinstance(s, Imported)}
    return sum(epochs.get(m.name.split("/", 1)[0], 0) * n for m in models for s in m.data for n in s.rows.values())


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
    imported = [n for n, m in scenario.models.items() if isinstance(m, Imported)]
    if imported:
        raise InputError(f"{', '.join(imported[:5])}: imported; without its recipe it cannot be retrained (--no-reference)")
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


def _yaml(scenario: Scenario) -> bytes:
    """A scenario as a file that reads back equal; JSON is YAML."""
    return (json.dumps(scenario.model_dump(by_alias=True, mode="json"), indent=1) + "\n").encode()
