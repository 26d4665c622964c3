"""Has models trained where the rows are: births become tasks, and the coordinator sees neither rows nor stores of sites.

All that a message can carry goes in one: one survey before the first model, one message a client and round of a federation,
one for an increment or a transfer, and one more where a parent's weights lie at another site. In federated averaging the
coordinator does see each client's update.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import TypeVar

from torch import nn

from fedunlearn.data import Selection
from fedunlearn.errors import InputError, SiteError, TrainingError
from fedunlearn.lineage import Model, Request, Shard
from fedunlearn.nets import head_of, weights_of
from fedunlearn.runtime import Backend, Family, Split, Worker, settle
from fedunlearn.runtime.backend import Progress, ask
from fedunlearn.runtime.tasks import Fetch, Fetched, Survey, Surveyed, Task, Train, Trained
from fedunlearn.scenario.answers import agreed, remembered, sound, usable, usable_weights
from fedunlearn.scenario.build import check_test
from fedunlearn.scenario.nets import maker
from fedunlearn.scenario.schema import Distributed, Federated, Imported, Incremental, Scenario, Transfer
from fedunlearn.scenario.specs import Given, Specs, left_out
from fedunlearn.scenario.trainer import Trainer
from fedunlearn.store import Store
from fedunlearn.tensors import Tensors
from fedunlearn.training import Born, Course, Recipe, in_rounds

Kind = TypeVar("Kind")
HERE = "cpu"  # of recipes that travel: each site computes on a device of its own choice
Without = tuple[tuple[str, Selection], ...]  # what is left out at a site, by request


@dataclass(frozen=True)
class TrainerAfar(Trainer):
    """Has models trained at their sites.

    Args:
        told: what each site could train on, by what is left out of it.
        backend: carries tasks to all places.
        here: those that live with the coordinator.
    """

    told: Mapping[tuple[str, Without], Surveyed]
    backend: Split
    here: Mapping[str, Worker]

    @classmethod
    def of(
        cls,
        scenario: Scenario,
        family: Family,
        backend: Backend,
        here: Mapping[str, Worker],
        without: Sequence[Request],
        progress: Progress,
    ) -> "TrainerAfar":
        """What trains at the sites, once they have said what they could train on."""
        _refuse(scenario, here)
        both = Split(here, backend, family.id or token_hex(16))
        progress("asking the sites what they could train on")
        told = _survey(scenario, without, both, family.departed)
        surveys = {place: survey for (place, left), survey in told.items() if not left}
        classes, shape = agreed(scenario, surveys)
        classes |= remembered(scenario, family) if family.departed else {}
        known = [c for named in classes.values() for c in named]
        for spec, tests in ((scenario.data, surveys[place].tests) for place in here if place in surveys):
            check_test(spec, tests, known)
        specs = Specs(scenario, classes, maker(scenario, shape), tuple(without))
        for net in dict.fromkeys(map(scenario.net_of, scenario.models)):
            specs.make(len(known), net, 0)  # whatever cannot be made is said before anything is trained
        return cls(family, specs, surveys, told, both, here)

    def store(self, place: str) -> Store:
        """Only places that are here have one that can be written to."""
        return self.here[place].store

    def lacks(self) -> dict[str, int]:
        """As the sites told it."""
        found: dict[str, int] = {}
        for name, spec in self.specs.scenario.models.items() if self.specs.without else ():
            for site in (s for s in spec.sites if s in self.surveys):
                left = tuple(left_out(self.specs.scenario, self.specs.without, name, site).items())
                if rows := self.told[site, left].withheld.get(spec.data):
                    found[f"{site}/{spec.data}"] = max(rows, found.get(f"{site}/{spec.data}", 0))
        return found

    def settle(self) -> None:
        """Over the backend; but the sites of a retrained reference follow the family's own ledger, not the reference's."""
        if not self.specs.without:
            settle(Family(self.family.folder), self.backend)

    def births(self, name: str, parents: Sequence[Given], before: Sequence[Model]) -> Iterator[Born]:
        """From rows that nobody here sees."""
        self.family.identify(self.backend.family)
        spec = self.specs.scenario.models[name]
        if isinstance(spec, Federated):
            grown = self._federated(name, spec, parents)
        else:
            assert isinstance(spec, Incremental | Transfer)  # others are refused before the survey
            grown = iter([self._at_site(name, spec, parents)])
        for child in grown:
            yield self.specs.named(name, child, parents)

    def _federated(self, name: str, spec: Federated, parents: Sequence[Given]) -> Iterator[Born]:
        specs, recipe = self.specs, self.specs.recipe(name, HERE)
        start = specs.start(name, self._fetched(name, parents))

        def make() -> nn.Module:
            return specs.net(name)

        data = {client: self._shards(name, client) for client in spec.clients}
        course = Course.told(recipe, make, data, spec.rounds, spec.policy)

        def together(number: int, weights: Tensors) -> Iterator[Born]:
            ready = [self._task(name, client, course.training(number, client)) for client in course.data]
            tasks = [replace(task, start=weights, keep=course.locals_too, give=True) for task in ready]
            answers, net = self._ask(tasks, Trained, f"model {name!r}: round {number} of {spec.rounds}"), make()
            for task, answer in zip(tasks, answers, strict=True):
                found = usable(task, answer, self._rows(name, task.place), net)
                yield replace(course.local(number, task.place, found.weights), version=found.version)

        return in_rounds(course, make, start, together, spec.strategy, specs.state(name, parents))

    def _at_site(self, name: str, spec: Incremental | Transfer, parents: Sequence[Given]) -> Born:
        recipe, net = self.specs.recipe(name, HERE), self.specs.net(name)
        start, head = weights_of(net), head_of(net, recipe.head)
        if parents:  # the site has the rest of it from them; where it has their head too, nothing is new
            new = head.names if isinstance(spec, Transfer) or parents[0].head != head else ()
            start = {n: t for n, t in start.items() if n in new}
        held = zip(spec.source, self._fetched(name, parents, spec.site), strict=True)
        sent = {g.version: Fetched(g.weights, g.head) for parent, g in held if self._home(parent) != spec.site}
        task = replace(
            self._task(name, spec.site, recipe),
            versions=tuple(g.version for g in parents),
            sent=sent,
            start=start,
            layers=spec.layers if isinstance(spec, Transfer) else "head",
            keep=spec.place == spec.site,
            give=spec.place != spec.site,
        )
        (answer,) = self._ask([task], Trained, f"model {name!r}")
        found = usable(task, answer, self._rows(name, spec.site), net)
        size, data = sum(p.numel() for p in net.parameters()), self._shards(name, spec.site)
        model = Model(name, spec.place, spec.born, recipe.head, spec.source, data, True, size)
        return Born(model, found.weights, version=found.version)

    def _task(self, name: str, site: str, recipe: Recipe) -> Train:
        """One site's part in a model, but for what it starts from and what becomes of it."""
        scenario = self.specs.scenario
        spec = scenario.models[name]
        without = left_out(scenario, self.specs.without, name, site)
        classes = spec.classes or recipe.head
        return Train(site, recipe, spec.born, spec.data, classes, scenario.net_of(name), without=without)

    def _rows(self, name: str, site: str) -> dict[str, int]:
        left = left_out(self.specs.scenario, self.specs.without, name, site)
        return self.specs.rows(name, self.told[site, tuple(left.items())])

    def _shards(self, name: str, site: str) -> tuple[Shard, ...]:
        rows = self._rows(name, site)
        return (Shard(site, self.specs.scenario.models[name].data, rows),) if rows else ()

    def _home(self, name: str) -> str:
        return self.specs.scenario.models[name].place

    def _fetched(self, name: str, parents: Sequence[Given], site: str = "") -> list[Given]:
        """Parents with their weights, but for those that are the site's own."""
        source = self.specs.scenario.models[name].source
        away = {p: g for p, g in zip(source, parents, strict=True) if not g.weights and self._home(p) != site}
        tasks = [Fetch(self._home(p), g.version) for p, g in away.items()]
        answers = self._ask(tasks, Fetched, f"model {name!r}: fetching {', '.join(away)} to start from") if tasks else []
        for (parent, given), answer in zip(list(away.items()), answers, strict=True):
            where = f"{self._home(parent)}: sent {parent!r}"
            if answer.head != given.head:
                raise TrainingError(f"{where} with outputs {answer.head}, expected {given.head}")
            away[parent] = replace(given, weights=usable_weights(answer.weights, self.specs.net(parent), where))
        return [away.get(p, g) for p, g in zip(source, parents, strict=True)]

    def _ask(self, tasks: Sequence[Task], kind: type[Kind], where: str) -> list[Kind]:
        return _asked(self.backend, tasks, kind, where)


def _survey(
    scenario: Scenario, without: Sequence[Request], backend: Backend, departed: Container[str]
) -> dict[tuple[str, Without], Surveyed]:
    """One message a place: what it could train on, with nothing left out and with what each model of it leaves out."""
    tasks: dict[tuple[str, Without], Survey] = {}
    for place in (p for p in scenario.places if p not in departed):
        shards = tuple(name for name in scenario.sets if place in scenario.sites_of(name))
        mine = [name for name, spec in scenario.models.items() if place in spec.sites]
        for left in ({}, *(left_out(scenario, without, name, place) for name in mine)):
            tasks[place, tuple(left.items())] = Survey(place, shards, left, again=bool(without))
    answers = _asked(backend, list(tasks.values()), Surveyed, "survey")
    return {key: sound(task, answer) for (key, task), answer in zip(tasks.items(), answers, strict=True)}


def _asked(backend: Backend, tasks: Sequence[Task], kind: type[Kind], where: str) -> list[Kind]:
    try:
        return ask(backend, tasks, kind, otherwise="nothing of this training was kept")
    except SiteError as error:
        raise TrainingError(f"{where}: {error}; mend the site, then train again") from error


def _refuse(scenario: Scenario, here: Mapping[str, Worker]) -> None:
    """What cannot be trained at sites is said before any site is asked."""
    for name, data in scenario.sets.items():
        if data.sites != "own":
            raise InputError(
                f"{scenario.name}: set {name!r} is opened here, not at the sites; say `sites: own` of every set, or train the "
                f"family in this process (fedunlearn train without --backend)"
            )
    for name, spec in scenario.models.items():
        where, what = f"models.{name}", None
        if isinstance(spec, Distributed | Imported):
            what = f"born: {spec.born}"
        elif isinstance(spec, Incremental) and (spec.replay or spec.ewc):
            what = "replay" if spec.replay else "ewc"
        if what:
            raise InputError(
                f"{where}: {what} cannot be trained at sites that are elsewhere yet; leave it out, or train the family in one "
                f"process that can open all rows (data: set or factory)"
            )
        if spec.place not in here and not (isinstance(spec, Incremental | Transfer) and spec.place == spec.site):
            homes = [*here, *(spec.sites if isinstance(spec, Incremental | Transfer) else ())]
            known = " or ".join(map(repr, homes)) or "a place that is"
            raise InputError(f"{where}.home: {spec.place!r} is not with the coordinator; choose {known}")
