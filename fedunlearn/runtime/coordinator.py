"""The one path: discover, measure, merge, apply, judge, commit. Long so that it is read in one go.

It sees names, importances, hashes and scores; and it carries, without looking at them, the weights of those models that
have to be measured at another site than their home (global models, and models with data at several sites).

Request --discover--> Plan
  round 1  Measure @ the roots' sites and where models without data of their own are weighed; score before
           merge over each heir's own sources                     (FIUn: Merging-FIM)
  round 2  Apply @ the heirs' homes, all at once -> candidates
           Evaluate @ the heirs' homes: quick metrics, and those that the gate has limits on
           Score @ the roots' sites, where a home has no test rows and the gate allows it
           Gate -> objections in words -> Record -> one ledger line, the commit point
  round 3  settle: homes and sites follow the ledger
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fedunlearn.data import Selection
from fedunlearn.errors import InputError, SiteError, few, unknown
from fedunlearn.evaluation import Gate, Scores
from fedunlearn.lineage import ABSENT, AS_RETRAINED, Heir, Lineage, Plan, Request, discover
from fedunlearn.methods import Case, Method, make
from fedunlearn.methods.menu import code_of, menu_name, settings_of
from fedunlearn.runtime.backend import Backend, Progress, traffic_since
from fedunlearn.runtime.books.family import Family
from fedunlearn.runtime.books.record import COMMITTED, PENDING, UNTOUCHED, WAITING, Record, Tested, row
from fedunlearn.runtime.books.records import keep_record
from fedunlearn.runtime.books.tried import moves_due, remaining
from fedunlearn.runtime.candidates import score_candidates
from fedunlearn.runtime.evaluating import evaluate_applied, seconds_of
from fedunlearn.runtime.merging import merge
from fedunlearn.runtime.reference import Reference
from fedunlearn.runtime.roll import Roll
from fedunlearn.runtime.rounds import Round1, edit, measure, points_of
from fedunlearn.runtime.settle import alone, settle
from fedunlearn.runtime.tasks import Applied
from fedunlearn.runtime.watched import missed
from fedunlearn.store.code import differing
from fedunlearn.tensors import PRECISIONS

Retrained = Reference | Callable[[], Reference] | None


def unlearn(
    family: Family,
    request: Request,
    method: Method | str,
    backend: Backend,
    gate: Gate | None = None,
    *,
    retrained: Retrained = None,
    quorum: float = 1.0,
    precision: str = "float64",
    atomic: bool = False,
    accept_untested: str | None = None,
    reason: str | None = None,
    noted: Collection[Request] = (),
    progress: Progress = lambda _: None,
) -> Record:
    """Make every heir of some data forget it; of a request that was tried before, those that still hold it.

    Args:
        family: the models and their ledger.
        request: what is to be forgotten; several requests in one pass are `Request(merges=(a, b))`.
        method: a method or its name.
        backend: carries tasks to the places.
        gate: limits on what may be committed.
        retrained: the same family retrained without the data (see `Reference.of`), or a function that gives it, called once
            everything else about the request has been found right; without it, targets "as_retrained" cannot be judged and are
            held back.
        quorum: the least share of the places it needs that must be there. With less than 1, heirs whose home is offline, or
            for which nobody who has evidence is there, are left waiting (see `resume`); others go on with the evidence that
            there is.
        precision: what evidence is rounded to before it travels: "float64", "float32" or "bfloat16". The facts say which.
        atomic: hold back all when one is held back.
        accept_untested: commit what could not be tested, for this reason, which goes to the ledger.
        reason: why this is done; goes to the ledger.
        noted: requests as they were noted before, as a scenario names them: where one has an earlier date than `request`, it
            takes a `reason` to move it, and the facts say what it was.
        progress: told, in words, what is being done.

    Returns:
        The record, also in the ledger; one without models when nobody holds what is asked for.

    Raises:
        InputError: the request, the method or a setting is wrong; nothing was changed.
        SiteError: a place failed, or fewer than the quorum are there; nothing was changed.
    """
    method = make(method) if isinstance(method, str) else method
    plan = discover(family.lineage, request)
    if atomic and quorum < 1:
        raise InputError(f"atomic with a quorum of {quorum}: all heirs or none needs every place online; leave out one of both")
    doing = Doing(method, gate or Gate(), quorum, atomic, accept_untested, reason, precision)
    with alone(family, backend), backend.telling(progress):
        was_due = moves_due(family, request, reason, noted)
        plan, then, within, spent = remaining(family, plan)
        doing = replace(doing, then=then, within=within, spent=spent, noted=was_due)
        return carry_out(family, plan, doing, backend, retrained=retrained, progress=progress)


@dataclass(frozen=True)
class Doing:
    """How a request is to be carried out; see `unlearn`.

    Args:
        then: versions that evidence is measured on; None for the current ones.
        resumes: the ledger line that left heirs waiting; None for a request of its own.
        within: ledger lines of wider requests that made heirs forget it already.
        spent: models that evidence is measured on and that have forgotten it already.
        noted: name of a request -> the date by which it had to be done, where another takes its place.
    """

    method: Method
    gate: Gate
    quorum: float = 1.0
    atomic: bool = False
    accept_untested: str | None = None
    reason: str | None = None
    precision: str = "float64"
    then: Mapping[str, str] | None = None
    resumes: int | None = None
    within: tuple[int, ...] = ()
    spent: tuple[str, ...] = ()
    noted: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.method, Method):
            what = f"the class {self.method.__name__}" if isinstance(self.method, type) else repr(self.method)
            raise InputError(f"method: expected a method or its name, found {what}")
        if not isinstance(self.gate, Gate):
            raise InputError(f"gate: expected a Gate, as a scenario's gate.gate is, found {type(self.gate).__name__}")
        for name in ("accept_untested", "reason"):
            words = getattr(self, name)
            if not (words is None or (isinstance(words, str) and words.strip())):
                raise InputError(f"{name} is {words!r}, expected words, which go to the ledger, or None")


def carry_out(
    family: Family,
    plan: Plan,
    doing: Doing,
    backend: Backend,
    *,
    retrained: Retrained = None,
    progress: Progress = lambda _: None,
) -> Record:
    """The path itself, for the heirs of a plan; arguments, result and errors are those of `unlearn`."""
    started, carried = time.perf_counter(), dict(backend.traffic)
    method, request = doing.method, plan.request
    family.ledger.signer()  # refuses where a key is missing: now, not when all is measured
    if not method.needs <= backend.grants:
        raise InputError(
            f"method {method.name} needs {', '.join(sorted(method.needs - backend.grants))}, which no deployment grants: rows "
            f"stay where they are. It can be compared with others as a simulation (fedunlearn compare)"
        )
    if doing.precision not in PRECISIONS:
        raise unknown("precision", doing.precision, PRECISIONS)
    roll = Roll(_needed(family.lineage, plan, method), doing.quorum)
    if not plan.heirs:
        nothing = dict.fromkeys(("rows_read", "rows_calibrated", "bytes_up"), 0)
        idle = {"seconds": 0.0, "measure_seconds": 0.0, "evaluation_seconds": {}, **nothing}
        record = Record(_facts(family, plan, doing, [], [], roll, {}), idle)
        _commit(family, doing, request, record)  # that nobody holds it is an answer to the request, too
        settle(family, backend, quorum=0)  # it changes nothing at any place: whoever is offline may follow later
        return record
    progress(f"measuring {request.words()} at {len(plan.points)} points, scoring {len(plan.heirs)} heirs")
    found = measure(family, plan, method, backend, roll, doing.then, doing.precision)
    measured = time.perf_counter()
    waiting = _waiting(plan, found, roll)
    cases = {h.name: merge(family, h, plan, method, found) for h in plan.heirs if h.name not in waiting}
    misses = {name: text for name, case in cases.items() if (text := missed(method, case))}
    misses |= {name: _SILENT.format(", ".join(shards)) for name in cases if (shards := found.silent(name))}
    alone = {h.name: ", ".join(h.out_of_reach) for h in plan.heirs if h.out_of_reach and not h.points}
    if method.wants(request.classes):  # else what it says itself is why
        nobody = _NOBODY + f"; {_MASK}" * bool(request.classes)
        misses |= {name: nobody.format(shards) for name, shards in alone.items() if name in misses}
    bare = found.unweighed & cases.keys() - misses.keys()
    misses |= {h.name: _unweighed(family.lineage, h) for h in plan.heirs if h.name in bare}
    reached = {name: case for name, case in cases.items() if name not in misses}
    if not reached and (waiting or doing.resumes is None):
        raise (SiteError if waiting else InputError)(f"{method.name}: no heir can be edited: {_told({**misses, **waiting})}")
    before_reference = time.perf_counter()
    again = (retrained() if callable(retrained) else retrained) or Reference()
    waited = time.perf_counter() - before_reference
    progress(f"editing {len(reached)} heirs with {method.name}, each at its home")
    applied = edit(family, plan, method, backend, doing.gate, found, reached, again.scored, roll, doing.precision)
    waiting |= {name: _OFFLINE.format(family.lineage[name].home) for name in reached if name not in applied}
    if reached and not applied:
        raise SiteError(f"nothing was changed: {_told(waiting)}")
    progress(f"evaluating {len(applied)} candidates: {', '.join(doing.gate.tiers)}")
    evaluated = evaluate_applied(family, plan, applied, doing.gate.tiers, backend, roll, again)
    tested = score_candidates(family, plan, applied, found.scored, again, backend, roll, doing.gate.score_at_roots)
    rows, objections = _judge(family.lineage, plan, doing, found, applied, cases, misses, waiting, again, evaluated, tested)
    if doing.atomic and objections:
        for one in (r for r in rows if r["status"] == COMMITTED):
            one["status"] = PENDING
            objections.append({"model": one["name"], "text": "held back with the others (atomic)"})
    cost: dict[str, Any] = {
        "seconds": round(time.perf_counter() - started - waited, 3),
        "measure_seconds": round(measured - started, 3),
        "evaluation_seconds": seconds_of(evaluated),
        "rows_read": found.read + sum(a.read for a in applied.values()),
        "rows_calibrated": sum(a.passes * _rows(found.scored[name].calibration) for name, a in applied.items()),
        "bytes_up": found.sent,
    }
    if roll.absent:
        cost["absent"] = dict(sorted(roll.absent.items()))
    if backend.traffic:  # until here: settling comes after the record is written
        cost["traffic"] = traffic_since(carried, backend.traffic)
    facts = _facts(family, plan, doing, rows, objections, roll, found.guarded)
    facts |= {"reference": again.key} if again.key else {}
    others = {p: said for p in sorted(roll.places) if (said := differing(backend.codes.get(p, {})))}
    record = Record(facts | ({"codes": others} if others else {}), cost)
    _commit(family, doing, request, record)
    settle(family, backend, doing.quorum)
    return record


_SILENT = "has evidence that is zero in every weight, from {}: the model has no loss left there, or a site withholds it"
_OFFLINE = "waits for {} to be online"
_MASK = "logit_mask needs none"
_NOBODY = "has no evidence: {} departed, and nobody who is left has any"


def _unweighed(lineage: Lineage, heir: Heir) -> str:
    """Why an heir has no row to be weighed on, and what to do."""
    if not any(lineage.rows.get(s.key, {}).get(c) for s in heir.own for c in lineage[heir.name].head):
        return "cannot be weighed: no row that the family knows is of a class of its own; say which site trained it (`site:`)"
    gone = "departed or is" if lineage.departed else "is"
    return f"cannot be weighed: every row of its own {gone} excluded from use by now, or is to be forgotten; {_MASK}"


def _told(texts: Mapping[str, str]) -> str:
    """What is said of heirs; of those of which the same is said, once."""
    by_text: dict[str, list[str]] = {}
    for name, text in texts.items():
        by_text.setdefault(text, []).append(name)
    return "; ".join(f"{few(names)} {text}" for text, names in by_text.items())


def _rows(scores: Scores) -> int:
    return scores.rows_forgotten + scores.rows_retained


def _needed(lineage: Lineage, plan: Plan, method: Method) -> frozenset[str]:
    """Every place that a plan needs an answer of."""
    needed = {h.home for h in plan.heirs}
    if method.wants(plan.request.classes):
        points = [p for h in plan.heirs for p in points_of(lineage, h, plan, method)]
        needed |= {p.site for p in points} | {lineage[p.model].home for p in points}
    if method.own:
        needed |= {s.site for h in plan.heirs for s in h.own}
    return frozenset(needed)


def _waiting(plan: Plan, found: Round1, roll: Roll) -> dict[str, str]:
    """Heirs that cannot be edited because somebody is offline, and for whom they wait."""
    waiting = {}
    for heir in plan.heirs:
        missing = found.missing(heir.name)
        if heir.home in roll.absent or heir.name not in found.scored:
            waiting[heir.name] = _OFFLINE.format(heir.home)
        elif missing and len(missing) == len(found.asked[heir.name]):
            waiting[heir.name] = _OFFLINE.format(", ".join(sorted({p.site for p in missing})))
        elif heir.name in found.unweighed and (silent := {s.site for s in heir.own} & roll.absent.keys()):
            waiting[heir.name] = _OFFLINE.format(", ".join(sorted(silent)))
    return waiting


def _judge(
    lineage: Lineage,
    plan: Plan,
    doing: Doing,
    found: Round1,
    applied: Mapping[str, Applied],
    cases: Mapping[str, Case],
    misses: Mapping[str, str],
    waiting: Mapping[str, str],
    retrained: Reference,
    evaluated: Mapping[str, Mapping[str, Any]],
    tested: Mapping[str, Tested],
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    rows: list[dict[str, Any]] = []
    objections: list[dict[str, str]] = []
    weighs = doing.method.wants(plan.request.classes) is not None
    for heir in plan.heirs:
        scored, done, by = found.scored.get(heir.name), applied.get(heir.name), tested.get(heir.name)
        again = retrained.scored.get(heir.name)
        reference = by.retrained if by else again.test if again else None
        case = cases.get(heir.name)
        shared = {n for one in case.evidence for n in one.means} if case else set()
        missing = tuple(n for n in scored.shapes if n not in shared) if scored and case and weighs else ()
        of, untested, unresolved = evaluated.get(heir.name, {}), list[str](), list[str]()
        if heir.name in waiting:
            status, texts = WAITING, [waiting[heir.name]]
        elif by is None or done is None:
            status, texts = UNTOUCHED, [f"untouched: {misses[heir.name]}"]
        else:
            wrong, untested = doing.gate.judge(heir.target, by.before, by.after, reference, of, heir.absent)
            untested += by.refused
            if heir.target == AS_RETRAINED and retrained.lacking:
                untested.append(f"not tested: the retrained model lacks {', '.join(retrained.lacking)}, so it is another")
            texts = wrong + ([] if doing.accept_untested else untested)
            status = PENDING if texts else COMMITTED
            gone_already = heir.target == ABSENT and not wrong + untested  # seen, not taken on trust
            if done.version == done.base and not gone_already:
                status, texts = UNTOUCHED, [f"untouched: the edit changes no weight ({done.rule})", *texts]
            else:
                unresolved = doing.gate.unresolved(heir.target, by.before, reference)
        unmeasured = tuple(dict.fromkeys(f"{p.model} @ {p.shard}" for p in found.missing(heir.name)))
        unmeasured += tuple(f"{p.model} @ {p.shard} ({n} of {most} rows)" for p, n, most in found.partly(heir.name, lineage))
        unmeasured += tuple(f"{shard} (departed)" for shard in heir.out_of_reach if weighs)
        given = scored, done, reference, missing, unmeasured, status, bool(plan.request.classes), of, by, untested, unresolved
        compared = again.version if again else None
        rows.append(row(heir, lineage[heir.name], *given, compared))
        objections += [{"model": heir.name, "text": text} for text in texts]
    return rows, objections


def _facts(
    family: Family, plan: Plan, doing: Doing, rows: Sequence[Mapping[str, Any]], objections: Sequence[Mapping[str, str]],
    roll: Roll, guarded: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:  # fmt: skip
    return {
        "request": plan.request.to_json(),
        "plan": plan.to_json(),
        "method": doing.method.name,
        **({"code": code} if (code := code_of(doing.method)) else {}),
        "settings": settings_of(doing.method),
        "precision": doing.precision,
        "gate": vars(doing.gate),
        "models": list(rows),
        "objections": list(objections),
        "accepted_untested": doing.accept_untested,
        **({"within": list(doing.within)} if doing.within else {}),
        **({"noted": dict(doing.noted)} if doing.noted else {}),
        "absent": sorted(roll.absent),
        "guarded": dict(guarded),
        **({"spent": list(doing.spent)} if doing.spent and doing.method.wants(plan.request.classes) else {}),
        **({"unregistered": list(lost)} if (lost := family.unregistered) else {}),
    }


def _commit(family: Family, doing: Doing, request: Request, record: Record) -> None:
    """The commit point: one ledger line. Once a model has changed, or if none holds the data, no site may train on it."""
    by_status: dict[str, dict[str, str]] = {COMMITTED: {}, PENDING: {}, UNTOUCHED: {}, WAITING: {}}
    for one in record.facts["models"]:
        by_status[one["status"]][one["name"]] = one["version_after"]
    excluded = _exclusions(request, family.lineage) if by_status[COMMITTED] or not record.facts["models"] else {}
    body: dict[str, Any] = {
        "request": request.id,
        "heads": by_status[COMMITTED],
        "pending": by_status[PENDING],
        "untouched": sorted(by_status[UNTOUCHED]),
        "reason": doing.reason,
        "exclusions": excluded,
        "record": keep_record(family, record),
    }
    if by_status[WAITING]:
        body |= {"waiting": sorted(by_status[WAITING]), "method": menu_name(doing.method)}
    if doing.resumes is not None:
        body["resumes"] = doing.resumes
    family.ledger.append("unlearned", body)


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
