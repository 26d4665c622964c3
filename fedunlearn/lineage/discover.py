"""Discovery: from a request to every affected model, breadth-first.

FIUn (arXiv 2408.08493) finds the unlearning subgraph breadth-first from the models that the data entered. Here each heir
also gets its own sources, so that evidence is merged over its ancestors only, and its own meaning of "forgotten".
"""

from collections import deque
from collections.abc import Mapping

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
    affected = _breadth_first(lineage, roots)
    in_time = [m for m in lineage.models if m.name in affected]
    bits = _sources(in_time, roots)
    names = {b: tuple(r for i, r in enumerate(roots) if b >> i & 1) for b in set(bits.values())}
    brought = {r: frozenset(c for s in shards for c in request.touches(s)) for r, shards in entries.items()}
    stand_in = _stand_ins(in_time, names, bits, brought)
    gone = _gone(request, entries)
    heirs = tuple(
        _heir(lineage, request, lineage.by_name[n], names[bits[n]], entries, gone, brought, stand_in[n], left, reached)
        for n in affected
        if lineage.by_name[n].kept
    )
    points = tuple(sorted({p for h in heirs for p in h.points}, key=lambda p: (p.model, p.shard)))
    rows = sum(sum(gone[p.shard].values()) if p.classes else len(p.keys) for p in points)
    sent = sum(8 * lineage.by_name[p.model].size for p in points)
    return Plan(request, roots, tuple(affected), {n: names[bits[n]] for n in affected}, heirs, points, rows, sent)


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
            gone = request.touches(shard) if counted else ()
            if gone:
                entries.setdefault(model.name, []).append(shard)
            for c, n in shard.rows.items():
                if c in bit and n:
                    got |= bit[c] if c in gone else 0
                    kept |= bit[c] if c not in gone else 0
        left[model.name], reached[model.name] = kept, got
        counted = counted or model.name == request.since
    return entries, left, reached


def _breadth_first(lineage: Lineage, roots: tuple[str, ...]) -> dict[str, None]:
    seen = dict.fromkeys(roots)
    queue = deque(roots)
    while queue:
        for child in lineage.graph.adj[queue.popleft()]:
            if child not in seen:
                seen[child] = None
                queue.append(child)
    return seen


def _sources(in_time: list[Model], roots: tuple[str, ...]) -> dict[str, Bits]:
    own = {r: 1 << i for i, r in enumerate(roots)}
    found: dict[str, Bits] = {}
    for model in in_time:
        bits = own.get(model.name, 0)
        for parent in model.parents:
            bits |= found.get(parent, 0)
        found[model.name] = bits
    return found


def _asked(lineage: Lineage, request: Request, reached: Bits) -> frozenset[str]:
    return frozenset(c for i, c in enumerate(request.classes or lineage.classes) if reached >> i & 1)


def _stand_ins(
    in_time: list[Model],
    names: Mapping[Bits, tuple[str, ...]],
    bits: Mapping[str, Bits],
    brought: Mapping[str, frozenset[str]],
) -> dict[str, Mapping[str, str]]:
    """For every affected model: root -> the earliest kept model between them with an output for what the root brought.

    A retired root has no weights to measure; the nearest kept model downstream of it, on the way to the heir, stands in.
    """
    order = {m.name: i for i, m in enumerate(in_time)}
    found: dict[str, Mapping[str, str]] = {}
    for model in in_time:
        best: Mapping[str, str] = {}
        for parent in (found[p] for p in model.parents if p in found):
            if not best or best is parent:
                best = parent
            else:
                earlier = {r: m for r, m in parent.items() if r not in best or order[m] < order[best[r]]}
                best = {**best, **earlier} if earlier else best
        roots = names[bits[model.name]]
        if model.kept and len(best) < len(roots):
            named = {r: model.name for r in roots if r not in best and not brought[r].isdisjoint(model.head)}
            best = {**best, **named} if named else best
        found[model.name] = best
    return found


def _heir(
    lineage: Lineage,
    request: Request,
    model: Model,
    sources: tuple[str, ...],
    entries: Mapping[str, list[Shard]],
    gone: Mapping[str, Mapping[str, int]],
    brought: Mapping[str, frozenset[str]],
    stand_in: Mapping[str, str],
    left: Mapping[str, Bits],
    reached: Mapping[str, Bits],
) -> Heir:
    wanted = _asked(lineage, request, reached[model.name]) & set(model.head)
    if not wanted:
        target = NOT_EXPRESSIBLE
    elif request.classes and not wanted & _asked(lineage, request, left[model.name]):
        target = ABSENT
    else:
        target = AS_RETRAINED
    points: dict[Point, None] = {}
    borrowed, unmeasured = set(), []
    for root in sources:
        at = stand_in.get(root)
        if at is None:
            at = _nearest_kept(lineage, root, brought[root])
            if at is None:
                unmeasured.append(root)
                continue
            borrowed.add(at)
        for shard in entries[root]:
            keys = request.shards.get(shard.key, ())
            points[Point(at, shard.site, shard.key, () if keys else tuple(gone[shard.key]), keys)] = None
    own = lineage.own(model.name)
    if request.classes:
        tested = bool(wanted) and wanted <= set(lineage.tests.get(model.home, ()))
    else:  # scored on the forgotten rows themselves, which only their own sites hold
        tested = model.home in {p.site for p in points}
    return Heir(
        model.name,
        model.home,
        target,
        sources,
        tuple(points),
        tuple(sorted(borrowed)),
        tuple(unmeasured),
        own,
        bool({k.split("/")[0] for k in gone} & {s.site for s in own}),
        tested,
        tuple(sorted({p.model for p in points if lineage.by_name[p.model].net != model.net})),
    )


def _nearest_kept(lineage: Lineage, root: str, classes: frozenset[str]) -> str | None:
    for name in _breadth_first(lineage, (root,)):
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
