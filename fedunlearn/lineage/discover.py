"""Discovery: from a request to every affected model, breadth-first.

FIUn (arXiv 2408.08493) finds the unlearning subgraph breadth-first from the models that the data entered. Here each heir
also gets its own sources, so that evidence is merged over its ancestors only, and its own meaning of "forgotten".
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache

from fedunlearn.lineage.graph import Lineage
from fedunlearn.lineage.model import Shard
from fedunlearn.lineage.plan import ABSENT, AS_RETRAINED, NOT_EXPRESSIBLE, Heir, Plan, Point
from fedunlearn.lineage.request import Request
from fedunlearn.lineage.subset import Bits, Subset, positions
from fedunlearn.lineage.where import Where


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
    affected = _breadth_first(lineage, roots)
    bit = positions(roots)
    bits = lineage.inherited(bit)
    sources: dict[Bits, Sequence[str]] = {b: Subset(roots, b) for b in set(bits.values())}
    gone = _gone(request, entries)
    holders = frozenset(s.site for shards in entries.values() for s in shards)
    out_of_reach = _out_of_reach(lineage, entries, bit)
    where, aim, nothing = Where(lineage, request, entries, gone), _aims(lineage, request), frozenset[str]()
    own_points = bits if where.own == bit else lineage.inherited(where.own)
    stand_ins = where.stand_ins(bits)
    heirs, by_name, tests = [], lineage.by_name, {home: frozenset(classes) for home, classes in lineage.tests.items()}
    for name in affected:
        model = by_name[name]
        if not model.kept:
            continue
        at = where.evidence(bits[name], own_points.get(name, 0), stand_ins[name], model.net)
        target, classes, wanted, absent = aim(reached[name], left[name], model.head)
        if request.classes:
            tested = bool(wanted) and wanted <= tests.get(model.home, nothing)
        else:  # scored on the forgotten rows themselves, which only their own sites hold: some or all of them its home
            tested = bool(at.points.bits) and not at.points.bits & ~where.at_site.get(model.home, 0)
        own = model.data if len(model.data) == 1 else lineage.own(name)
        holds = not holders.isdisjoint([s.site for s in own])
        away = tuple(shard for shard, roots_ in out_of_reach.items() if roots_ & bits[name])
        if lineage.departed:
            own = lineage.weighing(name)
            tested = tested and (bool(request.classes) or not away)
        of, told = sources[bits[name]], (at.points, at.borrowed, at.unmeasured)
        heirs.append(Heir(name, model.home, target, classes, of, *told, own, holds, tested, at.foreign, absent, away))
    points = tuple(where.points)
    seen = gone if request.since is None else lineage.rows  # a class is measured on all rows of it that its shard has
    rows = sum(sum(seen[p.shard][c] for c in p.classes) if p.classes else len(p.keys) for p in points)
    sent = sum(8 * lineage.by_name[p.model].size for p in points)
    cases = {r.id: tuple(n for n, shards in entries.items() if any(map(r.touches, shards))) for r in request.merges}
    return Plan(request, roots, affected, {n: sources[bits[n]] for n in affected}, tuple(heirs), points, rows, sent, cases)


def narrowed(lineage: Lineage, plan: Plan, names: Container[str]) -> Plan:
    """A plan for some of its heirs: with the evidence points, rows and bytes that these need.

    Args:
        lineage: that it was made on.
        plan: the whole.
        names: of the heirs to keep.
    """
    heirs = tuple(h for h in plan.heirs if h.name in names)
    needed = {p for h in heirs for p in h.points}
    points = tuple(p for p in plan.points if p in needed)
    rows, sent = sum(rows_of(lineage, p) for p in points), sum(8 * lineage[p.model].size for p in points)
    return replace(plan, heirs=heirs, points=points, rows=rows, sent=sent)


def unaccounted(lineage: Lineage, request: Request, affected: Container[str]) -> list[str]:
    """Models that came with their weights and an output for what is to be forgotten, which nothing recorded has taught.

    Args:
        lineage: the family.
        request: what is to be forgotten.
        affected: models that it reaches, which are left out.
    """
    asked = {c for one in request.merges or (request,) for c in one.classes}
    mine = (m for m in lineage.models if m.kept and m.imported and m.name not in affected and not asked.isdisjoint(m.head))
    return [m.name for m in mine if not asked.isdisjoint(lineage.untaught(m.name))]


def rows_of(lineage: Lineage, point: Point) -> int:
    """How many rows of what is to be forgotten the lineage saw in a point's shard."""
    if point.keys:
        return len(point.keys)
    seen = lineage.rows.get(point.shard, {})
    return sum(seen.get(c, 0) for c in set(point.classes))


def _out_of_reach(lineage: Lineage, entries: Mapping[str, list[Shard]], bit: Mapping[str, Bits]) -> dict[str, Bits]:
    """Shards of places that have departed -> the roots by which they entered."""
    found: dict[str, Bits] = {}
    for root, shards in entries.items() if lineage.departed else ():
        for shard in (s for s in shards if s.site in lineage.departed):
            found[shard.key] = found.get(shard.key, 0) | bit[root]
    return found


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


def _breadth_first(lineage: Lineage, roots: Iterable[str]) -> tuple[str, ...]:
    found, children = list(roots), lineage.children
    seen = set(found)
    for name in found:  # which grows meanwhile
        for child in children.get(name, ()):
            if child not in seen:
                seen.add(child)
                found.append(child)
    return tuple(found)


Aim = tuple[str, tuple[str, ...], frozenset[str], tuple[str, ...]]


def _aims(lineage: Lineage, request: Request) -> Callable[[Bits, Bits, tuple[str, ...]], Aim]:
    """An heir's target, what it is to forget, which outputs that concerns, and which of them must be absent all the same.

    By what reached the heir, what is left of it, and its head.
    """
    asked = request.classes or lineage.classes

    @cache
    def aim(reached: Bits, left: Bits, head: tuple[str, ...]) -> Aim:
        classes = tuple(Subset(asked, reached))
        wanted = frozenset(classes).intersection(head)
        gone = tuple(c for c in classes if c in wanted - set(Subset(asked, left))) if request.classes else ()
        target = NOT_EXPRESSIBLE if not wanted else ABSENT if len(gone) == len(wanted) else AS_RETRAINED
        return target, classes if request.classes else (), wanted, gone if target == AS_RETRAINED else ()

    return aim


def _gone(request: Request, entries: Mapping[str, list[Shard]]) -> dict[str, dict[str, int]]:
    """For every shard, how many rows of which class are to be forgotten; models may have used different parts of it."""
    found: dict[str, dict[str, int]] = {}
    for shard in (s for held in entries.values() for s in held):
        rows = found.setdefault(shard.key, {})
        for c in request.touches(shard):
            rows[c] = max(rows.get(c, 0), shard.rows[c])
    return found
