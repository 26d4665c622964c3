"""What heirs score on held-out rows, and what those scores are about."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from fedunlearn.data import Selection
from fedunlearn.errors import SiteError
from fedunlearn.lineage import Heir, Plan, Point, Request
from fedunlearn.runtime.backend import Backend
from fedunlearn.runtime.books.family import Family
from fedunlearn.runtime.roll import Roll
from fedunlearn.runtime.settle import in_force
from fedunlearn.runtime.tasks import Parts, Question, Score, Scored


def question_of(heir: Heir, place: str, gone: Sequence[str] = ()) -> Question:
    """What scores of an heir at a place are about.

    Args:
        heir: which model.
        place: where it is scored.
        gone: classes forgotten before.
    """
    before = tuple(c for c in gone if c not in heir.classes)
    return Question(heir.classes, gone=before) if heir.classes else Question(selections=forgotten_at(heir, place), gone=before)


def forgotten_at(heir: Heir, place: str) -> dict[str, Selection]:
    """The rows to be forgotten of an heir that a place holds, by shard."""
    here: dict[str, list[Selection]] = {}
    for point in (p for p in heir.points if p.site == place):
        here.setdefault(point.shard.split("/", 1)[1], []).append(selection_of(point))
    return {
        shard: Selection(_union(s.classes for s in several), _union(s.samples for s in several))
        for shard, several in here.items()
    }


def gone_from(family: Family, before: int | None = None) -> tuple[str, ...]:
    """Classes that committed requests (before a ledger line, if one is given) have made everybody forget.

    They are no part of "the rest" any more.
    """
    return tuple(sorted({c for r in in_force(family, before) if everywhere(r) for c in r.classes}))


def everywhere(request: Request) -> bool:
    """Whether a request makes everybody forget classes, whoever taught them."""
    return bool(request.classes) and not request.sites and request.since is None


def score_all(family: Family, plan: Plan, backend: Backend, gone: Sequence[str] | None = None) -> dict[str, Scored]:
    """Current scores of every heir of a plan.

    Args:
        family: the family; or its retrained twin, which has the same heirs.
        plan: which heirs, and what scores are about.
        backend: carries tasks to their homes.
        gone: classes forgotten before; by default those that the family's own ledger says.

    Raises:
        SiteError: a home failed, or scored another version than it was asked to.
    """
    everybody = Roll({h.home for h in plan.heirs})
    found = score_there(family, plan, backend, everybody, gone=gone)
    return {name: scored for (name, _), scored in found.items()}


def score_there(
    family: Family,
    plan: Plan,
    backend: Backend,
    roll: Roll,
    also: Mapping[str, str] = MappingProxyType({}),
    gone: Sequence[str] | None = None,
    weighed_on: Mapping[str, Parts] = MappingProxyType({}),
) -> dict[tuple[str, str], Scored]:
    """Scores by model and version, of the heirs as they are, as far as their homes are there.

    Args:
        family: the family.
        plan: which heirs, and what scores are about.
        backend: carries tasks to the homes.
        roll: of the places that are there.
        also: model -> version of others that are looked at; what their scores are about does not matter.
        gone: as in `score_all`.
        weighed_on: by heir what of its home's own rows it is to be weighed on, to be counted.
    """
    heads, before = family.heads, gone_from(family) if gone is None else gone
    tasks = {
        (h.name, heads[h.name]): Score(h.home, heads[h.name], question_of(h, h.home, before), weighed_on.get(h.name, ()))
        for h in plan.heirs
    }
    for name, version in also.items():
        tasks.setdefault((name, version), Score(family.lineage[name].home, version, Question()))
    answers = roll.ask(backend, list(tasks.values()), Scored)
    for task, answer in zip(tasks.values(), answers, strict=True):
        if answer is not None and answer.version != task.version:
            raise SiteError(f"{task.place}: scored version {answer.version[:12]}, asked was {task.version[:12]}")
    return {key: answer for key, answer in zip(tasks, answers, strict=True) if answer is not None}


def selection_of(point: Point) -> Selection:
    """The rows that an evidence point is about."""
    shard = point.shard.split("/", 1)[1]
    return Selection(point.classes, tuple(f"{shard}/{key}" for key in point.keys))


def _union(several: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in several for name in names))
