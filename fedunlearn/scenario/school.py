"""Brings up one model after another: what each starts from, which rows it is trained on, what it carries along."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from fedunlearn.data import Exclusions, Rows, Selection, SiteData
from fedunlearn.data.folder import find
from fedunlearn.errors import InputError, ShapeError, unknown
from fedunlearn.importance import measure, pool
from fedunlearn.lineage import Lineage, Model, Request, ordered
from fedunlearn.nets import fit_to, head_of, load, read_checkpoint, weights_of
from fedunlearn.scenario.build import MakeNet, device_of
from fedunlearn.scenario.schema import Distributed, Federated, Imported, Incremental, Scenario, Transfer
from fedunlearn.tensors import Head, Tensors, average
from fedunlearn.training import Anchor, Born, Portion, Recipe, distributed, federated, grow_head, incremental, seed_of, transfer

Federate = Callable[..., Iterator[Born]]


@dataclass(frozen=True)
class Given:
    """A parent as it is now.

    Args:
        weights: of its current version.
        head: the names of its outputs.
        version: the version's name.
        state: what the server's optimiser carried with this very version; empty once the version was replaced.
    """

    weights: Tensors
    head: Head
    version: str
    state: Tensors = field(default_factory=dict)


@dataclass(frozen=True)
class School:
    """Trains models of a scenario.

    Args:
        scenario: what each model is.
        data: what each place holds.
        classes: what each set names, in its own order.
        make: makes nets.
        without: requests whose data is left out (the retrained reference).
        federate: runs rounds; in this process by default.
    """

    scenario: Scenario
    data: Mapping[str, SiteData]
    classes: Mapping[str, tuple[str, ...]]
    make: MakeNet
    without: tuple[Request, ...] = ()
    federate: Federate = federated

    def head(self, name: str) -> tuple[str, ...]:
        """Names of a model's outputs."""
        whole, names = self.scenario.outputs(name)
        return (self.classes[whole] if whole is not None else ()) + names

    def check(self, names: Sequence[str]) -> None:
        """Find out before the first model is trained what would stop the last.

        Raises:
            InputError: a head names an unknown class, a file is missing, or a model has no row to train on.
        """
        known = dict.fromkeys(c for d in self.data.values() for rows in d.shards.values() for c in rows.classes)
        for name in names:
            spec, head = self.scenario.models[name], self.head(name)
            if isinstance(spec, Imported):
                find(spec.file, self.scenario.folder, "checkpoint")
                continue
            for key, given in (("head", head), ("classes", spec.classes)):
                for c in given:
                    if c not in known:
                        raise unknown("class", c, known, where=f"models.{name}.{key}")
            if len(set(head)) < len(head):
                raise InputError(f"models.{name}: its head would name {next(c for c in head if head.count(c) > 1)!r} twice")
            rows = sum(len(self.data[s].training(spec.data, spec.classes or head)) for s in spec.sites)
            if not rows and not self.without:
                raise InputError(f"models.{name}: none of its sites ({', '.join(spec.sites)}) holds a row to train on")

    def births(self, name: str, parents: Sequence[Given], before: Sequence[Model]) -> Iterator[Born]:
        """A model and, in a federation, all those on the way to it; the last has its name.

        Args:
            name: of the model.
            parents: what it starts from.
            before: the models born so far, in order of time.
        """
        spec, head = self.scenario.models[name], self.head(name)
        seed = seed_of(self.scenario.seed, name)
        epochs, lr = spec.settings
        settings = (epochs, lr, spec.batch, seed, device_of(), spec.precision, spec.schedule)
        recipe = Recipe(name, spec.place, spec.source, head, *settings)
        portions = {site: self._portions(name, site, head) for site in spec.sites}
        architecture = self.scenario.net_of(name)

        def make() -> nn.Module:
            return self.make(len(head), architecture, seed)

        if isinstance(spec, Imported):
            yield self._imported(name, spec, make(), portions)
            return
        started = {p: g.version for p, g in zip(spec.source, parents, strict=True)}
        start = self._start(spec, parents, make)
        if isinstance(spec, Federated):
            state = parents[0].state if self.resumes(name) and parents else {}
            grown = self.federate(recipe, make, start, portions, spec.rounds, spec.strategy, spec.policy, state)
        elif isinstance(spec, Distributed):
            grown = iter([distributed(recipe, make, start, portions)])
        elif isinstance(spec, Transfer):
            grown = iter([transfer(recipe, make, start, portions[spec.site], layers=spec.layers)])
        else:
            anchor = self._anchor(spec, parents, before, start, head_of(make(), head)) if spec.ewc and parents else None
            grown = iter([incremental(recipe, make, start, portions[spec.site], anchor)])
        for child in grown:
            first = {p: v for p, v in started.items() if p in child.model.parents}
            yield replace(child, model=replace(child.model, net=architecture, started=first))

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

    def _start(self, spec: object, parents: Sequence[Given], make: Callable[[], nn.Module]) -> Tensors:
        if not parents:
            return weights_of(make())
        weights = [g.weights for g in parents]
        if isinstance(spec, Transfer):  # parents share a body; their heads are replaced
            weights = [{n: t for n, t in g.weights.items() if n not in g.head.names} for g in parents]
        try:
            mean = average(weights)
        except ShapeError as error:
            named = ", ".join(spec.source) if isinstance(spec, Transfer | Incremental | Distributed | Federated) else ""
            raise InputError(f"parents {named} cannot be averaged to start from: {error}") from error
        if isinstance(spec, Incremental) and spec.adds:
            fresh = make()
            names = parents[0].head.classes + spec.adds
            return grow_head(mean, weights_of(fresh), parents[0].head, head_of(fresh, names))
        return mean

    def _anchor(
        self, spec: Incremental, parents: Sequence[Given], before: Sequence[Model], start: Tensors, head: Head
    ) -> Anchor:
        """What elastic weight consolidation holds on to, measured anew on the version that is started from."""
        lineage, old = Lineage(tuple(before)), parents[0].head
        mean = average([g.weights for g in parents])
        net = load(self.make(len(old.classes), self.scenario.net_of(spec.source[0]), 0), mean).eval()
        parts = []
        for shard in {s.key: s for p in spec.source for s in lineage.own(p)}.values():
            rows = self._rows(spec.source[0], shard.site, shard.name, tuple(shard.rows)).for_head(old.classes)
            if len(rows):
                parts.append(measure(net, rows.x, rows.y, head=old, statistic="squares"))
        return Anchor.of(pool(parts).mean("squares") if parts else {}, old, start, head, spec.ewc)

    def _imported(self, name: str, spec: Imported, net: nn.Module, portions: Mapping[str, Sequence[Portion]]) -> Born:
        path = find(spec.file, self.scenario.folder, "checkpoint")
        try:
            load(net, fit_to(net, read_checkpoint(path)))
        except ShapeError as error:
            raise InputError(
                f"models.{name}: {path} does not fit its net and head of {len(spec.head)} outputs: {error}"
            ) from error
        entries = tuple(p.entry for held in portions.values() for p in held if len(p.rows))
        size = sum(p.numel() for p in net.parameters())
        model = Model(name, spec.place, spec.how, spec.head, spec.source, entries, True, size, self.scenario.net_of(name))
        return Born(model, weights_of(net))

    def _portions(self, name: str, site: str, head: tuple[str, ...]) -> list[Portion]:
        spec = self.scenario.models[name]
        rows = self._rows(name, site, spec.data, spec.classes or head)
        if isinstance(spec, Incremental) and spec.replay:
            kept = self._rows(name, site, spec.data, tuple(c for c in head if c not in spec.classes))
            both = {*rows.keys, *kept.first(spec.replay).keys}
            whole = self._rows(name, site, spec.data, head)
            rows = whole.take([i for i, key in enumerate(whole.keys) if key in both])
        return [Portion(site, spec.data, rows.for_head(head), self._exclusions(name, site))]

    def _rows(self, name: str, site: str, data: str, classes: Sequence[str]) -> Rows:
        excluded = self._exclusions(name, site)
        return replace(self.data[site], excluded=lambda: excluded).training(data, classes)

    def _exclusions(self, name: str, site: str) -> Exclusions:
        by_request = dict(self.data[site].exclusions.by_request)
        for request in self.without:
            left_out = self._left_out(request, name, site)
            if left_out is not None:
                by_request[f"without {request.id}"] = left_out
        return Exclusions(by_request)

    def _left_out(self, request: Request, name: str, site: str) -> Selection | None:
        order = ordered(self.scenario.parents)
        if request.since is not None and order.index(name) <= order.index(request.since):
            return None
        if request.samples:
            here = tuple(s.split("/", 1)[1] for s in request.samples if s.split("/", 1)[0] == site)
            return Selection(samples=here) if here else None
        return Selection(classes=request.classes) if not request.sites or site in request.sites else None
