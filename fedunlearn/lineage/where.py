"""Where evidence is measured: at the roots themselves, or at models that stand in for those whose weights are gone.

Sets of roots and of points are the bits of whole numbers. A federation of a thousand clients has as many roots each round, and
every one of its models descends from some other set of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import itemgetter, or_
from typing import NamedTuple, final

from fedunlearn.lineage.graph import Lineage
from fedunlearn.lineage.model import Shard
from fedunlearn.lineage.plan import Point
from fedunlearn.lineage.request import Request
from fedunlearn.lineage.subset import Bits, Subset, positions


class StandIns(NamedTuple):
    """Who stands in for roots that cannot be measured, between them and a model; told apart by identity.

    Args:
        of: model -> the roots it stands in for; the earliest model first.
        roots: all of them.
    """

    of: Mapping[str, Bits]
    roots: Bits


NOBODY = StandIns({}, 0)


@dataclass(frozen=True)
class Placed:
    """Where it is measured for heirs with the same ancestors and architecture; see `Heir`."""

    points: Subset[Point]
    borrowed: tuple[str, ...]
    unmeasured: tuple[str, ...]
    foreign: tuple[str, ...]


@final
class Where:
    """The points of one request.

    Args:
        lineage: the family.
        request: what is to be forgotten.
        entries: the shards that it entered by, of every root, in order of time. Those of places that have departed cannot be
            measured any more, anywhere.
        gone: for each of them, how many rows of which class are to be forgotten.
    """

    def __init__(
        self, lineage: Lineage, request: Request, entries: Mapping[str, Sequence[Shard]], gone: Mapping[str, Mapping[str, int]]
    ) -> None:
        self._lineage, self._request, self._gone = lineage, request, gone
        self._roots = tuple(entries)
        self._bit = positions(self._roots)
        self._entries = _present(entries, lineage.departed)
        self._departed = reduce(or_, (self._bit[root] for root, shards in self._entries.items() if not shards), 0)
        self._brought = positions(frozenset(c for s in held for c in request.touches(s)) for held in self._entries.values())
        self._nets = positions(lineage.by_name[r].net for r in self._roots)
        self._able: dict[tuple[str, ...], Bits] = {}
        self._known: dict[tuple[Bits, int, str], Placed] = {}
        self._standing: dict[tuple[str, Bits], Bits] = {}
        self._index: dict[Point, int] = {}
        self.points: list[Point] = []
        self.at_site: dict[str, Bits] = {}  # which points
        models = [(bit, lineage.by_name[r]) for r, bit in self._bit.items()]
        lacking = reduce(or_, (bit for bit, m in models if not (m.kept and self._measures(m.head) & bit)), 0)
        self._lacking = lacking & ~self._departed
        self.own = {m.name: self._points(m.name, bit) for bit, m in models if not bit & self._lacking}

    def stand_ins(self, sources: Mapping[str, Bits]) -> dict[str, StandIns]:
        """For every model with sources: between each that cannot be measured and it, the earliest kept model that can be.

        Args:
            sources: the roots among each model's ancestors and itself, in order of time.
        """
        if not self._lacking:
            return dict.fromkeys(sources, NOBODY)
        order = {name: i for i, name in enumerate(sources)}
        found: dict[str, StandIns] = {}
        merged: dict[tuple[int, int], StandIns] = {}
        alike: dict[frozenset[tuple[str, Bits]], StandIns] = {}
        for name, roots in sources.items():
            model, best = self._lineage.by_name[name], NOBODY
            for theirs in (found[p] for p in model.parents if p in found):
                if not best.roots or not theirs.roots or best is theirs:
                    best = best if best.roots else theirs
                    continue
                pair = id(best), id(theirs)
                if pair not in merged:
                    both = _earlier(best, theirs, order)
                    merged[pair] = alike.setdefault(frozenset(both.of.items()), both)
                best = merged[pair]
            if model.kept and (new := roots & self._lacking & ~best.roots & self._measures(model.head)):
                best = StandIns({**best.of, name: new}, best.roots | new)
            found[name] = best
        return found

    def evidence(self, sources: Bits, own: Bits, stand_ins: StandIns, net: str) -> Placed:
        """Where it is measured for a model.

        Args:
            sources: the roots among its ancestors and itself.
            own: the points of those that can be measured themselves.
            stand_ins: for those that cannot.
            net: its architecture.
        """
        alike = sources, id(stand_ins), net
        if alike not in self._known:
            self._known[alike] = self._evidence(sources, own, stand_ins, net)
        return self._known[alike]

    def _evidence(self, sources: Bits, own: Bits, stand_ins: StandIns, net: str) -> Placed:
        borrowed, unmeasured, far = [], sources & self._departed, {}
        if left := sources & self._lacking & ~stand_ins.roots:
            far = {at: left & roots for at, roots in self._nearest.items() if left & roots}
            unmeasured |= left & ~reduce(or_, far.values(), 0)
            borrowed = sorted(far)
        at = [*stand_ins.of.items(), *far.items()]
        points = reduce(or_, (self._points(*one) for one in at), own)
        others = Subset(self._roots, sources & ~self._lacking & ~self._nets.get(net, 0))
        foreign = sorted({m for m, _ in at if self._lineage.by_name[m].net != net} | set(others))
        missing = tuple(Subset(self._roots, unmeasured))
        return Placed(Subset(self.points, points), tuple(borrowed), missing, tuple(foreign))

    def _measures(self, head: tuple[str, ...]) -> Bits:
        """The roots that brought a class for which a head has an output."""
        if head not in self._able:
            self._able[head] = reduce(or_, (bits for classes, bits in self._brought.items() if not classes.isdisjoint(head)), 0)
        return self._able[head]

    def _points(self, at: str, roots: Bits) -> Bits:
        """What is to be forgotten of all that came in by some roots, measured at one model."""
        if (at, roots) not in self._standing:
            found = 0
            for shard in (s for root in Subset(self._roots, roots) for s in self._entries[root]):
                keys = self._request.shards.get(shard.key, ())
                point = Point(at, shard.site, shard.key, () if keys else tuple(self._gone[shard.key]), keys)
                if point not in self._index:
                    self._index[point] = len(self.points)
                    self.points.append(point)
                    self.at_site[shard.site] = self.at_site.get(shard.site, 0) | 1 << self._index[point]
                found |= 1 << self._index[point]
            self._standing[at, roots] = found
        return self._standing[at, roots]

    @cached_property
    def _nearest(self) -> dict[str, Bits]:
        """Kept model -> the roots that cannot be measured to which it is the nearest, breadth-first, whoever asks."""
        found: dict[str, Bits] = {}
        for classes, brought in self._brought.items():
            if not (roots := brought & self._lacking):
                continue
            near: dict[str, tuple[int, str]] = {}
            for model in reversed(self._lineage.models):
                if model.kept and not classes.isdisjoint(model.head):
                    near[model.name] = 0, model.name
                elif below := [near[c] for c in self._lineage.children.get(model.name, ()) if c in near]:
                    steps, at = min(below, key=itemgetter(0))
                    near[model.name] = steps + 1, at
            for root in (r for r in Subset(self._roots, roots) if r in near):
                _, at = near[root]
                found[at] = found.get(at, 0) | self._bit[root]
        return found


def _present(entries: Mapping[str, Sequence[Shard]], departed: frozenset[str]) -> Mapping[str, Sequence[Shard]]:
    """The shards of places that are still there."""
    return {root: [s for s in held if s.site not in departed] for root, held in entries.items()} if departed else entries


def _earlier(a: StandIns, b: StandIns, order: Mapping[str, int]) -> StandIns:
    """Of both; for a root that has two, the earlier one."""
    of: dict[str, Bits] = {}
    taken = 0
    for model in sorted({*a.of, *b.of}, key=order.__getitem__):
        if new := (a.of.get(model, 0) | b.of.get(model, 0)) & ~taken:
            of[model], taken = new, taken | new
    return StandIns(of, taken)
