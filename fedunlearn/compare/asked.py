"""What is compared: methods with their settings, and what families of topologies are asked to forget."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedunlearn.compare.cells import RETRAINED
from fedunlearn.data import SiteData
from fedunlearn.errors import InputError, check_names, unknown
from fedunlearn.lineage import Request
from fedunlearn.methods import METHODS, Method, make
from fedunlearn.methods.menu import code_of, menu_name, settings_of
from fedunlearn.scenario import Scenario
from fedunlearn.scenario.build import Opened, check_held
from fedunlearn.scenario.nets import net_maker
from fedunlearn.tensors import Head, names_in

MASK = "logit_mask"  # the floor under every accuracy: in every comparison that is asked for by name

FAMILYS = "the family's"  # seed of what is drawn anew for each


@dataclass(frozen=True)
class Choice:
    """A method with its settings, under the name that the table shows.

    Args:
        label: the name.
        method: the method.
        drawn: whether it draws anew for each family: with the family's seed, in place of its own setting `seed`.
    """

    label: str
    method: Method
    drawn: bool = False

    @property
    def simulation(self) -> bool:
        """Whether it needs what no deployment grants."""
        return bool(self.method.needs)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        settings = settings_of(self.method) | ({"seed": FAMILYS} if self.drawn else {})
        return {"label": self.label, "method": menu_name(self.method), "settings": settings, "simulation": self.simulation}

    @property
    def identity(self) -> dict[str, Any]:
        """What a kept result belongs to: of a method that is not in the menu, the text of its file as well."""
        return {k: v for k, v in self.to_json().items() if k != "label"} | code_of(self.method)

    def at(self, seed: int) -> "Choice":
        """As it is run on the family of a seed."""
        if not self.drawn:
            return self
        return Choice(self.label, make(menu_name(self.method), settings_of(self.method) | {"seed": seed}))


@dataclass(frozen=True)
class Subject:
    """A topology, and requests to its families, each made to a copy of its own.

    Args:
        scenario: what is trained; its seed is replaced.
        requests: by their ids, which must differ.
    """

    scenario: Scenario
    requests: tuple[Request, ...]

    @classmethod
    def of(cls, scenario: Scenario, requests: Sequence[Request] = ()) -> "Subject":
        """With these requests, or those that the topology names.

        Raises:
            InputError: there are none.
        """
        found = tuple(requests) or tuple(asked.request(name) for name, asked in scenario.requests.items())
        if not found:
            raise InputError(f"{scenario.name}: its topology names no request; say what to forget: --classes 0,1")
        return cls(scenario, found)


def choices_of(methods: str = "", settings: Sequence[str] = ()) -> tuple[Choice, ...]:
    """Methods by name, and the logit mask. What has a setting `seed` and is told none draws with each family's.

    Args:
        methods: names, with commas, each of the menu or "their.module:Class"; or `label=name`, to be shown and set by that
            label, so that one may be compared with itself. Empty for the whole menu.
        settings: `method.key=value` each, or `label.key=value`.

    Raises:
        InputError: an unknown method, a setting that it does not have, or one of a method that is not compared; or what stands
            there twice.
    """
    names = _labels(methods) or dict(zip(METHODS, METHODS, strict=True))
    for name in names.values():
        make(name)  # an unknown one is said before its settings are
    given: dict[str, dict[str, str]] = {label: {} for label in names}
    for text in settings:
        key, equals, value = text.partition("=")
        label, dot, setting = key.rpartition(".")
        if not equals or not dot:
            raise InputError(f"--set {text}: expected method.key=value, for example --set {next(iter(names))}.alpha=10")
        if label not in given:
            raise unknown("method", label, given, where=f"--set {text}")
        if setting in given[label]:
            name, earlier = names[label], given[label][setting]
            raise InputError(f"--set {text}: {key} is {earlier!r} already; to compare both, say --methods a={name},b={name}")
        given[label][setting] = value
    made = {label: make(name, given[label]) for label, name in names.items()}
    chosen = [Choice(label, m, "seed" in settings_of(m) and "seed" not in given[label]) for label, m in made.items()]
    return tuple(chosen) + (() if MASK in names.values() else (Choice(MASK, make(MASK)),))


def _labels(methods: str) -> dict[str, str]:
    """The name of each method, by what it is called."""
    names: dict[str, str] = {}
    for one in (m.strip() for m in methods.split(",") if m.strip()):
        label, equals, name = (part.strip() for part in one.partition("="))
        name = name if equals else label
        if not (label and name):
            raise InputError(f"--methods {methods}: expected names, or a name of yours before one: last=fiun")
        if label in names:
            raise InputError(
                f"--methods {methods}: two are called {label!r}; give each a name of its own: a={names[label]},b={name}"
            )
        if label in METHODS and label != name:
            raise InputError(f"--methods {methods}: {label!r} is another method of the menu; call it by another name")
        names[label] = name
    return names


def requests_of(classes: str) -> tuple[Request, ...]:
    """Requests by class: "0,1" is two, one class each; "0+1" is one for both.

    Raises:
        InputError: a class is missing between two signs.
    """
    sets = [[c.strip() for c in one.split("+")] for one in classes.split(",") if classes.strip()]
    if not all(c for one in sets for c in one):
        raise InputError(
            f"--classes {classes}: expected classes with commas (0,1: one request each) or a plus (0+1: one for both)"
        )
    return tuple(replace(request, id="+".join(request.classes)) for request in (Request(classes=tuple(s)) for s in sets))


def check(subjects: Sequence[Subject], choices: Sequence[Choice]) -> None:
    """Refuse what cannot be compared, before any data is opened.

    Raises:
        InputError: two things have one name, or a topology's rows are its sites' own.
    """
    for what, names in (
        ("topologies", [s.scenario.name for s in subjects]),
        ("methods", [c.label for c in choices]),
        *((f"requests of {s.scenario.name}", [r.id for r in s.requests]) for s in subjects),
    ):
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise InputError(f"two {what} are called {twice[0]!r}; a table needs names of their own")
    if RETRAINED in [c.label for c in choices]:
        raise InputError(f"a method is called {RETRAINED!r}, as the line of the retrained families is; call it by another name")
    for scenario in (s.scenario for s in subjects if s.scenario.own):
        raise InputError(
            f"{scenario.name}: its data says `sites: own`, and a comparison trains its families in this process; "
            f"name a set or a factory that can be opened here"
        )


def check_names_of(subject: Subject, classes: Sequence[str]) -> None:
    """Refuse requests for what a topology and its data do not name, before anything is trained.

    Args:
        subject: the topology and its requests.
        classes: that its data names.

    Raises:
        InputError: says the nearest right name.
    """
    scenario = subject.scenario
    for request in subject.requests:
        where, shards = f"{scenario.name}: request {request.id}", [key.split("/") for key in request.shards]
        check_names("class", request.classes, classes, where)
        check_names("site", (*request.sites, *(site for site, _ in shards)), scenario.sites, where)
        for site, shard in shards:
            known = [f"{site}/{name}" for name in scenario.sets if site in scenario.sites_of(name)]
            check_names("shard", [f"{site}/{shard}"], known, where)
        since = [] if request.since is None else [request.since.split("/", 1)[0]]  # what follows names a round of a federation
        check_names("model", since, scenario.models, where)


def check_samples(subject: Subject, seeds: Sequence[int], opened: Callable[[int], Opened]) -> None:
    """Refuse samples that a family of some seed is not trained on, before anything is trained.

    Args:
        subject: the topology and its requests.
        seeds: one family is trained for each.
        opened: the data of the family of a seed.

    Raises:
        InputError: says the first such seed, and those at which all of them are trained on.
    """
    asked, wrong = [r for r in subject.requests if r.samples], dict[int, str]()
    for seed in seeds if asked else ():
        places = opened(seed).places
        for request in asked:
            try:
                check_held(places, request)
            except InputError as error:
                wrong.setdefault(seed, f"request {request.id}: {error}")
    if wrong:
        seed, why = next(iter(wrong.items()))
        right = ", ".join(str(s) for s in seeds if s not in wrong) or "none"
        raise InputError(
            f"{subject.scenario.name}, seed {seed}: {why}. In a comparison rows are dealt anew for each seed: ask for classes "
            f"or sites instead, or compare at seeds at which every sample is trained on (of these: {right})"
        )


def check_layers(subject: Subject, choices: Sequence[Choice], places: Mapping[str, SiteData]) -> None:
    """Refuse settings that name layers which no net of a topology has, before anything is trained.

    Raises:
        InputError: says the nearest right name.
    """
    scenario, named = subject.scenario, [c for c in choices if c.method.layers not in ("all", "last")]
    if not named:
        return
    net_of, classes = net_maker(scenario, places), next(r.classes for d in places.values() for r in d.shards.values())
    nets = [net_of(len(classes), name, 0) for name in dict.fromkeys(map(scenario.net_of, scenario.models))]
    parameters, head = [n for net in nets for n, _ in net.named_parameters()], Head("", ())
    for choice in named:
        try:
            names_in(choice.method.layers, parameters, head)
        except InputError as error:
            raise InputError(f"{scenario.name}: method {choice.label}: {error}") from error
