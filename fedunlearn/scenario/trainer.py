"""Training a family, wherever its rows are: models in order of depth, the lineage as it happens, one ledger line at the end."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from fedunlearn.data.register import FOLDER as REGISTERS
from fedunlearn.errors import InputError, check_names
from fedunlearn.lineage import Lineage, Model
from fedunlearn.nets import head_of
from fedunlearn.runtime import Family, alone
from fedunlearn.runtime.backend import Backend, Progress
from fedunlearn.runtime.books.family import ID, NEXT, TOPOLOGY
from fedunlearn.runtime.settle import witness
from fedunlearn.runtime.tasks import Surveyed
from fedunlearn.scenario.schema import Imported, Scenario
from fedunlearn.scenario.specs import Given, Specs
from fedunlearn.store import Store, write_atomically
from fedunlearn.store.files import TEMPORARY
from fedunlearn.training import Born


@dataclass(frozen=True)
class Trainer(ABC):
    """Trains the models of a family: in this process, or at the sites.

    Args:
        family: to be trained; its folder need not be there yet.
        specs: what is trained.
        surveys: what each place could train on and test on.
    """

    family: Family
    specs: Specs
    surveys: Mapping[str, Surveyed]

    @abstractmethod
    def births(self, name: str, parents: Sequence[Given], before: Sequence[Model]) -> Iterator[Born]:
        """A model and, in a federation, all those on the way to it; the last has its name.

        Args:
            name: of the model.
            parents: what it starts from.
            before: the models born so far, in order of time.
        """

    @abstractmethod
    def store(self, place: str) -> Store:
        """The store of a place, for models that came with their weights."""

    def hold(self) -> dict[str, str]:
        """Before the models count, keep what their rows were; of each register in the family's folder a hash, by its name.

        None where sites are elsewhere: they register their rows themselves, when they train.
        """
        return {}

    def lacks(self) -> dict[str, int]:
        """Of a retrained reference: `site/shard` -> rows that it was not to leave out, and that were withheld all the same.

        Requests on other families may have excluded some where they share a site, and nobody trains on those.
        """
        return {}

    @abstractmethod
    def settle(self) -> None:
        """Have the places follow the ledger."""


@dataclass
class SoFar:
    """What is there so far: models in order of time, and what later ones may start from."""

    models: list[Model] = field(default_factory=list)
    given: dict[str, Given] = field(default_factory=dict)


def free(folder: Path | str) -> Family:
    """A family that is still to be trained.

    Raises:
        InputError: the folder holds a family, or something else.
    """
    folder = Path(folder)
    family = Family(folder)
    if family.ledger.lines:
        raise InputError(f"{folder}: holds a family already; choose another folder (--out), or extend it (fedunlearn extend)")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; choose a folder (--out)")
    begun = {f"{TOPOLOGY}{TEMPORARY}", f"{family.ledger.path.name}.lock"}  # by a training that was cut off at once
    begun |= {ID, f"{ID}{TEMPORARY}", REGISTERS}  # a reference's come from its family
    if folder.exists() and {p.name for p in folder.iterdir()} - begun and not (folder / TOPOLOGY).exists():
        raise InputError(f"{folder}: is not empty and not ours; choose another folder (--out)")
    return family


def train_in_order(
    trainer: Trainer, order: Sequence[str], so_far: SoFar, progress: Progress, reason: str | None = None
) -> None:
    """Train models one after another; the ledger line at the end is what makes them part of the family.

    Args:
        trainer: trains them.
        order: their names, parents first.
        so_far: what is there already; grows.
        progress: told, in words, what is being done.
        reason: why; goes to the ledger.

    Raises:
        InputError: a model cannot be trained, or a request names what is not there; nothing is written then.
        TrainingError: a client, a rank or a site failed, or a strategy gave nothing; the family is as it was.
    """
    trainer.specs.check(order, trainer.surveys)
    _check_requests(trainer.specs.scenario, trainer.surveys.values(), so_far.models)
    with alone(trainer.family):
        with _beside(trainer.family, trainer.specs.scenario):
            _train(trainer, order, so_far, progress, reason)
        trainer.settle()


def amend(family: Family, scenario: Scenario, here: Backend, reason: str | None = None, away: Backend | None = None) -> Family:
    """Write down further requests, or other limits, of a family whose sites are elsewhere; nobody is waited for.

    Args:
        family: the family.
        scenario: its own, with what is added.
        here: reaches the places in the family's folder.
        reason: why; goes to the ledger.
        away: reaches whoever else is there, to be asked what they know of the ledger.

    Returns:
        The family, opened anew.

    Raises:
        InputError: a request names what is not there, or the folder is a copy of a family that lives elsewhere; nothing is
            written then.
        StoreError: as `alone`.
    """
    if family.elsewhere:
        raise InputError(f"{family.folder}: is a copy of a family in a Flower federation, which grows there: --backend flower")
    _check_requests(scenario, (), family.whole_lineage.models)
    with alone(family, away):
        last = next(line.body for line in reversed(family.ledger.lines) if line.kind == "trained")
        body = {k: v for k, v in last.items() if k != "reason"}
        body |= {"heads": {}, "carried": {}, "withheld": {}, "rows_per_second": 0.0}
        body |= {"topology": _hash_of(scenario), "gate": scenario.gate.model_dump(mode="json")}
        body |= {"reason": reason} if reason else {}
        with _beside(family, scenario):
            family.ledger.append("trained", body)
        witness(family, here)
    return Family.open(family.folder)


@contextmanager
def _beside(family: Family, scenario: Scenario) -> Iterator[None]:
    """A scenario lies beside the family's until the ledger line is written, from which on it is the family's."""
    whole = family.folder / TOPOLOGY
    if family.topology != whole:
        family.topology.replace(whole)  # an extension was cut off right after its ledger line
    begun = family.folder / NEXT if family.ledger.lines else whole
    write_atomically(begun, as_yaml(scenario))
    yield
    begun.replace(whole)
    family.reread()


def _check_requests(scenario: Scenario, surveys: Iterable[Surveyed], models: Sequence[Model]) -> None:
    """Refuse requests of the scenario that could only ever be refused."""
    classes = {c for survey in surveys for of in survey.classes.values() for c in of}
    classes |= {c for m in models for s in m.data for c in s.rows} | {c for m in models for c in m.head}
    classes |= {c for m in scenario.models.values() for c in m.head}
    for name, asked in scenario.requests.items():
        check_names("class", asked.classes, classes, f"requests.{name}")
        shards = asked.request(name).shards
        check_names("site", (*asked.sites, *(s.split("/")[0] for s in shards)), scenario.sites, f"requests.{name}")
        since = (asked.since.split("/")[0],) if asked.since else ()  # or a round's model that was kept
        check_names("model", since, {*scenario.models, *(m.name for m in models)}, f"requests.{name}.since")


def _train(trainer: Trainer, order: Sequence[str], so_far: SoFar, progress: Progress, reason: str | None) -> None:
    family, specs = trainer.family, trainer.specs
    scenario = specs.scenario
    started, first = time.perf_counter(), len(so_far.models)
    heads: dict[str, str] = {}
    carried: dict[str, list[str]] = {}
    for number, name in enumerate(order, 1):
        progress(f"training {name} ({scenario.models[name].born}, {number} of {len(order)})")
        parents = [so_far.given[p] for p in scenario.models[name].source]
        if words := specs.carried(name, parents):
            carried[name] = words
        for child in trainer.births(name, parents, so_far.models):
            so_far.models.append(child.model)
            if child.model.name != name and not child.model.data:
                progress(f"training {name}: {child.model.name} is there")
            if child.model.kept:
                so_far.given[child.model.name] = _kept(trainer, child)
                heads[child.model.name] = so_far.given[child.model.name].version
    seconds = time.perf_counter() - started
    tests = {place: tuple(s.tests) for place, s in trainer.surveys.items() if s.tests}
    if family.departed:  # whom nobody can ask any more
        tests |= {p: classes for p, classes in family.whole_lineage.tests.items() if p in family.departed}
    lineage = family.write_lineage(Lineage(tuple(so_far.models), tests))
    body = {
        "scenario": scenario.name,
        "seed": scenario.seed,
        "heads": heads,
        "models": len(so_far.models),
        "lineage": lineage,
        "topology": _hash_of(scenario),
        "gate": scenario.gate.model_dump(mode="json"),
        "carried": carried,
        "without": [r.to_json() for r in specs.without],
        "shape": next((list(s.shape) for s in trainer.surveys.values() if s.shape), []),
        "withheld": {f"{p}/{name}": n for p, s in trainer.surveys.items() for name, n in s.withheld.items()},
        "rows_per_second": round(_rows_trained(scenario, so_far.models[first:]) / seconds, 1),
    }
    body |= {"registers": trainer.hold()} | ({"lacks": lacks} if (lacks := trainer.lacks()) else {})
    named = ({"family": family.id} if family.id else {}) | ({"reason": reason} if reason else {})
    family.ledger.append("trained", body | named)


def as_yaml(scenario: Scenario) -> bytes:
    """A scenario as a file that reads back equal; JSON is YAML."""
    return (json.dumps(scenario.model_dump(by_alias=True, mode="json"), indent=1) + "\n").encode()


def _hash_of(scenario: Scenario) -> str:
    return blake3(as_yaml(scenario)).hexdigest()


def _kept(trainer: Trainer, child: Born) -> Given:
    model = child.model
    head = head_of(trainer.specs.make(len(model.head), model.net, 0), model.head)
    if child.version:
        return Given({}, head, child.version)
    store = trainer.store(model.home)
    version = store.write(child.weights, head, model.net)
    if child.state:
        store.write_state(version, child.state)
    return Given(child.weights, head, version, child.state)


def _rows_trained(scenario: Scenario, models: Sequence[Model]) -> int:
    epochs = {n: s.settings[0] for n, s in scenario.models.items() if not isinstance(s, Imported)}
    return sum(epochs.get(m.name.split("/", 1)[0], 0) * n for m in models for s in m.data for n in s.rows.values())
