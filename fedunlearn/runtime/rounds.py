"""The two rounds before the gate: measure and score, then merge and edit. Every answer is checked before it is used."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from fedunlearn.data import Selection
from fedunlearn.errors import SiteError
from fedunlearn.evaluation import Gate
from fedunlearn.importance import Importance, pool
from fedunlearn.lineage import ABSENT, AS_RETRAINED, Heir, Lineage, Plan, Point, Shard
from fedunlearn.methods import METHODS, Case, Method
from fedunlearn.methods.menu import settings_of
from fedunlearn.runtime.backend import Backend, ask
from fedunlearn.runtime.family import Family
from fedunlearn.runtime.roll import Roll
from fedunlearn.runtime.settle import in_force
from fedunlearn.runtime.tasks import Applied, Apply, Fetch, Fetched, Measure, Measured, Question, Score, Scored
from fedunlearn.tensors import align, names_in


@dataclass(frozen=True)
class Round1:
    """What the sites measured.

    Args:
        scored: every heir whose home is there, and every other model that evidence is of, before.
        points: importance of what is forgotten, at every evidence point whose site is there.
        own: mean own importance of the heirs whose data lies elsewhere than at their home.
        unweighed: heirs of which no row of their own may be used, or none is there.
        read: rows that were read to measure it; what came out of a bank reads none.
    """

    scored: Mapping[str, Scored]
    points: Mapping[Point, Importance]
    own: Mapping[str, Mapping[str, torch.Tensor]]
    unweighed: frozenset[str] = frozenset()
    read: int = 0

    def missing(self, heir: Heir) -> tuple[Point, ...]:
        """Evidence points of an heir that nobody measured, because a place is offline."""
        return tuple(p for p in heir.points if p not in self.points)

    @property
    def sent(self) -> int:
        """Bytes of evidence that the sites sent."""
        evidence = (t for i in self.points.values() for tensors in i.sums.values() for t in tensors.values())
        own = (t for tensors in self.own.values() for t in tensors.values())
        return sum(t.numel() * t.element_size() for t in (*evidence, *own))


def question_of(plan: Plan, place: str, gone: Sequence[str] = ()) -> Question:
    """What scores at a place are about."""
    before = tuple(c for c in gone if c not in plan.request.classes)
    if plan.request.classes:
        return Question(classes=plan.request.classes, gone=before)
    here = {p.shard.split("/", 1)[1]: _selection(p) for p in plan.points if p.site == place}
    return Question(selections=here, gone=before)


def gone_from(family: Family) -> tuple[str, ...]:
    """Classes that committed requests have made everybody forget; they are no part of "the rest" any more."""
    everywhere = (r for r in in_force(family) if r.classes and not r.sites and r.since is None)
    return tuple(sorted({c for r in everywhere for c in r.classes}))


def score_all(family: Family, plan: Plan, backend: Backend, gone: Sequence[str] | None = None) -> dict[str, Scored]:
    """Current scores of every heir of a plan.

    Args:
        family: the family; or its retrained twin, which has the same heirs.
        plan: which heirs, and what scores are about.
        backend: carries tasks to their homes.
        gone: classes forgotten before; by default those that the family's own ledger says.
    """
    heads, before = family.heads, gone_from(family) if gone is None else gone
    tasks = [Score(h.home, heads[h.name], question_of(plan, h.home, before), _at_home(h)) for h in plan.heirs]
    answers = ask(backend, tasks, Scored)
    return {h.name: _of_version(t, a) for h, t, a in zip(plan.heirs, tasks, answers, strict=True)}


def _scores(
    family: Family, plan: Plan, backend: Backend, roll: Roll, measured_on: Mapping[str, str]
) -> dict[tuple[str, str], Scored]:
    """Scores of the heirs as they are, and of the versions that evidence is measured on; of those whose homes are there."""
    heads, gone = family.heads, gone_from(family)
    tasks = {
        (h.name, heads[h.name]): Score(h.home, heads[h.name], question_of(plan, h.home, gone), _at_home(h)) for h in plan.heirs
    }
    for name in {p.model for p in plan.points} & measured_on.keys():
        tasks.setdefault((name, measured_on[name]), Score(family.lineage[name].home, measured_on[name], Question()))
    answers = roll.ask(backend, list(tasks.values()), Scored)
    return {key: _of_version(tasks[key], a) for key, a in zip(tasks, answers, strict=True) if a is not None}


def _of_version(task: Score, answer: Scored) -> Scored:
    if answer.version != task.version:
        raise SiteError(f"{task.place}: scored version {answer.version[:12]}, asked was {task.version[:12]}")
    return answer


def _at_home(heir: Heir) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Shards that weigh an heir and lie at its home, and the classes it used of each."""
    return tuple((s.name, tuple(s.rows)) for s in heir.own if s.site == heir.home)


def fetch(family: Family, models: Collection[str], backend: Backend) -> dict[str, Fetched]:
    """The current versions of models, from their homes, to be measured elsewhere."""
    names = sorted(models)
    tasks = [Fetch(family.lineage[m].home, family.heads[m]) for m in names]
    return dict(zip(names, ask(backend, tasks, Fetched), strict=True))


def _fetched(
    family: Family, versions: Sequence[tuple[str, str]], backend: Backend, roll: Roll
) -> dict[tuple[str, str], Fetched]:
    tasks = [Fetch(family.lineage[name].home, version) for name, version in versions]
    answers = roll.ask(backend, tasks, Fetched)
    return {key: a for key, a in zip(versions, answers, strict=True) if a is not None}


def measure(
    family: Family, plan: Plan, method: Method, backend: Backend, roll: Roll, then: Mapping[str, str] | None = None
) -> Round1:
    """Round 1: evidence at every point, own importances of heirs whose data lies elsewhere, and scores before.

    Args:
        family: the family.
        plan: which heirs and points.
        method: says what is measured.
        backend: carries tasks to the sites.
        roll: of the places that are there.
        then: the versions that evidence is measured on; by default the current ones.

    Raises:
        InputError: the request names a sample that its site does not hold, or layers that a model does not have.
        SiteError: a site failed, answered for something else, or has nothing left to measure.
    """
    lineage, current = family.lineage, family.heads
    measured_on = dict(current if then is None else {**current, **then})
    before = _scores(family, plan, backend, roll, measured_on if method.statistic is not None else {})
    scored = {name: s for (name, version), s in before.items() if version == current[name]}
    sources = {name: s for (name, version), s in before.items() if version == measured_on[name]}
    if method.statistic is None:
        return Round1(scored, {}, {})
    statistic = method.statistic
    away = {h.name: h for h in plan.heirs if h.name in scored and any(s.site != h.home for s in h.own)}
    usable = [p for p in plan.points if p.model in sources]
    travel = {(p.model, measured_on[p.model]) for p in usable if p.site != lineage[p.model].home}
    travel |= {(name, current[name]) for name in away}
    fetched = _fetched(family, sorted(travel), backend, roll)

    def task(name: str, version: str, shard: Shard | Point, selection: Selection | None) -> Measure | None:
        sent = None if shard.site == lineage[name].home else fetched.get((name, version))
        if sent is None and shard.site != lineage[name].home:
            return None
        key = shard.shard if isinstance(shard, Point) else shard.key
        classes = () if isinstance(shard, Point) else tuple(shard.rows)
        return Measure(shard.site, version, key.split("/", 1)[1], statistic, method.layers, selection, classes, sent)

    evidence = {p: t for p in usable if (t := task(p.model, measured_on[p.model], p, _selection(p)))}
    weighing = [(h.name, s, task(h.name, current[h.name], s, None)) for h in away.values() for s in h.own]
    owned = [(name, s, t) for name, s, t in weighing if t is not None]
    answers = roll.ask(backend, [*evidence.values(), *(t for _, _, t in owned)], Measured)
    points, parts = {}, dict[str, list[Importance]]()
    for point, answer in zip(evidence, answers[: len(evidence)], strict=True):
        if answer is None:
            continue
        most = len(point.keys) or _rows(lineage, point)
        points[point] = _checked(answer, measured_on[point.model], sources[point.model], method, point.shard, most)
        if not answer.importance.count:
            raise SiteError(
                f"{point.site}: no row of what is to be forgotten is left in {point.shard}; it cannot be "
                f"measured any more. Unlearn with a method that needs no evidence (logit_mask), or retrain "
                f"from before it entered ({', '.join(plan.roots[:3])})"
            )
    for (name, shard, _), answer in zip(owned, answers[len(evidence) :], strict=True):
        if answer is not None:
            most = sum(shard.rows.values())
            parts.setdefault(name, []).append(_checked(answer, current[name], scored[name], method, shard.key, most))
    pooled = {name: pool(found) for name, found in parts.items()}
    bare = {h.name for h in plan.heirs if h.name in scored and h.name not in away and not scored[h.name].own_rows}
    bare |= {name for name in away if name not in pooled or not pooled[name].count}
    means = {name: own.mean(statistic) for name, own in pooled.items() if own.count}
    return Round1(sources | scored, points, means, frozenset(bare), sum(a.read for a in answers if a is not None))


def merge(family: Family, heir: Heir, plan: Plan, method: Method, found: Round1) -> Case:
    """The evidence of one heir in its own coordinates: one model's pools, different models' merge, its ancestors' only."""
    mine = found.scored[heir.name]
    by_model: dict[str, list[Importance]] = {}
    for point in sorted((p for p in heir.points if p in found.points), key=lambda p: (p.model, p.shard)):
        by_model.setdefault(point.model, []).append(found.points[point])
    aligned = []
    for model, parts in by_model.items():
        mean = pool(parts).mean(method.statistic or "")
        share = family.lineage.shares_head(model, heir.name)
        aligned.append(align(mean, found.scored[model].head, mine.shapes, mine.head, share_head=share)[0])
    evidence = method.merge(aligned) if aligned else {}
    return Case(evidence, found.own.get(heir.name, {}), mine.head, plan.request.classes)


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
) -> dict[str, Applied]:
    """Round 2: edit all heirs that the method reaches, each at its home, as far as those are there.

    Raises:
        SiteError: a home failed, or edited another version than it was asked to.
    """
    heirs, gone = [h for h in plan.heirs if h.name in cases], gone_from(family)
    tasks = []
    for heir in heirs:
        aim = 0.0 if heir.target == ABSENT else None
        if heir.target == AS_RETRAINED and heir.name in retrained:
            aim = retrained[heir.name].calibration.forgotten
        limit = gate.forgotten_at_most if heir.target == ABSENT else gate.distance_to_retrained_at_most
        scored, case = found.scored[heir.name], cases[heir.name]
        tasks.append(
            Apply(
                heir.home,
                scored.version,
                menu_name(method),
                settings_of(method),
                case.evidence,
                case.own or None,
                _at_home(heir),
                question_of(plan, heir.home, gone),
                scored.calibration,
                aim,
                (limit, gate.retained_drop_at_most),
            )
        )
    answers = {h.name: a for h, a in zip(heirs, roll.ask(backend, tasks, Applied), strict=True) if a is not None}
    for heir in (h for h in heirs if h.name in answers):
        asked, base = found.scored[heir.name].version, answers[heir.name].base
        if base != asked:
            raise SiteError(f"{heir.home}: edited version {base[:12]} of {heir.name}, asked was {asked[:12]}")
    return answers


def _selection(point: Point) -> Selection:
    shard = point.shard.split("/", 1)[1]
    return Selection(point.classes, tuple(f"{shard}/{key}" for key in point.keys))


def _rows(lineage: Lineage, point: Point) -> int:
    """How many rows of what is to be forgotten the lineage saw in a point's shard."""
    seen: dict[str, int] = {}
    for shard in (s for m in lineage.models for s in m.data if s.key == point.shard):
        for c in point.classes:
            seen[c] = max(seen.get(c, 0), shard.rows.get(c, 0))
    return sum(seen.values())


def _checked(answer: Measured, version: str, scored: Scored, method: Method, where: str, most: int) -> Importance:
    """A site's answer is untrusted: version, names, shapes and count (finiteness and sign are checked when made)."""
    expected = set(names_in(method.layers, scored.shapes, scored.head))
    sums = answer.importance.sums.get(method.statistic or "", {})
    shapes = {n: tuple(t.shape) for n, t in sums.items()}
    if answer.version != version:
        raise SiteError(f"{where}: answered for version {answer.version[:12]}, asked was {version[:12]}")
    if shapes != {n: tuple(scored.shapes[n]) for n in expected}:
        raise SiteError(f"{where}: sent importances of {sorted(shapes)[:5]} with shapes that are not the model's")
    if answer.read < 0 or answer.importance.count > most:
        raise SiteError(f"{where}: sent a sum over {answer.importance.count} rows; models were trained on {most} there")
    return answer.importance


def menu_name(method: Method) -> str:
    """What `make` makes a method of again: its name in the menu, or "their.module:Class"."""
    kind = type(method)
    return method.name if METHODS.get(method.name) is kind else f"{kind.__module__}:{kind.__qualname__}"
