"""A family from a federation that somebody else's code has trained, with all that `train` writes."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from blake3 import blake3
from safetensors.torch import save
from torch import nn

from fedunlearn.data import SiteData, open_rows
from fedunlearn.dotted import resolve
from fedunlearn.errors import InputError, ShapeError
from fedunlearn.lineage import Lineage
from fedunlearn.nets import build, head_of, load, weights_of
from fedunlearn.runtime import Family, InProcess, settle
from fedunlearn.runtime.books.family import TOPOLOGY
from fedunlearn.scenario.build import open_data
from fedunlearn.scenario.files import parse
from fedunlearn.scenario.schema import Scenario
from fedunlearn.scenario.trainer import as_yaml
from fedunlearn.scenario.workers import workers
from fedunlearn.scenario.workers_here import workers_here
from fedunlearn.store import write_atomically
from fedunlearn.tensors import Tensors
from fedunlearn.training import STRATEGIES
from fedunlearn.training.recording import SHARD, Recording

HOME = "server"


@dataclass(frozen=True)
class Adoption:
    """Where a family is to be written, and where its net and its rows come from.

    Args:
        folder: of the family; must not hold one yet.
        net: "their.module:make_net", called as `make_net(shape, outputs)`.
        data: "their.module:load_site", called with a site's name: what that site trains on.
        test: the same for held-out rows, or a set or a file; nobody trains on them.
        name: of the model.
        recipe: how clients train, as far as a topology can say it (epochs, lr, batch); needed only to train on from it.
        sites: "own" where the sites' rows are out of reach from here; by default `data` gives them here, too.
    """

    folder: Path
    net: str
    data: str
    test: str
    name: str = "model"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    sites: Literal["own"] | None = None

    def check(self, weights: Tensors) -> None:
        """Find out before the first round what would stop the family from being written after the last.

        Args:
            weights: what the first round starts from.

        Raises:
            InputError: the folder is not free, a factory cannot be called, or `sites` is neither "own" nor None.
            ShapeError: the net is not the one that is trained.
        """
        if Family(self.folder).ledger.lines or (self.folder.exists() and any(self.folder.iterdir())):
            raise InputError(f"{self.folder}: is not empty; choose another folder for the family")
        if self.sites not in (None, "own"):
            raise InputError(f"sites is {self.sites!r}, expected 'own', or None where the sites' rows can be opened here")
        resolve(self.data, "data factory")
        scenario = self._scenario(("anybody",), 1, "FedAvg")
        test = open_rows(self.test, "test", beside=scenario.folder)
        _fitting(build(scenario.net, tuple(test.x.shape[1:]), len(test.classes)), weights, self.net)

    def write(self, recording: Recording) -> Family:
        """Write the family.

        Args:
            recording: what was trained.

        Raises:
            InputError: sites tell other rows than their loaders give, no round gave a model, or the folder holds a family.
            ShapeError: the net is not the one that was trained.
        """
        classes, family = recording.classes, Family(self.folder)
        scenario = self._scenario(recording.sites, max(recording.rounds), recording.strategy)
        opened = None if scenario.own else open_data(scenario, self.folder)
        places = opened.places if opened else {p: w.data for p, w in workers_here(scenario, family).items()}
        if opened:
            self._compare(recording, opened.places)
        shape = tuple(places[HOME].held_out["test"].x.shape[1:])
        net = _fitting(build(scenario.net, shape, len(classes)), recording.weights, self.net)
        size = sum(p.numel() for p in net.parameters())
        tests = {p: tuple(d.held_out["test"].counts()) for p, d in places.items() if "test" in d.held_out}
        lineage = Lineage(recording.models(self.name, HOME, size), tests)
        topology = as_yaml(scenario)
        with family.ledger.alone():
            if family.ledger.lines:
                raise InputError(f"{self.folder}: holds a family since; choose another folder, and train again")
            write_atomically(self.folder / TOPOLOGY, topology)
            version = family.store(HOME).write(weights_of(net), head_of(net, classes))
            hashed = family.write_lineage(lineage)
            body = {
                "scenario": scenario.name,
                "seed": scenario.seed,
                "heads": {self.name: version},
                "models": len(lineage.models),
                "lineage": hashed,
                "topology": blake3(topology).hexdigest(),
                "carried": {},
                "without": [],
                "shape": list(shape),
                "rows_per_second": round(recording.trained / recording.seconds, 1),
            }
            if opened:
                body["registers"] = opened.registers.hold(opened.registers.names)
            family.ledger.append("trained", body)
        fresh = Family(self.folder)
        if opened:
            settle(fresh, InProcess(workers(scenario, fresh)))
        return fresh  # sites that are elsewhere hear of it with the first order

    def keep(self, recording: Recording) -> Path:
        """Write the trained weights beside the folder, where no family could be written.

        Returns:
            The file, a safetensors checkpoint.
        """
        path = self.folder.with_name(f"{self.folder.name}.safetensors")
        write_atomically(path, save({n: t.contiguous() for n, t in recording.weights.items()}))
        return path

    def _compare(self, recording: Recording, places: Mapping[str, SiteData]) -> None:
        for told in (t for round_ in recording.rounds.values() for t in round_):
            here = places[told.site].all(SHARD).counts()
            if here != dict(told.rows):
                raise InputError(
                    f"site {told.site!r}: tells rows {dict(told.rows)}, its loader {self.data!r} gives {here}; a loader must "
                    f'always give the same rows, those that the app trains on; where it cannot here, give sites="own"'
                )

    def _scenario(self, sites: tuple[str, ...], rounds: int, strategy: str) -> Scenario:
        known = strategy.lower() if strategy.lower() in STRATEGIES else "fedavg"
        model = {"born": "federated", "clients": list(sites), "rounds": rounds, "home": HOME, "strategy": known, **self.recipe}
        rows = {"sites": "own"} if self.sites == "own" else {"factory": self.data, "calibration": 0, "held_out": 0}
        data = {**rows, "test": self.test}
        plain = {"name": self.name, "folder": str(_beside(self.data)), "data": data}
        return parse({**plain, "net": {"factory": self.net}, "models": {self.name: model}}, "the recorded federation")


def _beside(factory: str) -> Path:
    """The folder from which a factory's module is imported; the family's own process will look there too."""
    top = importlib.import_module(factory.partition(":")[0].partition(".")[0])
    where = Path(top.__file__) if top.__file__ else Path(next(iter(top.__path__))) / "__init__.py"
    return (where.parent.parent if hasattr(top, "__path__") else where.parent).resolve()


def _fitting(net: nn.Module, weights: Tensors, factory: str) -> nn.Module:
    """The net with the weights; a strategy may have computed them in other dtypes."""
    own = net.state_dict()
    try:
        return load(net, {n: t.to(own[n].dtype) if n in own else t for n, t in weights.items()})
    except ShapeError as error:
        raise ShapeError(f"net {factory!r} is not what the app trains: {error}") from error
