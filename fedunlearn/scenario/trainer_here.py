"""Trains models in this process, on rows that are open here."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from fedunlearn.data import Exclusions, Rows, SiteData
from fedunlearn.data.folder import find
from fedunlearn.data.register import FOLDER as REGISTERS
from fedunlearn.errors import InputError, ShapeError
from fedunlearn.importance import measure, pool
from fedunlearn.lineage import Lineage, Model, Request
from fedunlearn.nets import fit_to, head_of, load, read_checkpoint, weights_of
from fedunlearn.runtime import Family, InProcess, settle
from fedunlearn.runtime.place.births import survey
from fedunlearn.runtime.tasks import Survey
from fedunlearn.scenario.build import check_held, open_data
from fedunlearn.scenario.nets import net_maker
from fedunlearn.scenario.registers import Registers
from fedunlearn.scenario.schema import Distributed, Federated, Imported, Incremental, Scenario, Transfer
from fedunlearn.scenario.specs import Given, Specs, left_out
from fedunlearn.scenario.trainer import Trainer
from fedunlearn.scenario.workers import best_device, workers
from fedunlearn.store import Store
from fedunlearn.tensors import Head, Tensors, average
from fedunlearn.training import Anchor, Born, Portion, distributed, federated, incremental, transfer

Federate = Callable[..., Iterator[Born]]


@dataclass(frozen=True)
class TrainerHere(Trainer):
    """Trains models of a scenario.

    Args:
        data: what each place holds.
        registers: of the rows.
        federate: runs rounds; in this process by default.
    """

    data: Mapping[str, SiteData]
    registers: Registers
    federate: Federate = federated

    @classmethod
    def of(
        cls, scenario: Scenario, family: Family, without: tuple[Request, ...] = (), federate: Federate = federated
    ) -> "TrainerHere":
        """Open every place's rows. Whatever is done to the family between its reading and its training stops the latter.

        Raises:
            InputError: data cannot be opened, or a net cannot be made.
        """
        if not without and not family.ledger.lines:  # a training that was cut off may have left some
            shutil.rmtree(family.folder / REGISTERS, ignore_errors=True)
        opened = open_data(scenario, family.folder, family.departed)
        if not without:  # what is only to compare with leaves rows out that have come since, as the family did
            opened.registers.check(opened.registers.names)
            held = {place: d for place, d in opened.places.items() if place not in family.departed}
            for name, asked in scenario.requests.items():
                check_held(held, asked.request(name), gone=True)
        specs = Specs(scenario, opened.classes, net_maker(scenario, opened.places), without)
        surveys = {place: survey(Survey(place, tuple(d.shards)), d) for place, d in opened.places.items()}
        return cls(family, specs, surveys, opened.places, opened.registers, federate)

    def store(self, place: str) -> Store:
        """Every place's store is in the family's folder."""
        return self.family.store(place)

    def hold(self) -> dict[str, str]:
        """In the family's folder."""
        return self.registers.hold(self.registers.names)

    def settle(self) -> None:
        """In this process."""
        fresh = Family(self.family.folder)
        settle(fresh, InProcess(workers(self.specs.scenario, fresh)))

    def births(self, name: str, parents: Sequence[Given], before: Sequence[Model]) -> Iterator[Born]:
        """From rows that are here."""
        specs = self.specs
        spec, recipe = specs.scenario.models[name], specs.recipe(name, best_device())
        portions = {site: self._portions(name, site, recipe.head) for site in spec.sites}

        def make() -> nn.Module:
            return specs.net(name)

        if isinstance(spec, Imported):
            yield self._imported(name, spec, make(), portions)
            return
        start = specs.start(name, parents)
        if isinstance(spec, Federated):
            state = specs.state(name, parents)
            grown = self.federate(recipe, make, start, portions, spec.rounds, spec.strategy, spec.policy, state)
        elif isinstance(spec, Distributed):
            grown = iter([distributed(recipe, make, start, portions)])
        elif isinstance(spec, Transfer):
            grown = iter([transfer(recipe, make, start, portions[spec.site], layers=spec.layers)])
        else:
            head = head_of(make(), recipe.head)
            anchor = self._anchor(spec, parents, before, start, head) if spec.ewc and parents else None
            grown = iter([incremental(recipe, make, start, portions[spec.site], anchor)])
        for child in grown:
            yield specs.named(name, child, parents)

    def _anchor(
        self, spec: Incremental, parents: Sequence[Given], before: Sequence[Model], start: Tensors, head: Head
    ) -> Anchor:
        """What elastic weight consolidation holds on to, measured anew on the version that is started from."""
        scenario, old = self.specs.scenario, parents[0].head
        lineage = Lineage(tuple(before)).without(self.family.departed)
        mean = average([g.weights for g in parents])
        net = load(self.specs.make(len(old.classes), scenario.net_of(spec.source[0]), 0), mean).eval()
        parts = []
        for shard in {s.key: s for p in spec.source for s in lineage.weighing(p)}.values():
            rows = self._rows(spec.source[0], shard.site, shard.name, tuple(shard.rows)).for_head(old.classes)
            if len(rows):
                parts.append(measure(net, rows.x, rows.y, head=old, statistic="squares"))
        return Anchor.of(pool(parts).mean("squares") if parts else {}, old, start, head, spec.ewc)

    def _imported(self, name: str, spec: Imported, net: nn.Module, portions: Mapping[str, Sequence[Portion]]) -> Born:
        path = find(spec.file, self.specs.scenario.folder, "checkpoint")
        try:
            load(net, fit_to(net, read_checkpoint(path)))
        except ShapeError as error:
            raise InputError(
                f"models.{name}: {path} does not fit its net and head of {len(spec.head)} outputs: {error}"
            ) from error
        entries = tuple(p.entry for held in portions.values() for p in held if len(p.rows))
        size = sum(p.numel() for p in net.parameters())
        net_name = self.specs.scenario.net_of(name)
        model = Model(name, spec.place, spec.how, spec.head, spec.source, entries, True, size, net_name, imported=True)
        return Born(model, weights_of(net))

    def _portions(self, name: str, site: str, head: tuple[str, ...]) -> list[Portion]:
        spec = self.specs.scenario.models[name]
        rows = self._rows(name, site, spec.data, spec.classes or head)
        if isinstance(spec, Incremental) and spec.replay:
            kept = self._rows(name, site, spec.data, tuple(c for c in head if c not in spec.classes))
            both = {*rows.keys, *kept.first(spec.replay).keys}
            rows = self._rows(name, site, spec.data, head).named(both)
        return [Portion(site, spec.data, rows.for_head(head), self._exclusions(name, site))]

    def _rows(self, name: str, site: str, data: str, classes: Sequence[str]) -> Rows:
        excluded = self._exclusions(name, site)
        return replace(self.data[site], excluded=lambda: excluded).training(data, classes)

    def _exclusions(self, name: str, site: str) -> Exclusions:
        """What a model is not trained on; one that came with its weights was, elsewhere, whatever was asked here before."""
        if isinstance(self.specs.scenario.models[name], Imported):
            return Exclusions({})
        more = left_out(self.specs.scenario, self.specs.without, name, site)
        return self.data[site].exclusions.beside("without", more)
