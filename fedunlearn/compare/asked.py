"""What is compared: methods with their settings, and what families of topologies are asked to forget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedunlearn.data import SiteData
from fedunlearn.errors import InputError, check_names, unknown
from fedunlearn.lineage import Request
from fedunlearn.methods import METHODS, Method, make
from fedunlearn.methods.menu import code_of, menu_name, settings_of
from fedunlearn.scenario import Scenario
from fedunlearn.scenario.nets import net_maker
from fedunlearn.tensors import Head, names_in

MASK = "logit_mask"  # the floor under every accuracy: in every comparison that is asked for by name


@dataclass(frozen=True)
class Choice:
    """A method with its settings, under the name that the table shows.

    Args:
        label: the name.
        method: the method.
    """

    label: str
    method: Method

    @property
    def simulation(self) -> bool:
        """Whether it needs what no deployment grants."""
        return bool(self.method.needs)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        settings = settings_of(self.method)
        return {"label": self.label, "method": menu_name(self.method), "settings": settings, "simulation": self.simulation}

    @property
    def identity(self) -> dict[str, Any]:
        """What a kept result belongs to: of a method that is not in the menu, the text of its file as well."""
        return {k: v for k, v in self.to_json().items() if k != "label"} | code_of(self.method)


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
    """Methods by name, and the logit mask.

    Args:
        methods: names, with commas, each of the menu or "their.module:Class"; empty for the whole menu.
        settings: `method.key=value` each.

    Raises:
        InputError: an unknown method, a setting that it does not have, or one of a method that is not compared.
    """
    names = tuple(dict.fromkeys(n.strip() for n in methods.split(",") if n.strip())) or tuple(METHODS)
    for name in names:
        make(name)  # an unknown one is said before its settings are
    given: dict[str, dict[str, str]] = {name: {} for name in names}
    for text in settings:
        key, equals, value = text.partition("=")
        name, dot, setting = key.rpartition(".")
        if not equals or not dot:
            raise InputError(f"--set {text}: expected method.key=value, for example --set {names[0]}.alpha=10")
        if name not in given:
            raise unknown("method", name, given, where=f"--set {text}")
        given[name][setting] = value
    chosen = [Choice(name, make(name, given[name])) for name in names]
    return tuple(chosen) + (() if MASK in names else (Choice(MASK, make(MASK)),))


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
    for scenario in (s.scenario for s in subjects if s.scenario.own):
        raise InputError(
            f"{scenario.name}: its data says `sites: own`, and a comparison trains its families in this process; "
            f"name a set or a factory that can be opened here"
        )


def check_classes(subject: Subject, known: Sequence[str]) -> None:
    """Refuse requests for classes that a topology's data does not name, before anything is trained.

    Raises:
        InputError: says the nearest right name.
    """
    for request in subject.requests:
        check_names("class", request.classes, known, f"{subject.scenario.name}: request {request.id}")


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
