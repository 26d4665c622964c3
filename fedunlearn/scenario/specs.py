"""What every model of a scenario is, by name and number: its head, settings, start, and what is left out. No rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from fedunlearn.data import Selection
from fedunlearn.data.folder import find
from fedunlearn.errors import InputError, ShapeError, check_names
from fedunlearn.lineage import Request, ordered
from fedunlearn.nets import MakeNet, head_of, weights_of
from fedunlearn.runtime.tasks import Surveyed
from fedunlearn.scenario.schema import Federated, Imported, Incremental, Scenario
from fedunlearn.tensors import Head, Tensors
from fedunlearn.training import Born, Recipe, seed_of, start_of


@dataclass(frozen=True)
class Given:
    """A parent as it is now.

    Args:
        weights: of its current version; empty where only its home has them.
        head: the names of its outputs.
        version: the version's name.
        state: what the server's optimiser carried with this very version; empty once the version was replaced.
    """

    weights: Tensors
    head: Head
    version: str
    state: Tensors = field(default_factory=dict)


@dataclass(frozen=True)
class Specs:
    """What is to be trained, whoever trains it.

    Args:
        scenario: what each model is.
        classes: what each set names, in its own order.
        make: makes nets.
        without: requests whose data is left out (the retrained reference).
    """

    scenario: Scenario
    classes: Mapping[str, tuple[str, ...]]
    make: MakeNet
    without: tuple[Request, ...] = ()

    def head(self, name: str) -> tuple[str, ...]:
        """Names of a model's outputs."""
        whole, names = self.scenario.outputs(name)
        return (self.classes[whole] if whole is not None else ()) + names

    def check(self, names: Sequence[str], surveys: Mapping[str, Surveyed]) -> None:
        """Find out before the first model is trained what would stop the last.

        Args:
            names: of the models.
            surveys: what each place could train on.

        Raises:
            InputError: a head names an unknown class, a file is missing, or a model has no row to train on.
        """
        known = dict.fromkeys(c for s in surveys.values() for classes in s.classes.values() for c in classes)
        for name in names:
            spec, head = self.scenario.models[name], self.head(name)
            if isinstance(spec, Imported):
                find(spec.file, self.scenario.folder, "checkpoint")
                continue
            for key, given in (("head", head), ("classes", spec.classes)):
                check_names("class", given, known, f"models.{name}.{key}")
            if len(set(head)) < len(head):
                raise InputError(f"models.{name}: its head would name {next(c for c in head if head.count(c) > 1)!r} twice")
            if not self.without and not any(self.rows(name, surveys[site]) for site in spec.sites):
                raise InputError(f"models.{name}: none of its sites ({', '.join(spec.sites)}) holds a row to train on")

    def rows(self, name: str, survey: Surveyed) -> dict[str, int]:
        """How many rows of each class a model is trained on at a site, in the order of its head."""
        spec, head = self.scenario.models[name], self.head(name)
        wanted, there = set(spec.classes or head), survey.shards[spec.data]
        return {c: there[c] for c in head if c in wanted and there.get(c)}

    def recipe(self, name: str, device: str) -> Recipe:
        """Settings of a model's training."""
        spec = self.scenario.models[name]
        epochs, lr = spec.settings
        settings = (epochs, lr, spec.batch, seed_of(self.scenario.seed, name), device, spec.precision, spec.schedule)
        return Recipe(name, spec.place, spec.source, self.head(name), *settings)

    def net(self, name: str) -> nn.Module:
        """A fresh net for a model, always the same."""
        return self.make(len(self.head(name)), self.scenario.net_of(name), seed_of(self.scenario.seed, name))

    def start(self, name: str, parents: Sequence[Given]) -> Tensors:
        """The weights that a model's training starts from.

        Raises:
            InputError: its parents cannot be averaged.
        """
        spec, fresh = self.scenario.models[name], self.net(name)
        held = [(g.weights, g.head) for g in parents]
        try:
            return start_of(spec.born, held, weights_of(fresh), head_of(fresh, self.head(name)))
        except ShapeError as error:
            raise InputError(f"parents {', '.join(spec.source)} cannot be averaged to start from: {error}") from error

    def state(self, name: str, parents: Sequence[Given]) -> Tensors:
        """What the server's optimiser goes on with."""
        return parents[0].state if self.resumes(name) and parents else {}

    def named(self, name: str, child: Born, parents: Sequence[Given]) -> Born:
        """A model on the way to another, or that one, with its architecture and the versions that it started from."""
        started = {p: g.version for p, g in zip(self.scenario.models[name].source, parents, strict=True)}
        first = {p: v for p, v in started.items() if p in child.model.parents}
        return replace(child, model=replace(child.model, net=self.scenario.net_of(name), started=first))

    def resumes(self, name: str) -> bool:
        """Whether a federation goes on from another with the same strategy, and with its server's state."""
        spec = self.scenario.models[name]
        if not isinstance(spec, Federated) or len(spec.source) != 1:
            return False
        parent = self.scenario.models[spec.source[0]]
        return isinstance(parent, Federated) and parent.strategy == spec.strategy != "fedavg"

    def carried(self, name: str, parents: Sequence[Given]) -> list[str]:
        """What a model's training took along from before, in words; weights apart."""
        spec, said = self.scenario.models[name], []
        if self.resumes(name) and parents:
            version = f"{spec.source[0]} {parents[0].version[:12]}"
            said.append(
                f"server optimiser: {'resumed with' if parents[0].state else 'started anew, none is kept for'} {version}"
            )
        if isinstance(spec, Incremental) and spec.replay:
            said.append(f"replay: drawn anew from what {spec.site} may train on")
        if isinstance(spec, Incremental) and spec.ewc and parents:
            said.append(
                "ewc: anchor measured anew on "
                + ", ".join(f"{p} {g.version[:12]}" for p, g in zip(spec.source, parents, strict=True))
            )
        return said


def left_out(scenario: Scenario, without: Sequence[Request], name: str, site: str) -> dict[str, Selection]:
    """What a model is not to be trained on at a site, beside what is excluded there.

    Args:
        scenario: what each model is.
        without: the requests.
        name: of the model; requests about what came after some model say nothing of those before.
        site: whose rows.

    Returns:
        A selection a request that touches the site's rows.
    """
    order = ordered(scenario.parents) if any(request.since for request in without) else ()  # a sort of the whole family
    found = {}
    for request in without:
        if request.since is not None and order.index(name) <= order.index(request.since):
            continue
        if request.samples:
            here = tuple(s.split("/", 1)[1] for s in request.samples if s.split("/", 1)[0] == site)
            if here:
                found[request.id] = Selection(samples=here)
        elif not request.sites or site in request.sites:
            found[request.id] = Selection(classes=request.classes)
    return found
