"""Everything that the page about one ledger line shows, as plain data."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from fedunlearn.evaluation.tiers import TIERS
from fedunlearn.lineage import Lineage, Request, unaccounted
from fedunlearn.report.drawing import drawing
from fedunlearn.report.limits import limits
from fedunlearn.report.measurements import Evaluation, unmeasured
from fedunlearn.report.risk import LEVELS, few, judge
from fedunlearn.report.verdict import verdict
from fedunlearn.report.why import reasons
from fedunlearn.report.words import scored_at
from fedunlearn.runtime import Family, owed
from fedunlearn.runtime.cases import carried_out
from fedunlearn.store import Line


def document(family: Family, line: Line, evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    """One request, from what the ledger and the lineage say and what was measured since. The same in, the same out.

    Args:
        family: whose ledger it is.
        line: an "unlearned" line of it.
        evaluations: model -> tier -> result, as `fedunlearn.scenario.assessed` gives them; those of other versions than the
            line names are not used. A tier that is not among them is taken from the record, where the gate saw it.

    Returns:
        `family`, `line`, `request`, `verdict`, `reached`, `method`, `models` (every kept model, the most doubtful first),
        `lineage` (the drawing), `evidence`, `cost`, `objections`, `evaluations` (those used), `not_measured` and `limits`.
    """
    body, facts, cost = line.body, line.body["record"]["facts"], line.body["record"]["cost"]
    lineage, request = family.lineage_at(line), Request.from_json(facts["request"])
    seal = next((x for x in family.ledger.lines if x.kind == "sealed" and line.number in x.body["seals"]), None)
    back = next((x for x in family.ledger.lines if x.kind == "rolled back" and x.body["undoes"] == line.number), None)
    undone, owing = (None if back is None else back.number), (() if seal is None else owed(family))
    used, stale = _of_versions(facts["models"], evaluations)
    departed = family.departed
    for row in (r for r in facts["models"] if r["name"] in family.lost):
        told = f"it is lost with {row['home']} (ledger line {departed[row['home']].number})"
        stale = dict.fromkeys(((row["name"], tier) for tier in TIERS), told) | stale
    for row in (r for r in facts["models"] if r.get("evaluation")):
        used[row["name"]] = {**row["evaluation"], **used.get(row["name"], {})}
    sets = _evidence(facts["models"])
    unknown = unaccounted(lineage, request, {*facts["plan"]["affected"]})
    models = _models(family, line, lineage, used, sets, undone is not None, unknown)
    risks = {m["name"]: m["risk"] for m in models}
    imported = [m.name for m in lineage.models if m.kept and m.imported]
    lost = [name for name in facts["plan"]["affected"] if name in family.lost and not lineage[name].kept]
    seconds: Counter[str] = Counter()
    for tier, result in ((t, r) for tiers in used.values() for t, r in tiers.items()):
        seconds[tier] += sum(result.get("seconds", {}).values())
    return {
        "family": family.folder.resolve().name,
        "line": {
            "number": line.number,
            "time": line.time,
            "kind": line.kind,
            "hash": line.hash,
            "previous": line.previous,
            "file": family.ledger.path.name,
            "by": line.by,
            "code": dict(line.code),
            "key": line.key,
            "rolled_back": _told(back),
            "sealed": _told(seal),
            "not_erased_at": list(owing),
            "resumes": body.get("resumes"),
            "last": {"number": family.ledger.lines[-1].number, "hash": family.ledger.lines[-1].hash},
        },
        "request": {
            **facts["request"],
            "words": request.words(),
            "cases": [_case(one, line, facts) for one in request.merges],
            "reason": body["reason"],
            "accepted_untested": facts["accepted_untested"],
            "excluded": body["exclusions"],
            "late": _late(request, line),
        },
        "verdict": verdict(models, undone, lost),
        "reached": {
            "roots": facts["plan"]["roots"],
            "affected": len(facts["plan"]["affected"]),
            "retired": sum(not lineage[name].kept for name in facts["plan"]["affected"]) - len(lost),
            "lost": lost,
        },
        "method": {**{k: facts[k] for k in ("method", "settings", "precision", "gate")}, "code": facts.get("code")},
        "models": models,
        "lineage": drawing(lineage, risks),
        "evidence": {"sets": sets, "absent": facts["absent"], "guarded": facts.get("guarded", {})},
        "cost": {
            **cost,
            "traffic": [{"place": p, **t} for p, t in cost.get("traffic", {}).items()],
            "evaluation": dict(seconds),
        },
        "objections": facts["objections"],
        "evaluations": {name: used[name] for name in risks if name in used},
        "not_measured": unmeasured(facts["models"], used, stale),
        "limits": limits(facts, used, None if seal is None else seal.number, owing, departed, imported, unknown),
    }


def _told(line: Line | None) -> dict[str, Any] | None:
    """Who wrote a line, when and why."""
    return {"number": line.number, "time": line.time, "by": line.by, "reason": line.body.get("reason")} if line else None


def _case(request: Request, line: Line, facts: Mapping[str, Any]) -> dict[str, Any]:
    """One of the requests that the one of a line merges."""
    told = {"id": request.id, "words": request.words(), "received": request.received, "due": request.due}
    return {**told, "late": _late(request, line), **facts["plan"]["cases"][request.id]}


def _late(request: Request, line: Line) -> bool | None:
    return None if request.due is None else line.time[:10] > request.due


def _of_versions(
    rows: list[dict[str, Any]], evaluations: Mapping[str, Evaluation]
) -> tuple[dict[str, dict[str, Any]], dict[tuple[str, str], str]]:
    """Results of the versions that the record names; and why those of others are not used, by model and tier."""
    used: dict[str, dict[str, Any]] = {}
    stale: dict[tuple[str, str], str] = {}
    for row in rows:
        for tier, result in evaluations.get(row["name"], {}).items():
            if (result["version_before"], result["version_after"]) == (row["version_before"], row["version_after"]):
                used.setdefault(row["name"], {})[tier] = result
            else:
                stale[row["name"], tier] = f"the {tier} tier was run on another version ({result['version_after'][:12]})"
    return used, stale


def _evidence(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Distinct sets of evidence points, numbered; big families share a few."""
    heirs: dict[tuple[str, ...], int] = Counter(tuple(row["points"]) for row in rows if row["points"])
    return [
        {"id": f"E{number}", "heirs": count, "points": [_point(p) for p in points]}
        for number, (points, count) in enumerate(heirs.items(), 1)
    ]


def _point(text: str) -> dict[str, str]:
    model, _, shard = text.rpartition(" @ ")
    return {"model": model, "site": shard.split("/", 1)[0], "shard": shard}


def _models(
    family: Family,
    line: Line,
    lineage: Lineage,
    used: Mapping[str, Evaluation],
    sets: list[dict[str, Any]],
    undone: bool,
    unknown: Collection[str],
) -> list[dict[str, Any]]:
    facts = line.body["record"]["facts"]
    rows = {row["name"]: row for row in facts["models"]}
    objections: dict[str, list[str]] = {}
    for one in facts["objections"]:
        objections.setdefault(one["model"], []).append(one["text"])
    numbers = {tuple(f"{p['model']} @ {p['shard']}" for p in s["points"]): s["id"] for s in sets}
    later, earlier = _later(family, line), _earlier(family, line)
    untested, affected, resumes = _accepted_untested(line), set(facts["plan"]["affected"]), line.body.get("resumes")
    elsewhere = dict.fromkeys(affected, resumes) if resumes is not None else {}
    why = reasons(lineage, facts, elsewhere | {model: before.number for model, before in earlier.items()}, unknown)
    found = []
    for model in (m for m in lineage.models if m.kept):
        plain: dict[str, Any] = {
            "name": model.name,
            "home": model.home,
            "why": why[model.name],
            "affected": model.name in rows,
        }
        if model.name in rows:
            row = rows[model.name]
            plain |= {**row, **judge(row, used.get(model.name, {}), untested, undone)}
            if row["status"] != "committed" and not undone and (before := earlier.get(model.name)):
                words = f"Not edited again; ledger line {before.number} had edited it"
                plain |= _judged_then(before, line, _row(before, model.name), words)
            plain["findings"] = [*plain["findings"], *few(row, facts["gate"]["forgotten_at_most"])]
            plain |= {"evidence": numbers.get(tuple(row["points"])), "scored": scored_at(row)}
        elif not undone and (before := earlier.get(model.name)):
            row = _row(before, model.name)
            plain |= {**row, **_judged_then(before, line, row, f"Edited by ledger line {before.number}")}
            plain |= {"evidence": numbers.get(tuple(row["points"])), "scored": scored_at(row), "affected": True}
        else:
            touched = model.name in affected
            plain |= {"risk": "open" if touched else "none", "findings": ["Not decided by this line."] if touched else []}
            plain["remembers"] = False
        plain |= {"born": model.birth, "objections": objections.get(model.name, []), "later": later.get(model.name)}
        found.append(plain)
    order = list(LEVELS)
    return sorted(found, key=lambda m: (order.index(m["risk"]), -(m.get("forgotten_after") or 0.0)))


def _earlier(family: Family, line: Line) -> dict[str, Line]:
    """Models that an earlier try of the same request, or a wider one that was in force by then, has edited -> that line."""
    asked, undone, found = {r.what for r in carried_out(line)}, family.ledger.undone, dict[str, Line]()
    within = line.body["record"]["facts"].get("within", ())
    for one in (x for x in family.ledger.lines[: line.number] if x.kind == "unlearned" and x.number not in undone):
        if one.number in within or asked & {r.what for r in carried_out(one)}:
            found |= dict.fromkeys(one.body["heads"], one)
    return found


def _judged_then(before: Line, line: Line, row: Mapping[str, Any], done: str) -> dict[str, Any]:
    """What rests on an earlier line that is in force: its level, and its findings behind words that say so."""
    found = judge(row, row.get("evaluation", {}), _accepted_untested(before), undone=False)
    wider = before.number in line.body["record"]["facts"].get("within", ())
    words = f"{done} for {'a wider request' if wider else 'this request'}, and that is in force."
    return {**found, "findings": [words, *found["findings"]], "earlier": before.number}


def _row(line: Line, model: str) -> dict[str, Any]:
    """What a line's record says of a model."""
    return next(dict(row) for row in line.body["record"]["facts"]["models"] if row["name"] == model)


def _accepted_untested(line: Line) -> bool:
    return line.body["record"]["facts"]["accepted_untested"] is not None


def _later(family: Family, line: Line) -> dict[str, int]:
    """Models whose version a later line has changed -> that line."""
    found: dict[str, int] = {}
    for one in family.ledger.lines[line.number + 1 :]:
        found |= dict.fromkeys(one.body.get("heads", {}), one.number)
    return found
