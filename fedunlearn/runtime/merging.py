"""Between the rounds: what the sites measured becomes the evidence of each heir."""

from collections.abc import Mapping, Sequence

from fedunlearn.lineage import Heir, Lineage, Plan, Point
from fedunlearn.methods import Case, Evidence, Method, Want
from fedunlearn.runtime.books.family import Family
from fedunlearn.runtime.rounds import Round1
from fedunlearn.runtime.tasks import Scored
from fedunlearn.runtime.watched import merged
from fedunlearn.tensors import align


def merge(family: Family, heir: Heir, plan: Plan, method: Method, found: Round1) -> Case:
    """The evidence of one heir in its own coordinates: one model's pools, different models' merge, its ancestors' only.

    A pooled mean has no sites left to outvote one another. Where a method lets sites vote, each site's own evidence is
    therefore merged first (pooled on one model, as the method's `vote` over several), and the method's merge is over sites.
    """
    mine = found.scored[heir.name]
    by_vote: dict[str, list[Point]] = {}
    measured = (p for p in found.asked.get(heir.name, ()) if p in found.points)
    for point in sorted(measured, key=lambda p: (p.model, p.shard, p.classes)):
        by_vote.setdefault(point.site if method.votes else "", []).append(point)
    votes = [_aligned(points, family.lineage, heir, plan, method, found) for points in by_vote.values()]
    aligned = [e for vote in votes for e in (method.vote(vote) if method.votes else vote)]
    evidence, own = merged(method, aligned) if aligned else (), found.own.get(heir.name, Evidence())
    return Case(evidence, own, mine.head, heir.classes, parameters=frozenset(mine.shapes))


def _aligned(
    points: Sequence[Point], lineage: Lineage, heir: Heir, plan: Plan, method: Method, found: Round1
) -> list[Evidence]:
    """Points pooled by model (and by class, where they are apart), in the heir's coordinates."""
    mine, want = found.scored[heir.name], method.wants(plan.request.classes)
    parts: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        about = ", ".join(point.classes) if method.apart and plan.request.classes else ""
        parts.setdefault((point.model, about), []).append(point)
    aligned = []
    for (model, about), of in parts.items():
        mean, count = found.mean(of, want.statistic if want else "")
        share = lineage.shares_head(model, heir.name)
        means = align(
            mean,
            found.scored[model].head,
            _coordinates(mine, want),
            mine.head,
            share_head=share,
        )[0]
        told = [p for p in of if p in found.enough]  # of sites on one model: the mean over rows, as of what it is a mean
        total = sum(found.points[p].count for p in told)
        enough = sum(found.enough[p] * found.points[p].count for p in told) / total if total else None
        aligned.append(Evidence(means, count, about, enough))
    return aligned


def _coordinates(mine: Scored, want: Want | None) -> Mapping[str, tuple[int, ...]]:
    """Shapes of an heir's evidence, by parameter."""
    units = want is not None and want.statistic == "activation"
    return {n: tuple(s[:1] if units else s) for n, s in mine.shapes.items()}
