"""Train a scenario's family on rows that are open here; train further models onto it; retrain any family without some data."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from fedunlearn.data.register import FOLDER as REGISTERS
from fedunlearn.errors import InputError, StoreError
from fedunlearn.lineage import Model, Request, ordered
from fedunlearn.runtime import Family, InProcess, behind, excluded, settle
from fedunlearn.runtime.backend import Progress
from fedunlearn.runtime.books.line_bodies import request_in
from fedunlearn.runtime.books.yardstick import FOLDER as REFERENCES, forged, key_of, other, unsigned
from fedunlearn.runtime.settle import exclusions, in_force
from fedunlearn.scenario.build import check_samples
from fedunlearn.scenario.files import of_family, parse
from fedunlearn.scenario.schema import Imported, Scenario
from fedunlearn.scenario.specs import Given
from fedunlearn.scenario.trainer import SoFar, amend, as_yaml, free, train_in_order
from fedunlearn.scenario.trainer_here import Federate, TrainerHere
from fedunlearn.scenario.workers import workers
from fedunlearn.scenario.workers_here import workers_here
from fedunlearn.store.signing import KEY
from fedunlearn.training import federated

BACKENDS = ("in-process", "flower")


def train(
    scenario: Scenario,
    folder: Path | str,
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
    family = free(folder)
    requests = (without,) if isinstance(without, Request) else tuple(without)
    train_in_order(TrainerHere.of(scenario, family, requests, _federate(backend)), ordered(scenario.parents), SoFar(), progress)
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
        more: `models` as in a topology, parents may be the family's; `nets`, `requests`, and limits under `gate`, which
            take the place of the family's; and a `reason`, which goes to the ledger. Without a model nothing is trained, and
            the rest counts from then on.
        where: the file, to say in errors.
        backend: who runs federations.
        progress: told, in words, what is being done.

    Returns:
        The family, opened anew.

    Raises:
        InputError: a model is there already, or cannot be trained; nothing is written then.
        TrainingError: a client or a rank died, or a strategy gave nothing; the family stays as it was.
    """
    old = of_family(family)
    scenario, order = grown(old, more, where)
    if scenario.own and not order:
        return amend(family, scenario, InProcess(workers_here(scenario, family)), more.get("reason"))
    refuse_departed(family, scenario, order, where)
    for name, spec in scenario.sets.items():
        new = [s for s in scenario.sites_of(name) if spec.set is not None and s not in old.sites_of(name)]
        if new:
            known = ", ".join(old.sites_of(name)) or "none"
            raise InputError(f"{where}: site {new[0]!r}: all rows of {spec.set} are dealt; sites that hold some: {known}")
    if exclusions(family) or behind(family):  # a place trains on what it was not told to leave out, or has lost word of
        settle(family, InProcess(workers(scenario, family)), joining=joining(family, scenario), otherwise=UNTRAINED)
    trainer = TrainerHere.of(scenario, family, (), _federate(backend))
    so_far = SoFar(list(family.whole_lineage.models))
    heads = family.heads
    for model in started_from(family, scenario, order):
        version = family.store(model.home).read(heads[model.name])
        state = family.store(model.home).read_state(version.name)
        so_far.given[model.name] = Given(version.weights, version.head, version.name, state)
    train_in_order(trainer, order, so_far, progress, reason=more.get("reason"))
    return Family.open(family.folder)


def grown(old: Scenario, more: Mapping[str, Any], where: str) -> tuple[Scenario, tuple[str, ...]]:
    """A scenario with further models, requests or other limits, and which models are new, parents first.

    Args:
        old: the family's scenario.
        more: what is added; see `extend`.
        where: the file, to say in errors.

    Raises:
        InputError: something else is added than models, nets, requests and a gate, is there already, or is wrong.
    """
    if not isinstance(more, Mapping) or not all(isinstance(v, Mapping | None) for k, v in more.items() if k != "reason"):
        raise InputError(f"{where}: expected a mapping with models, found {type(more).__name__}")
    if not isinstance(more.get("reason"), str | None):
        raise InputError(f"{where}: reason is {more['reason']!r}, expected words")
    plain = old.model_dump(by_alias=True, mode="json")
    gate = more.get("gate") or {}
    for key in more.keys() - {"gate", "reason"}:
        if key not in ("models", "nets", "requests"):
            raise InputError(
                f"{where}: {key}: an extension names models, nets, requests, gate and a reason; the rest is the family's"
            )
        there = sorted(set(more[key] or {}) & set(plain[key]))
        if there:
            raise InputError(f"{where}: {key}.{there[0]}: the family has one already; choose another name")
        plain[key] = {**plain[key], **{name: _beside(spec, where) for name, spec in (more[key] or {}).items()}}
    scenario = parse(plain | {"gate": {**plain["gate"], **gate}}, where)
    order = tuple(n for n in ordered(scenario.parents) if n not in old.models)
    if scenario == old:
        raise InputError(f"{where}: adds nothing: it names no new model, no new request, and no other limits than the family's")
    return scenario, order


def _beside(spec: Any, where: str) -> Any:
    """What is added, with the path of a file that lies beside the extension; others lie beside the topology."""
    file = spec.get("file") if isinstance(spec, Mapping) else None
    there = Path(where).parent / file if isinstance(file, str) else None
    return {**spec, "file": str(there.resolve())} if there and there.exists() else spec


def started_from(family: Family, scenario: Scenario, order: Sequence[str]) -> list[Model]:
    """The family's models that new ones start from."""
    parents = {p: None for name in order for p in scenario.models[name].source}
    return [model for name in parents if (model := family.lineage.by_name.get(name))]


UNTRAINED = "nothing was trained: every place must know first what the ledger says may not be trained on"


def joining(family: Family, scenario: Scenario) -> tuple[str, ...]:
    """Sites of a scenario that has grown that were no part of the family before."""
    return tuple(s for s in scenario.sites if s not in family.places and s not in family.departed)


def refuse_departed(family: Family, scenario: Scenario, order: Sequence[str], where: str) -> None:
    """Refuse to train at a place that is gone for good, or from a model that was lost with one.

    Args:
        family: the family.
        scenario: its scenario, grown.
        order: the models that are new.
        where: the file, to say in errors.

    Raises:
        InputError: says which, and since when.
    """
    for (place, line), name in product(family.departed.items(), order):
        spec, at = scenario.models[name], f"{where}: models.{name}"
        told = f"place {place!r} departed on {line.time[:10]} (ledger line {line.number})"
        if place in (*spec.sites, spec.place):
            raise InputError(f"{at}: {told}; name a place that is there, or a new one")
        if lost := [p for p in spec.source if p in family.lost and family.whole_lineage[p].home == place]:
            raise InputError(f"{at}.from: {lost[0]!r} is lost: {told}; start from {' or '.join(family.heads)}")


def _federate(backend: str) -> Federate:
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r}: expected {' or '.join(BACKENDS)}")
    if backend == "flower":
        from fedunlearn.training.flower import federated_flower  # an extra: asked for only here

        return federated_flower
    return federated


def imported_in(scenario: Scenario) -> list[str]:
    """Models that came with their weights."""
    return [n for n, m in scenario.models.items() if isinstance(m, Imported)]


def check_retrainable(scenario: Scenario) -> None:
    """Refuse to retrain what came with its weights.

    Raises:
        InputError: says which models did.
    """
    if imported := imported_in(scenario):
        raise InputError(f"{', '.join(imported[:5])}: imported; without its recipe it cannot be retrained (--no-reference)")


def reference(
    family: Family,
    scenario: Scenario,
    request: Request,
    progress: Progress = lambda _: None,
    *,
    retrain: Callable[..., Family] = train,
    before: int | None = None,
    as_then: bool = False,
) -> Family:
    """The family as it would be without the data of a request and all that is excluded: retrained once, kept beside it.

    Args:
        family: the family.
        scenario: what it was trained from.
        request: what is left out.
        progress: told, in words, what is being done.
        retrain: called as `train` is, with scenario, folder, `without` and `progress`; `train_afar` where sites are elsewhere.
        before: a ledger line's number; what was in force just before it counts, and what has been excluded since is left out,
            too, as nothing may be trained on it. By default, now.
        as_then: take the one that is kept from then instead, which was trained on that (see `kept_from`).

    Raises:
        InputError: the request names something that is not there; nothing is trained then.
        StoreError: what is kept is not what a ledger line was judged by, or not signed as the family's lines are; or a register
            is not what the ledger recorded.
    """
    request.check(family.lineage)
    check_retrainable(scenario)
    check_samples(scenario, family.folder, request, gone=True)
    now, standing = excluded(family), in_force(family)
    requests = _once(*excluded(family, before), *(() if as_then else now), request)
    rolled_back = [request_in(family.ledger.lines[n]) for n in family.ledger.undone]
    for undone in (r for r in now if r in rolled_back and r not in standing):
        progress(
            f"{undone.id} was rolled back, but sites may still not train on {undone.words()}: nor is what is compared with "
            f"(to allow it: fedunlearn rollback --lift-exclusion)"
        )
    folder = family.folder / REFERENCES / key_of(as_yaml(scenario), requests)
    kept = Family(folder)
    if kept.ledger.lines:
        if words := forged(family, kept):
            raise StoreError(words)
        return _told(family, kept, progress)
    if folder.exists():
        shutil.rmtree(folder)  # its training was cut off; nothing in it is anybody's only copy
    family.check_registers()
    if (registers := family.folder / REGISTERS).exists():  # so that it is dealt the rows that the family was
        shutil.copytree(registers, folder / REGISTERS)
    if family.id and retrain is not train:  # its sites are elsewhere, and know the family by it
        kept.identify(family.id)
    progress(f"retraining the family without {', '.join(r.words() for r in requests)}, to compare with")
    return _told(family, retrain(scenario, folder, without=requests, progress=progress), progress)


def kept_from(family: Family, scenario: Scenario, request: Request, before: int) -> bool:
    """Whether a reference is kept that lacks what was excluded before a ledger line, and a request, and nothing more."""
    folder = family.folder / REFERENCES / key_of(as_yaml(scenario), _once(*excluded(family, before), request))
    return bool(Family(folder).ledger.lines)


def _once(*requests: Request) -> tuple[Request, ...]:
    """What was asked twice is left out once."""
    return tuple({r.what: r for r in requests}.values())


def _told(family: Family, twin: Family, progress: Progress) -> Family:
    """Say of a reference that we trained, and use, if it is another than lines were judged by, or cannot be told again."""
    if words := other(family, twin):
        progress(f"what is compared with was trained anew, on another machine or with other libraries: {words}")
    if unsigned(family, twin):
        progress(
            f"{twin.folder}: the family's ledger is signed, and no key is configured here ({KEY}): what is compared with is "
            f"taken this once, and not out of its folder"
        )
    return twin
