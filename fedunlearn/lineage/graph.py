"""The lineage: a frozen DAG of models in order of time (the papers' Unified Model Inheritance Graph)."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import networkx as nx
from typing_extensions import TypedDict

from fedunlearn.errors import InputError, unknown
from fedunlearn.lineage.model import Model, Shard
from fedunlearn.lineage.subset import Bits
from fedunlearn.plain import Place, shaped


class _Lineage(TypedDict):
    models: list[dict[str, Any]]
    tests: dict[Place, list[str]]


@dataclass(frozen=True)
class Lineage:
    """Models in order of time, checked when made: a parent stands before its children.

    Args:
        models: the nodes; the edges are their parents.
        tests: for each place, the classes of which it has held-out rows to test on.
        departed: places that are gone for good, with their rows and their models' weights.

    Raises:
        InputError: duplicate names, unknown parents, a cycle (with its members), or a child listed before its parent.
    """

    models: tuple[Model, ...]
    tests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    departed: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        order = self._order
        if len(order) < len(self.models):
            seen: set[str] = set()
            twice = sorted({m.name for m in self.models if m.name in seen or seen.add(m.name)})  # type: ignore[func-returns-value]
            raise InputError(f"lineage: more than one model is named {', '.join(map(repr, twice))}")
        late = None
        for model in self.models:
            for parent in model.parents:
                if parent not in order:
                    raise unknown("parent", parent, order.keys() - {model.name}, where=f"model {model.name!r}")
                if order[parent] > order[model.name]:
                    late = late or (model.name, parent)
        if late:
            _refuse_cycle(self.graph)
            raise InputError(f"lineage: {late[0]!r} is listed before its parent {late[1]!r}; list models in order of time")

    @cached_property
    def by_name(self) -> dict[str, Model]:
        """Models by name, in order of time."""
        return {m.name: m for m in self.models}

    @cached_property
    def children(self) -> dict[str, list[str]]:
        """Of every model that has any, in order of time."""
        found = defaultdict[str, list[str]](list)
        for model in self.models:
            for parent in model.parents:
                found[parent].append(model.name)
        return dict(found)

    @cached_property
    def _order(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.by_name)}

    @cached_property
    def graph(self) -> "nx.DiGraph[str]":
        """Edges from parent to child; open for reading."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(m.name for m in self.models)
        graph.add_edges_from((p, m.name) for m in self.models for p in m.parents)
        return graph

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """Places whose data trained a model, departed ones included."""
        return tuple(sorted({s.site for m in self.models for s in m.data}))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Every class that a model has an output for or was trained on."""
        heads = {c for head in {m.head for m in self.models} for c in head}
        return tuple(sorted(heads | {c for m in self.models for s in m.data for c in s.rows}))

    def __getitem__(self, name: str) -> Model:
        """The model of that name.

        Raises:
            InputError: there is none; says the nearest name.
        """
        if name not in self.by_name:
            raise unknown("model", name, self.by_name)
        return self.by_name[name]

    def own(self, name: str) -> tuple[Shard, ...]:
        """The shards that weigh a model: those that trained it, or for an average those of the models it averaged.

        A global model has no data of its own; its Fisher is pooled over the clients whose updates it averaged.
        """
        found: dict[str, Shard] = {}
        walk, seen = [name], {name}
        while walk:
            model = self[walk.pop()]
            for shard in model.data:
                found.setdefault(shard.key, shard)
            if not model.data:
                new = [p for p in model.parents if p not in seen]
                seen.update(new)
                walk += new
        return tuple(found[k] for k in sorted(found))

    def untaught(self, name: str) -> tuple[str, ...]:
        """Outputs of a model of whose class no recorded row trained it or an ancestor."""
        past = {name, *nx.ancestors(self.graph, name)}
        taught = {c for one in past for shard in self[one].data for c, n in shard.rows.items() if n}
        return tuple(c for c in self[name].head if c not in taught)

    def weighing(self, name: str) -> tuple[Shard, ...]:
        """Of the shards that weigh a model, those of places that are still there."""
        return tuple(s for s in self.own(name) if s.site not in self.departed)

    def inherited(self, own: Mapping[str, Bits]) -> dict[str, Bits]:
        """What of all that is some models' own is a model's or an ancestor's; of each that has any, in order of time."""
        found: dict[str, Bits] = {}
        same: dict[Bits, Bits] = {}  # a million models share few sets, however large these are
        for model in self.models:
            bits = own.get(model.name, 0)
            for parent in model.parents:
                bits |= found.get(parent, 0)
            if bits:
                found[model.name] = same.setdefault(bits, bits)
        return found

    def kept_parents(self, name: str) -> tuple[str, ...]:
        """The nearest kept ancestors, past retired ones, in order of time."""
        found, walk, seen = set(), list(self[name].parents), set(self[name].parents)
        while walk:
            parent = self[walk.pop()]
            if parent.kept:
                found.add(parent.name)
            else:
                new = [p for p in parent.parents if p not in seen]
                seen.update(new)
                walk += new
        return tuple(sorted(found, key=self._order.__getitem__))

    def shares_head(self, a: str, b: str) -> bool:
        """Whether the heads of two models descend from a common one. Increments grow a head, transfers replace it."""
        return bool(self._head_origins[a] & self._head_origins[b])

    @cached_property
    def _head_origins(self) -> dict[str, frozenset[str]]:
        origins: dict[str, frozenset[str]] = {}
        for model in self.models:
            if model.born == "transfer" or not model.parents:
                origins[model.name] = frozenset([model.name])
            elif len(model.parents) == 1:  # the same set, not a copy: every client of a round has one
                origins[model.name] = origins[model.parents[0]]
            else:
                origins[model.name] = frozenset[str]().union(*(origins[p] for p in model.parents))
        return origins

    @cached_property
    def rows(self) -> dict[str, dict[str, int]]:
        """`site/shard` -> class -> the most rows of it that any model saw there."""
        found: dict[str, dict[str, int]] = {}
        for shard in (s for m in self.models for s in m.data):
            seen = found.setdefault(shard.key, {})
            seen |= {c: max(n, seen.get(c, 0)) for c, n in shard.rows.items()}
        return found

    def without(self, places: Collection[str]) -> Self:
        """As it is once some places are gone for good: their models are retired, and nothing can be asked of them."""
        if not places:
            return self
        models = tuple(replace(m, kept=False) if m.kept and m.home in places else m for m in self.models)
        tests = {place: classes for place, classes in self.tests.items() if place not in places}
        return replace(self, models=models, tests=tests, departed=self.departed | frozenset(places))

    def to_json(self) -> dict[str, Any]:
        """As plain data; `from_json` is its inverse, but for who has departed, which the ledger says."""
        return {"models": [m.to_json() for m in self.models], "tests": {k: list(v) for k, v in self.tests.items()}}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError: it is not what `to_json` gives.
            InputError: models do not follow from one another.
        """
        shaped(plain, _Lineage)
        return cls(tuple(map(Model.from_json, plain["models"])), {k: tuple(v) for k, v in plain["tests"].items()})


def ordered(parents: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Names so that parents come first, otherwise as given.

    Raises:
        InputError: an unknown parent, or a cycle (with its members).
    """
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(parents)
    for child, named in parents.items():
        for parent in named:
            if parent not in parents:
                raise unknown("parent", parent, parents.keys() - {child}, where=f"model {child!r}")
            graph.add_edge(parent, child)
    _refuse_cycle(graph)
    place = {name: i for i, name in enumerate(parents)}
    order: Iterable[str] = nx.lexicographical_topological_sort(graph, key=place.__getitem__)
    return tuple(order)


def _refuse_cycle(graph: "nx.DiGraph[str]") -> None:
    try:
        members = [a for a, _ in nx.find_cycle(graph)]
    except nx.NetworkXNoCycle:
        return
    raise InputError(f"lineage: models inherit in a cycle: {' -> '.join([*members, members[0]])}")
