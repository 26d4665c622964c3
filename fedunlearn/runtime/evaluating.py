"""Metrics of edited models, taken at their homes; what comes back is checked before it is believed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fedunlearn.errors import SiteError
from fedunlearn.evaluation import TIERS, costs
from fedunlearn.lineage import Heir, Plan
from fedunlearn.plain import shaped
from fedunlearn.runtime.backend import Backend
from fedunlearn.runtime.books.evaluations import Evaluation
from fedunlearn.runtime.books.family import Family
from fedunlearn.runtime.reference import Reference
from fedunlearn.runtime.roll import Roll
from fedunlearn.runtime.scoring import forgotten_at, gone_from
from fedunlearn.runtime.tasks import Applied, Audit, Evaluate, Evaluated, Question

VERSIONS = ("version_before", "version_after")  # which a result that is kept is about
PARTS = ("tier", "nets", "rows", "metrics", "not_measurable", "seconds")  # of what `evaluate` gives


def evaluation_of(
    heir: Heir,
    tier: str,
    versions: tuple[str, str],
    gone: Sequence[str],
    references: Sequence[Reference],
    audit: Audit | None = None,
) -> Evaluate:
    """The task that takes one tier of one heir.

    Args:
        heir: which model.
        tier: which metrics.
        versions: before the edit, and after it.
        gone: classes forgotten earlier.
        references: retrained families, each of another seed.
        audit: what the audit needs.
    """
    before = tuple(c for c in gone if c not in heir.classes)
    held = [r for r in references if heir.name in r.scored]
    return Evaluate(
        heir.home,
        tier,
        *versions,
        Question(heir.classes, forgotten_at(heir, heir.home), before),
        tuple((s.name, tuple(s.rows)) for s in heir.own if s.site == heir.home),
        tuple(r.scored[heir.name].version for r in held),
        {r.scored[heir.name].version: r.sent[heir.name] for r in held if heir.name in r.sent},
        audit,
    )


def believed(task: Evaluate, answer: Evaluated) -> dict[str, Any]:
    """What a home found, or the error for an answer that is not one to the task.

    Raises:
        SiteError: it is about other versions, another tier, or not what an evaluation gives.
    """
    found = dict(answer.found)
    if (answer.before, answer.after, found.get("tier")) != (task.before, task.after, task.tier):
        raise SiteError(f"{task.place}: evaluated something else than {task.tier} of version {task.after[:12]}, as was asked")
    if not is_evaluation(task.tier, found):
        raise SiteError(f"{task.place}: sent what is no {task.tier} evaluation of version {task.after[:12]}")
    return found


def is_evaluation(tier: str, found: Mapping[str, Any]) -> bool:
    """Whether something has the parts that `evaluate` gives for a tier: each metric in one of two, and all of it plain data."""
    known = costs(tier) if tier in TIERS else {}
    parts = [found.get(part) for part in ("metrics", "not_measurable", "seconds")]
    if found.keys() != set(PARTS) or not all(isinstance(p, Mapping) and p.keys() <= known.keys() for p in parts):
        return False
    try:
        shaped(dict(found), Evaluation)
        json.dumps(found, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return bool(known) and {*parts[0], *parts[1]} == set(known)  # type: ignore[misc]


def is_result(tier: str, result: Any) -> bool:
    """Whether something is a result of a tier, and says of which versions."""
    if not isinstance(result, dict) or not all(isinstance(result.get(v), str) for v in VERSIONS):
        return False
    return is_evaluation(tier, {k: v for k, v in result.items() if k not in VERSIONS})


def evaluate_applied(
    family: Family, plan: Plan, applied: Mapping[str, Applied], tiers: Sequence[str], backend: Backend, roll: Roll,
    reference: Reference,
) -> dict[str, dict[str, dict[str, Any]]]:  # fmt: skip
    """What is found of candidates before anything is committed: model -> tier -> as `evaluate` gives it.

    Args:
        family: the family.
        plan: which heirs.
        applied: the candidates.
        tiers: which metrics.
        backend: carries tasks to the homes.
        roll: of the places that are there; a home that is not any more is left out.
        reference: the retrained family, as far as there is one.

    Raises:
        SiteError: a home failed, or sent something else.
    """
    gone, heirs = gone_from(family), [h for h in plan.heirs if h.name in applied]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for tier in tiers:
        tasks = [evaluation_of(h, tier, (applied[h.name].base, applied[h.name].version), gone, [reference]) for h in heirs]
        for heir, task, answer in zip(heirs, tasks, roll.ask(backend, tasks, Evaluated), strict=True):
            if answer is not None:
                found.setdefault(heir.name, {})[tier] = believed(task, answer)
    return found


def seconds_of(evaluated: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, float]:
    """What the homes say that each tier took them, all together."""
    tiers = dict.fromkeys(tier for of in evaluated.values() for tier in of)
    return {t: round(sum(sum(of[t]["seconds"].values()) for of in evaluated.values() if t in of), 3) for t in tiers}
