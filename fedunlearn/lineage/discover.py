"""Discovery: from a request to every affected model, breadth-first.

FIUn (arXiv 2408.08493) finds the unlearning subgraph breadth-first from the models that the data entered. Here each heir
also gets its own sources, so that evidence is merged over its ancestors only, and its own meaning of "forgotten".
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedunlearn.lineage.graph import Lineage
from fedunlearn.lineage.model import Model, Shard
from fedunlearn.lineage.plan import ABSENT, AS_RETRAINED, NOT_EXPRESSIBLE, Heir, Plan, Point
from fedunlearn.lineage.request import Request

Bits = int  # a set of roots or classes, as the bits of a whole number: a million models share few of them


def discover(lineage: Lineage, request: Request) -> Plan:
    """Find every model that a request touches, breadth-first.

    Args:
        lineage: the family.
        request: what is to be forgotten.

    Returns:
        The plan; without heirs when nobody holds what is asked for.

    Raises:
        InputError: the request names something that the lineage does not know.
    """
    request.check(lineage)
    entries, left, reached = _exposures(lineage, request)
    roots = tuple(entries)
    affected = tuple(_breadth_first(lineage, roots))
    bits = _sources(lineage, roots)
    names = {b: tuple(r for i, r in enumerate(roots) if b >> i & 1) for b in set(bits.values())}
    brought = {r: frozenset(c for s in shards for c in request.touches(s)) for r, shards in entries.items()}
    stand_in = _stand_ins(lineage, names, bits, brought)
    gone = _gone(request, entries)
    holders = frozenset(s.site for shards in entries.values() for s in shards)
    measured = _Measured(lineage, request, entries, gone, brought)
    shared: dict[Any, tuple[str, bool, _Evidence]] = {}  # what heirs with the same ancestors, outputs and home have in common
    heirs = []
    for model in (m for n in affected if (m := lineage.by_name[n]).kept):
        name = model.name
        alike = bits[name], id(stand_in[name]), reached[name], left[name], model.head, model.home, model.net
        if alike not in shared:
            evidence = measured.at(bits[name], names[bits[name]], stand_in[name], model.net)
            shared[alike] = *_aim(lineage, request, model, reached[name], left[name], evidence), evidence
        target, tested, evidence = shared[alike]
        own = model.data if len(model.data) == 1 else lineage.own(name)
        holds = not holders.isdisjoint([s.site for s in own])
        where = evidence.points, evidence.borrowed, evidence.unmeasured
        heirs.append(Heir(name, model.home, target, names[bits[name]], *where, own, holds, tested, evidence.foreign))
    points = tuple(sorted(measured.points, key=lambda p: (p.model, p.shard)))
    rows = sum(sum(gone[p.shard].values()) if p.classes else len(p.keys) for p in points)
    sent = sum(8 * lineage.by_name[p.model].size for p in points)
    cases = {r.id: tuple(n for n, shards in entries.items() if any(map(r.touches, shards))) for r in request.merges}
    return Plan(request, roots, affected, {n: names[bits[n]] for n in affected}, tuple(heirs), points, rows, sent, cases)


def _exposures(lineage: Lineage, request: Request) -> tuple[dict[str, list[Shard]], dict[str, Bits], dict[str, Bits]]:
    """In one pass over time: what entered where, and of which classes sources are left, and were reached, by ancestry."""
    asked = request.classes or lineage.classes
    bit = {c: 1 << i for i, c in enumerate(asked)}
    counted = request.since is None
    entries: dict[str, list[Shard]] = {}
    left: dict[str, Bits] = {}
    reached: dict[str, Bits] = {}
    for model in lineage.models:
        kept = got = 0
        for parent in model.parents:
            kept |= left[parent]
            got |= reached[parent]
        for shard in model.data:
            here = [c for c, n in shard.rows.items() if n and c in bit]
            if not here and not request.samples:
                continue
            gone = request.touches(shard) if counted else ()
            if gone:
                entries.setdefault(model.name, []).append(shard)
            for c in here:
                if c in gone:
                    got |= bit[c]
                else:
                    kept |= bit[c]
        left[model.name], reached[model.name] = kept, got
        counted = counted or model.name == request.since
    return entries, left, reached


def _breadth_first(lineage: Lineage, roots: Iterable[str]) -> Iterator[str]:
    queue = deque(dict.fromkeys(roots))
    seen = set(queue)
    while queue:
        name = queue.popleft()
        yield name
        for child in lineage.children.get(name, ()):
            if child not in seen:
                seen.add(child)
                queue.append(child)


def _sources(lineage: Lineage, roots: tuple[str, ...]) -> dict[str, Bits]:
    """For every affected model, in order of time."""
    own = {r: 1 << i for i, r in enumerate(roots)}
    found: dict[str, Bits] = {}
    for model in lineage.models:
        bits = own.get(model.name, 0)
        for parent in model.parents:
            bits |= found.get(parent, 0)
        if bits:
            found[model.name] = bits
    return found


def _asked(lineage: Lineage, request: Request, reached: Bits) -> frozenset[str]:
    return frozenset(c for i, c in enumerate(request.classes or lineage.classes) if reached >> i & 1)


def _stand_ins(
    lineage: Lineage,
    names: Mapping[Bits, tuple[str, ...]],
    bits: Mapping[str, Bits],
    brought: Mapping[str, frozenset[str]],
) -> dict[str, Mapping[str, str]]:
    """For every affected model: root -> the earliest kept model between them with an output for what the root brought.

    A retired root has no weights to measure; the nearest kept model downstream of it, on the way to the heir, stands in. A root
    that can be measured itself is in none of these. Models with the same ancestors share one mapping, told apart by identity.
    """

    def measurable(model: Model, root: str) -> bool:
        return model.kept and not brought[root].isdisjoint(model.head)

    nothing: Mapping[str, str] = {}
    lacking = {r for r in brought if not measurable(lineage.by_name[r], r)}
    if not lacking:
        return dict.fromkeys(bits, nothing)
    wanted = {b: tuple(r for r in roots if r in lacking) for b, roots in names.items()}
    order = {n: i for i, n in enumerate(bits)}
    found: dict[str, Mapping[str, str]] = {}
    merged: dict[tuple[int, int], Mapping[str, str]] = {}
    alike: dict[frozenset[tuple[str, str]], Mapping[str, str]] = {}
    for name, its in bits.items():
        roots, best, model = wanted[its], nothing, lineage.by_name[name]
        for parent in (found[p] for p in model.parents if p in found) if roots else ():
            if not best or best is parent:
                best = parent
                continue
            pair = id(best), id(parent)
            if pair not in merged:
                earlier = {r: m for r, m in parent.items() if r not in best or order[m] < order[best[r]]}
                both = {**best, **earlier} if earlier else best
                merged[pair] = alike.setdefault(frozenset(both.items()), both)
            best = merged[pair]
        if len(best) < len(roots):
            named = {r: name for r in roots if r not in best and measurable(model, r)}
            best = {**best, **named} if named else best
        found[name] = best
    return found


def _aim(
    lineage: Lineage, request: Request, model: Model, reached: Bits, left: Bits, evidence: "_Evidence"
) -> tuple[str, bool]:
    """What an heir should look like after, and whether its home can test that."""
    wanted = _asked(lineage, request, reached) & set(model.head)
    absent = bool(request.classes) and not wanted & _asked(lineage, request, left)
    target = NOT_EXPRESSIBLE if not wanted else ABSENT if absent else AS_RETRAINED
    if request.classes:
        return target, bool(wanted) and wanted <= set(lineage.tests.get(model.home, ()))
    return target, model.home in evidence.sites  # scored on the forgotten rows themselves, which only their own sites hold


@dataclass(frozen=True)
class _Evidence:
    points: tuple[Point, ...]
    borrowed: tuple[str, ...]
    unmeasured: tuple[str, ...]
    foreign: tuple[str, ...]
    sites: frozenset[str]


@dataclass(frozen=True)
class _Measured:
    """Where the evidence of roots is measured; heirs with the same ancestors share it, however many they are."""

    lineage: Lineage
    request: Request
    entries: Mapping[str, list[Shard]]
    gone: Mapping[str, Mapping[str, int]]
    brought: Mapping[str, frozenset[str]]
    points: dict[Point, Point] = field(default_factory=dict)
    _near: dict[str, str | None] = field(default_factory=dict)
    _of_roots: dict[tuple[str, str], tuple[Point, ...]] = field(default_factory=dict)
    _of_heirs: dict[tuple[Bits, int, str], _Evidence] = field(default_factory=dict)

    def at(self, bits: Bits, sources: tuple[str, ...], stand_in: Mapping[str, str], net: str) -> _Evidence:
        """For an heir with these roots among its ancestors; stand-ins are told apart by identity."""
        alike = bits, id(stand_in), net
        if alike not in self._of_heirs:
            self._of_heirs[alike] = self._evidence(sources, stand_in, net)
        return self._of_heirs[alike]

    def _evidence(self, sources: tuple[str, ...], stand_in: Mapping[str, str], net: str) -> _Evidence:
        points: dict[int, Point] = {}  # equal ones are the same here
        borrowed, unmeasured = set(), []
        for root in sources:
            at = stand_in.get(root)
            if at is None:
                at = self._nearest(root)
                if at is None:
                    unmeasured.append(root)
                    continue
                if at != root:
                    borrowed.add(at)
            points.update((id(p), p) for p in self._points(root, at))
        found = tuple(points.values())
        foreign = {p.model for p in found if self.lineage.by_name[p.model].net != net}
        sites = frozenset(p.site for p in found)
        return _Evidence(found, tuple(sorted(borrowed)), tuple(unmeasured), tuple(sorted(foreign)), sites)

    def _nearest(self, root: str) -> str | None:
        """The root itself, or the kept model nearest to it, whether or not it is on the way to the heir."""
        if root not in self._near:
            self._near[root] = _nearest_kept(self.lineage, root, self.brought[root])
        return self._near[root]

    def _points(self, root: str, at: str) -> tuple[Point, ...]:
        if (root, at) not in self._of_roots:
            found = []
            for shard in self.entries[root]:
                keys = self.request.shards.get(shard.key, ())
                point = Point(at, shard.site, shard.key, () if keys else tuple(self.gone[shard.key]), keys)
                found.append(self.points.setdefault(point, point))
            self._of_roots[root, at] = tuple(found)
        return self._of_roots[root, at]


def _nearest_kept(lineage: Lineage, root: str, classes: frozenset[str]) -> str | None:
    for name in _breadth_first(lineage, [root]):
        model = lineage.by_name[name]
        if model.kept and not classes.isdisjoint(model.head):
            return name
    return None


def _gone(request: Request, entries: Mapping[str, list[Shard]]) -> dict[str, dict[str, int]]:
    """For every shard, how many rows of which class are to be forgotten; models may have used different parts of it."""
    found: dict[str, dict[str, int]] = {}
    for shard in (s for held in entries.values() for s in held):
        rows = found.setdefault(shard.key, {})
        for c in request.touches(shard):
            rows[c] = max(rows.get(c, 0), shard.rows[c])
    return found
