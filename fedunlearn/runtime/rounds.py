"""The two rounds before the gate: measure and score, then edit what `merging` made of it. Answers are checked before use.

Long so that what a place is asked stands beside how its answer is checked.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from operator import itemgetter
from typing import NamedTuple

from fedunlearn.data import Selection
from fedunlearn.errors import SiteError
from fedunlearn.evaluation import Gate
from fedunlearn.importance import Importance, pool, to_mask
from fedunlearn.lineage import ABSENT, AS_RETRAINED, Heir, Lineage, Plan, Point, rows_of
from fedunlearn.methods import Case, Evidence, Method
from fedunlearn.methods.base import FORGOTTEN_AT_HEIRS, RETAINED_AT_HEIRS, Want
from fedunlearn.methods.calibration import NOTHING_LEFT
from fedunlearn.methods.menu import menu_name, settings_of
from fedunlearn.runtime.backend import Backend
from fedunlearn.runtime.books.family import Family
from fedunlearn.runtime.plausible import checked, is_zero, within
from fedunlearn.runtime.roll import Roll
from fedunlearn.runtime.scoring import gone_from, question_of, score_there, selection_of
from fedunlearn.runtime.settle import exclusions
from fedunlearn.runtime.tasks import Applied, Apply, Fetch, Fetched, Lot, Measure, Measured, Parts, Scored
from fedunlearn.tensors import PRECISIONS, Tensors, rounded


class Part(NamedTuple):
    """Rows of one shard that an heir is weighed on: of these classes, without those keys."""

    shard: str
    classes: tuple[str, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Round1:
    """What the sites measured.

    Args:
        scored: every heir whose home is there, and every other model that evidence is of, before.
        points: importance of what is forgotten, at every evidence point whose site is there (one for each class, where they are
            apart).
        own: what the heirs whose data lies elsewhere than at their home are on it.
        unweighed: heirs of which no row of their own may be used, or none is there.
        read: rows that were read to measure it; what came out of a bank reads none.
        enough: the number that was calibrated at each point, where the method has one.
        asked: every heir's evidence points, those included that nobody measured because a place is offline.
        precision: what sums were rounded to.
        guarded: of sites that say so, how they clipped rows and what noise they added.
    """

    scored: Mapping[str, Scored]
    points: Mapping[Point, Importance]
    own: Mapping[str, Evidence]
    unweighed: frozenset[str] = frozenset()
    read: int = 0
    enough: Mapping[Point, float] = field(default_factory=dict)
    asked: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)
    precision: str = "float64"
    guarded: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    _means: dict[tuple[tuple[Point, ...], str], tuple[Tensors, int]] = field(default_factory=dict, repr=False, compare=False)

    def mean(self, points: Sequence[Point], statistic: str) -> tuple[Tensors, int]:
        """Of points on one model, over all their rows, and how many those are; made once for all heirs that share them."""
        key = (tuple(points), statistic)
        if key not in self._means:
            pooled = pool([self.points[p] for p in points])
            self._means[key] = pooled.mean(statistic), pooled.count
        return self._means[key]

    def missing(self, heir: str) -> tuple[Point, ...]:
        """Evidence points of an heir that nobody measured."""
        return tuple(p for p in self.asked.get(heir, ()) if p not in self.points)

    def partly(self, heir: str, lineage: Lineage) -> Iterator[tuple[Point, int, int]]:
        """Evidence points of an heir that lack rows that were trained on: how many they were measured on, and of how many."""
        for point in (p for p in self.asked.get(heir, ()) if p in self.points):
            if (there := self.points[point].count) < (most := rows_of(lineage, point)):
                yield point, there, most

    def silent(self, heir: str) -> tuple[str, ...]:
        """Shards that an heir's evidence came from, where it is squares or the like and all zero; none otherwise."""
        points = [p for p in self.asked.get(heir, ()) if p in self.points]
        return tuple(dict.fromkeys(p.shard for p in points)) if all(is_zero(self.points[p]) for p in points) else ()

    @property
    def sent(self) -> int:
        """Bytes of evidence that the sites sent, at the precision to which it was rounded."""
        evidence = (t for i in self.points.values() for tensors in i.sums.values() for t in tensors.values())
        own = (t for evidence in self.own.values() for t in evidence.means.values())
        return sum(t.numel() for t in (*evidence, *own)) * PRECISIONS[self.precision].itemsize


def fetch(family: Family, versions: Iterable[tuple[str, str]], backend: Backend, roll: Roll) -> dict[tuple[str, str], Fetched]:
    """Versions of models, from those homes that are there, to be measured elsewhere."""
    asked = sorted(versions)
    answers = roll.ask(backend, [Fetch(family.lineage[name].home, version) for name, version in asked], Fetched)
    return {key: answer for key, answer in zip(asked, answers, strict=True) if answer is not None}


def measure(
    family: Family,
    plan: Plan,
    method: Method,
    backend: Backend,
    roll: Roll,
    then: Mapping[str, str] | None = None,
    precision: str = "float64",
) -> Round1:
    """Round 1: evidence at every point, own importances of heirs whose data lies elsewhere, and scores before.

    Args:
        family: the family.
        plan: which heirs and points.
        method: says what is measured.
        backend: carries tasks to the sites.
        roll: of the places that are there.
        then: the versions that evidence is measured on; by default the current ones.
        precision: what evidence is rounded to before it travels.

    Raises:
        InputError: the request names a sample that its site does not hold, or layers that a model does not have.
        SiteError: a site failed, answered for something else, or has nothing left to measure.
    """
    lineage, current = family.lineage, family.heads
    measured_on = dict(current if then is None else {**current, **then})
    wanted = method.wants(plan.request.classes)
    by_heir = {h.name: points_of(lineage, h, plan, method) if wanted else () for h in plan.heirs}
    asked = sorted({p for points in by_heir.values() for p in points}, key=lambda p: (p.model, p.shard, p.classes))
    weighed_on = {h.name: _weighing_at_home(h, plan, method) for h in plan.heirs if method.own}
    before = score_there(family, plan, backend, roll, {p.model: measured_on[p.model] for p in asked}, weighed_on=weighed_on)
    scored = {name: s for (name, version), s in before.items() if version == current[name]}
    sources = {name: s for (name, version), s in before.items() if version == measured_on[name]}
    if wanted is None and method.own is None:
        return Round1(scored, {}, {})
    away = {h.name: h for h in plan.heirs if h.name in scored and method.own and any(s.site != h.home for s in h.own)}
    usable = [p for p in asked if p.model in sources]
    travel = {(p.model, measured_on[p.model]) for p in usable if p.site != lineage[p.model].home}
    fetched = fetch(family, travel | {(name, current[name]) for name in away}, backend, roll)
    name, settings = (menu_name(method), settings_of(method)) if method.apart else ("", {})
    gone, asked_for = gone_from(family), plan.request.classes

    def task(
        model: str,
        version: str,
        key: str,
        selection: Selection | None,
        classes: tuple[str, ...],
        want: Want,
        left_out: tuple[str, ...] = (),
    ) -> Measure:
        site, shard = key.split("/", 1)
        sent = None if site == lineage[model].home else fetched[model, version]
        precise = "float64" if want.statistic == "moment" else precision  # a moment that is rounded may be none
        plain = replace(
            Measure.of(want, site, version, shard, method.layers, selection, classes, sent, left_out), precision=precise
        )
        if selection is None:
            return plain
        masked = to_mask(lineage[model].head, plan.classes_of.get(model, asked_for), gone) if want.loss == "masked" else ()
        return replace(plain, masked=masked, method=name, settings=settings)

    def carried(model: str, version: str, site: str) -> bool:
        return site == lineage[model].home or (model, version) in fetched

    usable = [p for p in usable if carried(p.model, measured_on[p.model], p.site)]
    evidence = [task(p.model, measured_on[p.model], p.shard, selection_of(p), (), wanted) for p in usable if wanted]
    owned = [(h, part) for h in away.values() for part in _weighing(h, plan, method)]
    owned = [(h, part) for h, part in owned if carried(h.name, current[h.name], part.shard.split("/", 1)[0])]
    weighing = [task(h.name, current[h.name], p.shard, None, p.classes, method.own, p.left_out) for h, p in owned if method.own]
    answers = roll.ask(backend, [*evidence, *weighing], Measured)
    told = [(p, a) for p, a in zip(usable, answers[: len(evidence)], strict=True) if a is not None]
    weighed = [(*of, a) for of, a in zip(owned, answers[len(evidence) :], strict=True) if a is not None]
    points = _points(plan, lineage, method, measured_on, sources, told)
    parts = _parts(plan, family, method, points, measured_on, scored, weighed)
    at_home = [h.name for h in plan.heirs if method.own and h.name in scored and h.name not in away]
    bare = {n for n in at_home if not scored[n].own_rows} | {n for n in away if not parts.get(n)}
    means = {n: _means(pool(held), method.own) for n, held in parts.items() if held}
    read = sum(a.read for a in answers if a is not None)
    enough = {point: answer.enough for point, answer in told if answer.enough is not None}
    said = [(point.site, answer) for point, answer in told] + [(part.shard.split("/", 1)[0], a) for _, part, a in weighed]
    guarded = {site: {"clip": a.clip, "noise": a.noise} for site, a in sorted(said, key=itemgetter(0)) if a.clip}
    return Round1(sources | scored, points, means, frozenset(bare), read, enough, by_heir, precision, guarded)


def _points(
    plan: Plan, lineage: Lineage, method: Method, measured_on: Mapping[str, str], sources: Mapping[str, Scored],
    told: Iterable[tuple[Point, Measured]],
) -> dict[Point, Importance]:  # fmt: skip
    """What sites said of what is to be forgotten, checked."""
    points, wanted = {}, method.wants(plan.request.classes)
    farthest = method.farthest if plan.request.classes else inf
    for point, answer in told:
        version, most, about = measured_on[point.model], rows_of(lineage, point), point.classes
        points[point] = checked(
            answer, version, sources[point.model], method.layers, wanted, point.shard, most, about, farthest
        )
        if not answer.importance.count:
            raise SiteError(
                f"{point.site}: no row of what is to be forgotten is left in {point.shard}; it cannot be "
                f"measured any more. Unlearn with a method that needs no evidence (logit_mask), or retrain "
                f"from before it entered ({', '.join(plan.roots[:3])})"
            )
    return points


def _parts(
    plan: Plan, family: Family, method: Method, points: Mapping[Point, Importance], measured_on: Mapping[str, str],
    scored: Mapping[str, Scored], weighed: Iterable[tuple[Heir, Part, Measured]],
) -> dict[str, list[Importance]]:  # fmt: skip
    """What sites said of heirs on those heirs' own data, checked, also against what they said of what is to be forgotten."""
    parts: dict[str, list[Importance]] = {}
    current, excluded = family.heads, exclusions(family)
    alike = method.own == method.wants(plan.request.classes) == Want("squares")
    for heir, (shard, classes, _), answer in weighed:
        seen = family.lineage.rows.get(shard, {})  # by any model: an heir may have been trained while some were excluded
        most = sum(seen.get(c, 0) for c in classes)
        saw = sum(n for s in heir.own if s.key == shard for c, n in s.rows.items() if c in classes)
        held = parts.setdefault(heir.name, [])
        if answer.importance.count:  # a site may have no row left that it may use
            version = current[heir.name]
            own = checked(answer, version, scored[heir.name], method.layers, method.own, shard, most)
            whole = own.count == saw and shard.split("/", 1)[0] not in excluded  # else what is forgotten may not be among it
            if alike and whole and not answer.noise:  # a part has noise of its own
                for point in (p for p in points if _is_part(p, heir, shard, classes) and measured_on[p.model] == version):
                    within(points[point], own, shard)
            held.append(own)
    return parts


def points_of(lineage: Lineage, heir: Heir, plan: Plan, method: Method) -> tuple[Point, ...]:
    """An heir's evidence points as a method asks for them: on the heir itself (as far as it can name them), class by class."""
    points = list(heir.points)
    if method.per_heir:
        head = lineage[heir.name].head
        points = [replace(p, model=heir.name) for p in points if not p.classes or not set(p.classes).isdisjoint(head)]
    if method.apart and plan.request.classes:
        points = [replace(p, classes=(c,)) for p in points for c in p.classes if c in lineage[p.model].head]
    want = method.wants(plan.request.classes)
    if want and want.loss == "masked":  # a model without another output has nothing to say instead
        asked = plan.request.classes
        points = [p for p in points if not set(lineage[p.model].head) <= set(plan.classes_of.get(p.model, asked))]
    return tuple(dict.fromkeys(points))


def _is_part(point: Point, heir: Heir, shard: str, classes: tuple[str, ...]) -> bool:
    """Whether the rows of a point are among those that an heir is weighed on."""
    return point.model == heir.name and point.shard == shard and bool(point.classes) and set(point.classes) <= set(classes)


def _weighing(heir: Heir, plan: Plan, method: Method) -> list[Part]:
    """What an heir is weighed on; where a method wants that without what is forgotten, all the same if nothing else is."""
    whole, request = [Part(s.key, tuple(s.rows)) for s in heir.own], plan.request
    if not method.retained:
        return whole
    if request.samples:
        named = [(s, request.shards.get(s.key, ())) for s in heir.own]
        return [Part(s.key, tuple(s.rows), keys) for s, keys in named if len(keys) < sum(s.rows.values())] or whole
    rest = [(s.key, tuple(c for c in s.rows if c not in request.touches(s))) for s in heir.own]
    return [Part(key, classes) for key, classes in rest if classes] or whole


def _weighing_at_home(heir: Heir, plan: Plan, method: Method) -> Parts:
    """The same of what lies at its home, with shards as that place calls them."""
    parts = [(p.shard.split("/", 1), p) for p in _weighing(heir, plan, method)]
    return tuple((shard, p.classes, p.left_out) for (site, shard), p in parts if site == heir.home)


def _means(of: Importance, want: Want | None) -> Evidence:
    return Evidence(of.mean(want.statistic if want else ""), of.count)


def edit(
    family: Family,
    plan: Plan,
    method: Method,
    backend: Backend,
    gate: Gate,
    found: Round1,
    cases: Mapping[str, Case],
    retrained: Mapping[str, Scored],
    roll: Roll,
    precision: str = "float64",
) -> dict[str, Applied]:
    """Round 2: edit all heirs that the method reaches, each at its home, as far as those are there.

    Raises:
        SiteError: a home failed, or edited another version than it was asked to.
    """
    heirs, gone, tasks = [h for h in plan.heirs if h.name in cases], gone_from(family), []
    for heir in heirs:
        aim = NOTHING_LEFT if heir.target == ABSENT else None
        if heir.target == AS_RETRAINED and heir.name in retrained:
            aim = retrained[heir.name].calibration
        strict = heir.target == ABSENT or heir.absent
        limit = gate.forgotten_at_most if strict else gate.distance_to_retrained_at_most
        scored, case = found.scored[heir.name], cases[heir.name]
        tasks.append(
            Apply(
                heir.home,
                scored.version,
                menu_name(method),
                settings_of(method),
                tuple(replace(e, means=rounded(e.means, precision)) for e in case.evidence),
                case.own if case.own.rows else None,
                _weighing_at_home(heir, plan, method),
                question_of(heir, heir.home, gone),
                scored.calibration,
                aim,
                (limit, gate.retained_drop_at_most),
                _forgotten(heir) if FORGOTTEN_AT_HEIRS in method.needs else (),
                _retained(heir, plan) if RETAINED_AT_HEIRS in method.needs else (),
            )
        )
    asked = roll.ask(backend, tasks, Applied, about=[h.name for h in heirs])
    answers = {h.name: a for h, a in zip(heirs, asked, strict=True) if a is not None}
    for heir in (h for h in heirs if h.name in answers):
        version, base = found.scored[heir.name].version, answers[heir.name].base
        if base != version:
            raise SiteError(f"{heir.home}: edited version {base[:12]} of {heir.name}, asked was {version[:12]}")
    return answers


def _forgotten(heir: Heir) -> tuple[Lot, ...]:
    lots = dict.fromkeys((p.site, p.shard, selection_of(p)) for p in heir.points)
    return tuple(Lot(site, shard.split("/", 1)[1], selection) for site, shard, selection in lots)


def _retained(heir: Heir, plan: Plan) -> tuple[Lot, ...]:
    """What the heir was trained on; the worker takes out what is forgotten."""
    asked = ((s, tuple(c for c in s.rows if not plan.request.classes or c not in plan.request.touches(s))) for s in heir.own)
    return tuple(Lot(s.site, s.name, Selection(classes)) for s, classes in asked if classes)
