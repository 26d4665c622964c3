"""What a request touches: roots, heirs, where to measure, and what each heir should look like after."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from fedunlearn.lineage.model import Shard
from fedunlearn.lineage.request import Request

ABSENT, AS_RETRAINED, NOT_EXPRESSIBLE = "absent", "as_retrained", "not_expressible"
MAJORITY = 3  # the fewest sites of which two can outvote a third


@dataclass(frozen=True, slots=True)
class Point:
    """Where evidence is measured: a kept model, on what is to be forgotten of one shard, at the shard's site.

    Args:
        model: the kept model to measure.
        site: who holds the shard.
        shard: `site/name`.
        classes: the classes to measure; empty for samples.
        keys: the samples to measure; empty for classes.
    """

    model: str
    site: str
    shard: str
    classes: tuple[str, ...]
    keys: tuple[str, ...]


class Heir(NamedTuple):
    """A kept model that the data reached; a tuple, since a plan may make a million of them.

    Args:
        name: the model.
        home: who holds its weights.
        target: "absent" (no source of the classes is left for it), "as_retrained" (judged by what a retrained model
            shows) or "not_expressible" (no output for the classes).
        classes: of the classes asked for, those that reached it; another that it knows, from sites that may keep it, is part of
            the rest. Empty for samples and whole sites.
        sources: the roots among its ancestors, itself included.
        points: evidence points, without duplicates.
        borrowed: models among the points that are no ancestors of it (nothing kept stands between root and heir).
        unmeasured: roots for which no kept model can stand in.
        own: the shards that weigh it (see `Lineage.weighing`).
        holds_class: whether a site that trained it directly, or one of an average's clients, has rows to be forgotten.
        tested: whether its home has rows of all that is forgotten to score it on: held-out ones of the classes or, of samples
            and sites, those very rows.
        foreign: models among the points with another architecture: evidence of them flows only where names, shapes and classes
            agree.
        absent: classes of which no source is left for it, where the target is "as_retrained" for the sake of others.
        out_of_reach: shards of what is to be forgotten that it has from places that have departed: nobody measures or tests on
            them any more.
    """

    name: str
    home: str
    target: str
    classes: tuple[str, ...]
    sources: Sequence[str]
    points: Sequence[Point]
    borrowed: tuple[str, ...]
    unmeasured: tuple[str, ...]
    own: tuple[Shard, ...]
    holds_class: bool
    tested: bool
    foreign: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    out_of_reach: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What a request touches. Changes nothing.

    Args:
        request: what is to be forgotten.
        roots: models that the data entered directly, in order of time.
        affected: roots and all their descendants, breadth-first, each once, retired ones included.
        sources: for every affected model, the roots among its ancestors and itself.
        heirs: the kept models among the affected, in the same order.
        points: every evidence point of any heir, without duplicates.
        rows: how many rows must be read to measure them.
        sent: bytes of evidence that the sites of the points send, as float64.
        cases: of a request that merges others: the roots of each, by id.
    """

    request: Request
    roots: tuple[str, ...]
    affected: tuple[str, ...]
    sources: Mapping[str, Sequence[str]]
    heirs: tuple[Heir, ...]
    points: tuple[Point, ...]
    rows: int
    sent: int
    cases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def untested(self) -> tuple[str, ...]:
        """Heirs for which a score on what is forgotten is due and their home lacks rows to take it on."""
        return tuple(h.name for h in self.heirs if not h.tested and h.target != NOT_EXPRESSIBLE)

    @property
    def unopposed(self) -> Mapping[str, tuple[str, ...]]:
        """Heirs whose evidence comes from one site or two, and from which: no merge outvotes a site there that lies."""
        votes = {h.name: _first_sites(h.points) for h in self.heirs}
        return {name: sites for name, sites in votes.items() if 0 < len(sites) < MAJORITY}

    @cached_property
    def classes_of(self) -> dict[str, tuple[str, ...]]:
        """By heir, the classes that it is to forget."""
        return {h.name: h.classes for h in self.heirs}

    def of_case(self, case: str) -> tuple[str, ...]:
        """Heirs that one of the merged requests reaches."""
        roots = set(self.cases[case])
        return tuple(h.name for h in self.heirs if not roots.isdisjoint(h.sources))

    def to_json(self) -> dict[str, Any]:
        """As plain data, for people and machines to read."""
        heirs = [
            {
                "name": h.name,
                "home": h.home,
                "target": h.target,
                "classes": list(h.classes),
                "sources": list(h.sources),
                "points": [f"{p.model} @ {p.shard}" for p in h.points],
                "borrowed": list(h.borrowed),
                "unmeasured": list(h.unmeasured),
                "foreign": list(h.foreign),
                "absent": list(h.absent),
                "out_of_reach": list(h.out_of_reach),
                "weighed_by": [s.key for s in h.own],
                "holds_class": h.holds_class,
                "tested": h.tested,
            }
            for h in self.heirs
        ]
        return {
            "request": self.request.to_json(),
            "roots": list(self.roots),
            "affected": list(self.affected),
            "heirs": heirs,
            "rows": self.rows,
            "sent": self.sent,
            "untested": list(self.untested),
            "unopposed": {name: list(sites) for name, sites in self.unopposed.items()},
            "cases": {case: {"roots": list(roots), "heirs": list(self.of_case(case))} for case, roots in self.cases.items()},
        }


def _first_sites(points: Iterable[Point]) -> tuple[str, ...]:
    """As many as make a majority, or all."""
    sites: set[str] = set()
    for point in points:
        sites.add(point.site)
        if len(sites) == MAJORITY:
            break
    return tuple(sorted(sites))
