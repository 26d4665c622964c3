"""The one path: discover, measure, merge, apply, judge, commit.

It sees names, importances, hashes and scores; and it carries, without looking at them, the weights of those models that
have to be measured at another site than their home (global models, and models with data at several sites).

Request --discover--> Plan
  round 1  Measure @ the roots' sites and where models without data of their own are weighed; score before
           merge over each heir's own sources                     (FIUn: Merging-FIM)
  round 2  Apply @ the heirs' homes, all at once -> candidates
           Gate -> objections in words -> Record -> one ledger line, the commit point
  round 3  settle: homes and sites follow the ledger
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedunlearn.data import Selection
from fedunlearn.errors import InputError
from fedunlearn.evaluation import Gate
from fedunlearn.lineage import Lineage, Plan, Request, discover
from fedunlearn.methods import Case, Method, make
from fedunlearn.methods.menu import settings_of
from fedunlearn.runtime.backend import Backend
from fedunlearn.runtime.family import Family
from fedunlearn.runtime.record import COMMITTED, PENDING, UNTOUCHED, Record, row
from fedunlearn.runtime.rounds import Round1, edit, measure, merge
from fedunlearn.runtime.settle import settle
from fedunlearn.runtime.tasks import Applied, Scored

Progress = Callable[[str], None]


def unlearn(
    family: Family,
    request: Request,
    method: Method | str,
    backend: Backend,
    gate: Gate | None = None,
    *,
    retrained: Mapping[str, Scored] | Callable[[], Mapping[str, Scored]] | None = None,
    atomic: bool = False,
    accept_untested: str | None = None,
    reason: str | None = None,
    progress: Progress = lambda _: None,
) -> Record:
    """Make every heir of some data forget it.

    Args:
        family: the models and their ledger.
        request: what is to be forgotten.
        method: a method or its name.
        backend: carries tasks to the places.
        gate: limits on what may be committed.
        retrained: for each heir, the scores of the same model retrained without the data (see `score_all`), or a function
            that gives them, called once everything else about the request has been found right; without it, targets
            "as_retrained" cannot be judged and are held back.
        atomic: hold back all when one is held back.
        accept_untested: commit what could not be tested, for this reason, which goes to the ledger.
        reason: why this is done; goes to the ledger.
        progress: told, in words, what is being done.

    Returns:
        The record, also in the ledger; a record without models when nobody holds what is asked for (no ledger line then).

    Raises:
        InputError: the request, the method or a setting is wrong; nothing was changed.
        SiteError: a place failed; nothing was changed.
    """
    started, carried = time.perf_counter(), dict(backend.traffic)
    gate = gate or Gate()
    method = make(method) if isinstance(method, str) else method
    if not method.needs <= backend.grants:
        raise InputError(
            f"method {method.name} needs {', '.join(sorted(method.needs - backend.grants))}, which "
            f"{type(backend).__name__} cannot grant"
        )
    plan = discover(family.lineage, request)
    if not plan.heirs:
        return Record(_facts(plan, method, gate, [], [], accept_untested), {"seconds": 0.0})
    progress(f"measuring {request.words()} at {len(plan.points)} points, scoring {len(plan.heirs)} heirs")
    found = measure(family, plan, method, backend)
    measured = time.perf_counter()
    cases = {h.name: merge(family, h, plan, method, found) for h in plan.heirs}
    misses = {name: text for name, case in cases.items() if (text := method.misses(case))}
    bare = "cannot be weighed: every row of its own is excluded from use by now; logit_mask needs none"
    misses |= {name: bare for name in found.unweighed if name not in misses}
    reached = {name: case for name, case in cases.items() if name not in misses}
    if not reached:
        raise InputError(f"{method.name}: no heir can be edited: " + "; ".join(f"{n} {t}" for n, t in misses.items()))
    before_reference = time.perf_counter()
    again = retrained() if callable(retrained) else retrained or {}
    waited = time.perf_counter() - before_reference
    progress(f"editing {len(reached)} heirs with {method.name}, each at its home")
    applied = edit(family, plan, method, backend, gate, found, reached, again)
    rows, objections = _judge(family.lineage, plan, method, gate, found, applied, cases, misses, again, accept_untested)
    if atomic and objections:
        for one in (r for r in rows if r["status"] == COMMITTED):
            one["status"] = PENDING
            objections.append({"model": one["name"], "text": "held back with the others (atomic)"})
    cost: dict[str, Any] = {
        "seconds": round(time.perf_counter() - started - waited, 3),
        "measure_seconds": round(measured - started, 3),
        "rows_read": found.read + sum(a.read for a in applied.values()),
        "bytes_up": found.sent,
    }
    if backend.traffic:  # until here: settling comes after the record is written
        cost["traffic"] = _traffic(carried, backend.traffic)
    record = Record(_facts(plan, method, gate, rows, objections, accept_untested), cost)
    _commit(family, request, record, reason)
    settle(family, backend)
    return record


def _traffic(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> dict[str, dict[str, int]]:
    """Bytes up and down by place since `before`."""
    since = {p: (up - before.get(p, (0, 0))[0], down - before.get(p, (0, 0))[1]) for p, (up, down) in sorted(after.items())}
    return {place: {"up": up, "down": down} for place, (up, down) in since.items() if up or down}


def _judge(
    lineage: Lineage,
    plan: Plan,
    method: Method,
    gate: Gate,
    found: Round1,
    applied: Mapping[str, Applied],
    cases: Mapping[str, Case],
    misses: Mapping[str, str],
    retrained: Mapping[str, Scored],
    accept_untested: str | None,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    rows: list[dict[str, Any]] = []
    objections: list[dict[str, str]] = []
    for heir in plan.heirs:
        scored, done = found.scored[heir.name], applied.get(heir.name)
        reference = retrained[heir.name].test if heir.name in retrained else None
        shared = {n for one in cases[heir.name].evidence for n in one.means}
        missing = tuple(n for n in scored.shapes if n not in shared) if method.evidence else ()
        status = UNTOUCHED
        if done is None:
            texts = [f"untouched: {misses[heir.name]}"]
        else:
            wrong, untested = gate.judge(heir.target, scored.test, done.test, reference)
            texts = wrong + ([] if accept_untested else untested)
            status = PENDING if texts else COMMITTED
        rows.append(row(heir, lineage[heir.name], scored, done, reference, missing, status, bool(plan.request.classes)))
        objections += [{"model": heir.name, "text": text} for text in texts]
    return rows, objections


def _facts(
    plan: Plan,
    method: Method,
    gate: Gate,
    rows: Sequence[Mapping[str, Any]],
    objections: Sequence[Mapping[str, str]],
    accept_untested: str | None,
) -> dict[str, Any]:
    return {
        "request": plan.request.to_json(),
        "plan": plan.to_json(),
        "method": method.name,
        "settings": settings_of(method),
        "gate": vars(gate),
        "models": list(rows),
        "objections": list(objections),
        "accepted_untested": accept_untested,
    }


def _commit(family: Family, request: Request, record: Record, reason: str | None) -> None:
    """The commit point: one ledger line. Once a model has changed, its sites may not train on the data any more."""
    by_status: dict[str, dict[str, str]] = {COMMITTED: {}, PENDING: {}, UNTOUCHED: {}}
    for one in record.facts["models"]:
        by_status[one["status"]][one["name"]] = one["version_after"]
    excluded = _exclusions(request, family.lineage) if by_status[COMMITTED] else {}
    family.ledger.append(
        "unlearned",
        {
            "request": request.id,
            "heads": by_status[COMMITTED],
            "pending": by_status[PENDING],
            "untouched": sorted(by_status[UNTOUCHED]),
            "reason": reason,
            "exclusions": excluded,
            "record": {"facts": record.facts, "cost": record.cost},
        },
    )


def _exclusions(request: Request, lineage: Lineage) -> dict[str, dict[str, list[str]]]:
    """What each site must not train on any more: asked of the sites, not of what the plan happened to measure there."""
    found: dict[str, Selection] = {}
    if request.samples:
        for shard, keys in request.shards.items():
            site, name = shard.split("/", 1)
            before = found.get(site, Selection()).samples
            found[site] = Selection(samples=before + tuple(f"{name}/{k}" for k in keys))
    else:
        found = {site: Selection(classes=request.classes) for site in request.sites or lineage.sites}
    return {site: {"classes": list(s.classes), "samples": list(s.samples)} for site, s in found.items()}
