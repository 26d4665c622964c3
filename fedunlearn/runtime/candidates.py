"""On which rows candidates are judged: those of their homes or, where these have none and the gate allows it, the roots' sites.

For the latter weights travel, so with consent: the home is asked for the candidate, the version before it and, where the target
is as retrained, the retrained model; a site that has the rows scores them. Either may refuse: what is refused stays untested,
and is objected to in the words of whoever refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, TypeVar

from fedunlearn.errors import SiteError
from fedunlearn.evaluation import Scores
from fedunlearn.lineage import AS_RETRAINED, NOT_EXPRESSIBLE, Heir, Plan
from fedunlearn.runtime.backend import Backend, check
from fedunlearn.runtime.books.family import Family
from fedunlearn.runtime.books.record import Tested
from fedunlearn.runtime.reference import Reference
from fedunlearn.runtime.roll import Roll
from fedunlearn.runtime.scoring import gone_from, question_of
from fedunlearn.runtime.tasks import Applied, Failure, Fetch, Fetched, Question, Score, Scored, Task

BEFORE, AFTER, RETRAINED = "before", "after", "retrained"
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class _Trip:
    """One heir that is to be scored elsewhere."""

    heir: Heir
    versions: Mapping[str, str]  # by what they are of it
    questions: Mapping[str, Question]  # by place
    due: tuple[str, ...]  # versions without which it is not tested
    refused: list[str] = field(default_factory=list)


def score_candidates(
    family: Family,
    plan: Plan,
    applied: Mapping[str, Applied],
    scored: Mapping[str, Scored],
    retrained: Reference,
    backend: Backend,
    roll: Roll,
    at_roots: bool,
) -> dict[str, Tested]:
    """What every candidate is judged by.

    Args:
        family: the family.
        plan: which heirs, and what is forgotten.
        applied: the candidates, with their scores at home.
        scored: the heirs before, at home.
        retrained: the retrained family, as far as there is one.
        backend: carries tasks to the places.
        roll: of the places that are there.
        at_roots: have what a home has no rows for scored at the sites of its roots.

    Raises:
        SiteError: a place answered something else than it was asked for. A refusal is none: it is told in the result.
    """
    again = retrained.scored
    found = {
        name: Tested(scored[name].test, one.test, again[name].test if name in again else None, {})
        for name, one in applied.items()
    }
    heirs = {h.name: h for h in plan.heirs if h.name in applied}
    tests, gone = family.lineage.tests, gone_from(family) if at_roots else ()
    trips = [t for h in heirs.values() if (t := _trip(tests, gone, h, applied[h.name], again))] if at_roots else []
    told = _scores(trips, _weights(trips, retrained, backend, roll), backend, roll)
    for trip in trips:
        name, parts = trip.heir.name, told[trip.heir.name]
        home = found[name]
        found[name] = Tested(
            _joined(home.before, parts.get(BEFORE, {})),
            _joined(home.after, parts.get(AFTER, {})),
            _joined(home.retrained, parts.get(RETRAINED, {})) if home.retrained else None,
            {},
            tuple(dict.fromkeys(trip.refused)),
        )
    for name, heir in heirs.items():
        if not at_roots and heir.target != NOT_EXPRESSIBLE and applied[name].test.rows_forgotten:
            found[name] = replace(found[name], refused=_elsewhere(heir))
    return {name: replace(one, at=_at(heirs[name], applied[name].test, told.get(name, {}))) for name, one in found.items()}


def _elsewhere(heir: Heir) -> tuple[str, ...]:
    """What its home can tell nothing of: of samples and whole sites, a score is about those very rows."""
    reach = {p.site for p in heir.points} | {shard.split("/", 1)[0] for shard in heir.out_of_reach}
    sites = sorted(reach - {heir.home}) if not heir.classes else ()
    return tuple(f"not tested: what is to be forgotten at {site} cannot be scored at its home" for site in sites)


def _trip(
    tests: Mapping[str, Sequence[str]],
    gone: Sequence[str],
    heir: Heir,
    done: Applied,
    again: Mapping[str, Scored],
) -> _Trip | None:
    """Where an heir is to be scored; None where its home can test all that is due."""
    refused: list[str] = []
    roots = tuple(dict.fromkeys(p.site for p in sorted(heir.points, key=lambda p: p.shard) if p.site != heir.home))
    questions: dict[str, Question] = {}
    due = heir.target != NOT_EXPRESSIBLE
    if due and heir.classes:
        for c in (c for c, left in done.test.by_class.items() if left is None):
            if place := next((s for s in roots if c in tests.get(s, ())), None):
                before = questions.get(place, Question())
                questions[place] = Question(classes=(*before.classes, c), gone=(*gone, *heir.classes))
            else:
                refused.append(
                    f"not tested: no site that trained on class {c} has test rows of it: {', '.join(roots) or 'none'}"
                )
    elif due:  # every site has other rows of what is forgotten
        questions = {site: question_of(heir, site, gone) for site in roots}
    if done.test.retained is None and not questions:
        questions = {site: question_of(heir, site, gone) for site in roots[:1]}
    if not questions and not refused:
        return None
    versions, needed = {BEFORE: done.base, AFTER: done.version}, [AFTER]
    if done.test.retained is None:
        needed.append(BEFORE)
    if heir.target == AS_RETRAINED and heir.name in again:
        versions[RETRAINED] = again[heir.name].version
        needed.append(RETRAINED)
    return _Trip(heir, versions, questions, tuple(needed), refused)


def _weights(trips: Sequence[_Trip], retrained: Reference, backend: Backend, roll: Roll) -> dict[tuple[str, str], Fetched]:
    """Weights by model and what they are of it, of all that their homes give."""
    sent = {(t.heir.name, RETRAINED): retrained.sent[t.heir.name] for t in trips if t.heir.name in retrained.sent}
    asked = [(t, what) for t in trips if t.questions for what in t.versions if (t.heir.name, what) not in sent]
    answers = _ask([Fetch(t.heir.home, t.versions[what]) for t, what in asked], Fetched, backend, roll)
    for (trip, what), answer in zip(asked, answers, strict=True):
        if isinstance(answer, Fetched):
            sent[trip.heir.name, what] = answer
        elif what in trip.due:
            trip.refused.append(f"not tested: {trip.heir.home} does not give {_words(what)}: {answer.text}")
    return sent


def _scores(
    trips: Sequence[_Trip], weights: Mapping[tuple[str, str], Fetched], backend: Backend, roll: Roll
) -> dict[str, dict[str, dict[str, Scores]]]:
    """Test scores by model, what it is of it, and place."""
    asked = [(t, w, p) for t in trips for w in t.versions if (t.heir.name, w) in weights for p in t.questions]
    tasks = [Score(p, t.versions[w], t.questions[p], sent=weights[t.heir.name, w]) for t, w, p in asked]
    found: dict[str, dict[str, dict[str, Scores]]] = {t.heir.name: {} for t in trips}
    for (trip, what, place), task, answer in zip(asked, tasks, _ask(tasks, Scored, backend, roll), strict=True):
        if isinstance(answer, Scored):
            found[trip.heir.name].setdefault(what, {})[place] = _believed(task, answer)
        elif what in trip.due:
            trip.refused.append(f"not tested: {place} does not score {_words(what)}: {answer.text}")
    return found


def _words(what: str) -> str:
    return {BEFORE: "the version before the edit", AFTER: "the candidate", RETRAINED: "the retrained model"}[what]


def _ask(tasks: Sequence[Task], kind: type[Kind], backend: Backend, roll: Roll) -> list[Kind | Failure]:
    """Answers, or why a place refuses or is not there: unlike in `Roll.ask` that stops nobody else."""
    there = [task for task in tasks if task.place not in roll.absent]
    answers = backend.carry(there) if there else []
    told = [(t, a) for t, a in zip(there, answers, strict=True) if not isinstance(a, Failure)]
    good = iter(check([t for t, _ in told], [a for _, a in told], kind, "nothing was changed"))
    heard = iter([a if isinstance(a, Failure) else next(good) for a in answers])
    away = {place: Failure(place, why, offline=True) for place, why in roll.absent.items()}
    return [away[t.place] if t.place in away else next(heard) for t in tasks]


def _believed(task: Score, answer: Scored) -> Scores:
    scores, asked = answer.test, set(task.question.classes)
    if answer.version != task.version or not scores.by_class.keys() <= asked:
        raise SiteError(f"{task.place}: sent what are no scores of version {task.version[:12]}; nothing was changed")
    return scores


def _joined(home: Scores, elsewhere: Mapping[str, Scores]) -> Scores:
    """Of what is forgotten, rows of all places together; of the rest, the home's or else the first place's."""
    parts = [s for s in (home, *elsewhere.values()) if s.forgotten is not None]
    rows = sum(s.rows_forgotten for s in parts)
    right = sum(round((s.forgotten or 0.0) * s.rows_forgotten) for s in parts)
    each = chain.from_iterable(s.by_class.items() for s in elsewhere.values())
    rest = next((s for s in (home, *elsewhere.values()) if s.retained is not None), home)
    by_class = {**home.by_class, **{c: v for c, v in each if v is not None}}
    return Scores(right / rows if rows else None, rest.retained, rows, rest.rows_retained, by_class)


def _at(heir: Heir, home: Scores, told: Mapping[str, Mapping[str, Scores]]) -> dict[str, Any]:
    """The places that the candidate's scores are of."""
    of = {heir.home: home, **told.get(AFTER, {})}
    forgotten = {place: _tested(s.by_class) for place, s in of.items() if s.forgotten is not None}
    return {"forgotten": forgotten, "retained": next((p for p, s in of.items() if s.retained is not None), None)}


def _tested(by_class: Mapping[str, float | None]) -> list[str]:
    return [c for c, value in by_class.items() if value is not None]
