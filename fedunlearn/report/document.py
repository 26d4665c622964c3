"""Everything that the page about one ledger line shows, as plain data."""

from collections import Counter
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from fedunlearn.evaluation.tiers import TIERS
from fedunlearn.lineage import Lineage, Request, unaccounted
from fedunlearn.report.drawing import drawing
from fedunlearn.report.history import dates, edited_before, excluded, sealed, tests, tries
from fedunlearn.report.limits import Around, limits
from fedunlearn.report.measurements import Evaluation, unmeasured
from fedunlearn.report.risk import LEVELS, few, judge
from fedunlearn.report.verdict import verdict
from fedunlearn.report.why import reasons
from fedunlearn.report.words import scored_at
from fedunlearn.runtime import Family, owed
from fedunlearn.runtime.books.evaluations import FOLDER, evaluated, hashes_of, named
from fedunlearn.runtime.books.records import record_of
from fedunlearn.store import Line


def document(
    family: Family,
    line: Line,
    evaluations: Mapping[str, Evaluation],
    then: Mapping[int, Mapping[str, Evaluation]] = MappingProxyType({}),
) -> dict[str, Any]:
    """One request, from what the ledger and the lineage say and what was measured since. The same in, the same out.

    Args:
        family: whose ledger it is.
        line: an "unlearned" line of it.
        evaluations: model -> tier -> result, as `fedunlearn.scenario.assessed` gives them; those of other versions than the
            line names are not used. A tier that is not among them is taken from the record, where the gate saw it.
        then: the same of earlier lines, by their numbers: models that this line left as an earlier one had made them are judged
            by what was found then (see `edited_before`).

    Returns:
        `family`, `line`, `request`, `verdict`, `reached`, `method`, `models` (every kept model, the most doubtful first),
        `lineage` (the drawing), `evidence`, `cost`, `objections`, `evaluations` (those used), `tests` (ledger
        lines that name some), `not_measured` and `limits`.

    Raises:
        StoreError: as `record_of`.
    """
    body, record = line.body, record_of(family, line)
    facts, cost = record.facts, record.cost
    lineage, request = family.lineage_at(line), Request.from_json(facts["request"])
    back = next((x for x in family.ledger.lines if x.kind == "rolled back" and x.body["undoes"] == line.number), None)
    undone, before = (None if back is None else back.number), edited_before(family, line)
    seal = sealed(family, line, before)
    owing = () if seal["by"] is None else owed(family)
    gone = _gone(family, line, evaluations)
    used, stale = _used(facts["models"], evaluations, gone)
    departed = family.departed
    for row in (r for r in facts["models"] if r["name"] in family.lost):
        told = f"it is lost with {row['home']} (ledger line {departed[row['home']].number})"
        stale = dict.fromkeys(((row["name"], tier) for tier in TIERS), told) | stale
    seconds: Counter[str] = Counter()
    for tier, result in ((t, r) for tiers in used.values() for t, r in tiers.items()):
        seconds[tier] += sum(result.get("seconds", {}).values())
    resting = {} if undone is not None else _resting(family, line, before)
    for name, (one, row) in resting.items():
        lacking = {k: why for k, why in _gone(family, one, then.get(one.number, {})).items() if k[0] == name}
        found, old = _used([row], then.get(one.number, {}), lacking)
        gone |= lacking
        for tier in TIERS:
            how = f"(fedunlearn report … --line {one.number} --tier {tier})"
            stale.setdefault((name, tier), f"the {tier} tier was not run {how}")
        used |= found
        stale |= old
    rows = [*(r for r in facts["models"] if r["name"] not in resting), *(row for _, row in resting.values())]
    sets = _evidence(facts["models"])
    unknown = unaccounted(lineage, request, {*facts["plan"]["affected"]})
    models = _models(family, line, facts, lineage, used, sets, undone is not None, unknown, before, resting)
    risks = {m["name"]: m["risk"] for m in models}
    imported = [m.name for m in lineage.models if m.kept and m.imported]
    lost = [name for name in facts["plan"]["affected"] if name in family.lost and not lineage[name].kept]
    of = {row["name"]: resting[row["name"]][0] if row["name"] in resting else line for row in rows}
    hashes = {one.number: named(family.ledger, one.number) for one in of.values()}
    beside = any(
        result != (row.get("evaluation") or {}).get(tier)
        and not _is_named(result, (row["name"], tier), of[row["name"]], hashes)
        for row in rows
        for tier, result in used.get(row["name"], {}).items()
    )
    asked, out, tried = dates(family, line, request), excluded(family, line), tries(family, line)
    tested = tests(family, {line.number, *hashes})
    return {
        "family": family.folder.resolve().name,
        "line": {
            "number": line.number,
            "time": line.time,
            "after": family.ledger.lines[line.number - 1].time if line.number in family.ledger.set_back else None,
            "kind": line.kind,
            "hash": line.hash,
            "previous": line.previous,
            "file": family.ledger.path.name,
            "by": line.by,
            "code": dict(line.code),
            "codes": facts.get("codes", {}),
            "key": line.key,
            "signed": family.ledger.signed(line),
            "rolled_back": _told(back),
            "sealed": _told(seal["by"]),
            "left_by_sealing": seal["left"],
            "sealed_before": seal["earlier"],
            "can_be_rolled_back": seal["open"] and undone is None,
            "not_erased_at": list(owing),
            "resumes": body.get("resumes"),
            "last": {"number": family.ledger.lines[-1].number, "hash": family.ledger.lines[-1].hash},
        },
        "request": {
            **facts["request"],
            **asked,
            "words": request.words(),
            "cases": [
                {"id": one.id, "words": one.words(), **dates(family, line, one), **facts["plan"]["cases"][one.id]}
                for one in request.merges
            ],
            "reason": body["reason"],
            "accepted_untested": facts["accepted_untested"],
            "excluded": body["exclusions"],
            "lifted": out["lifted"],
            "tries": tried,
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
        "tests": tested,
        "not_measured": unmeasured(rows, used, stale),
        "limits": limits(facts, used, Around(beside, seal, out, tried, tested, gone, owing, departed, imported, unknown)),
    }


def _told(line: Line | None) -> dict[str, Any] | None:
    """Who wrote a line, when and why."""
    return {"number": line.number, "time": line.time, "by": line.by, "reason": line.body.get("reason")} if line else None


def _is_named(
    result: Mapping[str, Any], key: tuple[str, str], line: Line, hashes: Mapping[int, Mapping[tuple[str, str], str]]
) -> bool:
    """Whether a ledger line names a result of a model and tier as that of what a line edited."""
    model, tier = key
    return hashes_of(line, {model: {tier: dict(result)}})[model][tier] == hashes[line.number].get(key)


def _gone(family: Family, line: Line, evaluations: Mapping[str, Evaluation]) -> dict[tuple[str, str], str]:
    """What ledger lines say was found of what a line edited, and is not at hand: model and tier -> what to say of it."""
    at = "not in this copy (with --tier it comes home)" if family.elsewhere else f"missing from {FOLDER}/, or damaged"
    return {
        (model, tier): f"the {tier} tier was run (ledger line {one.number}), and what it found is {at}"
        for one in evaluated(family.ledger, line.number)
        for model, tiers in one.body["results"].items()
        for tier in tiers
        if tier not in evaluations.get(model, {})
    }


def _used(
    rows: list[dict[str, Any]], evaluations: Mapping[str, Evaluation], gone: Mapping[tuple[str, str], str]
) -> tuple[dict[str, dict[str, Any]], dict[tuple[str, str], str]]:
    """Results of the versions that the record names, the record's own included; why others are not used, by model and tier."""
    used: dict[str, dict[str, Any]] = {r["name"]: dict(r["evaluation"]) for r in rows if r.get("evaluation")}
    stale = dict(gone)
    for row in rows:
        for tier, result in evaluations.get(row["name"], {}).items():
            if (result["version_before"], result["version_after"]) == (row["version_before"], row["version_after"]):
                used.setdefault(row["name"], {})[tier] = result
            else:
                stale[row["name"], tier] = f"the {tier} tier was run on another version ({result['version_after'][:12]})"
    return used, stale


def _resting(family: Family, line: Line, before: Mapping[str, Line]) -> dict[str, tuple[Line, dict[str, Any]]]:
    """Models that a line has not changed and an earlier one has -> that one, on which they rest, and their row in it."""
    left = {name: one for name, one in before.items() if name not in line.body["heads"]}
    lines = {one.number: one for one in left.values()}
    told = {n: {row["name"]: row for row in record_of(family, one).facts["models"]} for n, one in lines.items()}
    return {name: (one, told[one.number][name]) for name, one in left.items()}


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
    facts: Mapping[str, Any],
    lineage: Lineage,
    used: Mapping[str, Evaluation],
    sets: list[dict[str, Any]],
    undone: bool,
    unknown: Collection[str],
    before: Mapping[str, Line],
    resting: Mapping[str, tuple[Line, dict[str, Any]]],
) -> list[dict[str, Any]]:
    rows = {row["name"]: row for row in facts["models"]}
    objections: dict[str, list[str]] = {}
    for one in facts["objections"]:
        objections.setdefault(one["model"], []).append(one["text"])
    numbers = {tuple(f"{p['model']} @ {p['shard']}" for p in s["points"]): s["id"] for s in sets}
    later = _later(family, line)
    untested, affected, resumes = _accepted_untested(line), set(facts["plan"]["affected"]), line.body.get("resumes")
    elsewhere = dict.fromkeys(affected, resumes) if resumes is not None else {}
    why = reasons(lineage, facts, elsewhere | {model: one.number for model, one in before.items()}, unknown)
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
            if model.name in resting:
                one, old = resting[model.name]
                plain |= _judged_then(one, line, old, used, f"Not edited again; ledger line {one.number} had edited it")
            plain["findings"] = [*plain["findings"], *few(row, facts["gate"]["forgotten_at_most"])]
            plain |= {"evidence": numbers.get(tuple(row["points"])), "scored": scored_at(row)}
        elif model.name in resting:
            one, row = resting[model.name]
            plain |= {**row, **_judged_then(one, line, row, used, f"Edited by ledger line {one.number}")}
            plain |= {"evidence": numbers.get(tuple(row["points"])), "scored": scored_at(row), "affected": True}
        else:
            touched = model.name in affected
            plain |= {"risk": "open" if touched else "none", "findings": ["Not decided by this line."] if touched else []}
            plain["remembers"] = False
        plain |= {"born": model.birth, "objections": objections.get(model.name, []), "later": later.get(model.name)}
        found.append(plain)
    order = list(LEVELS)
    return sorted(found, key=lambda m: (order.index(m["risk"]), -(m.get("forgotten_after") or 0.0)))


def _judged_then(before: Line, line: Line, row: Mapping[str, Any], used: Mapping[str, Evaluation], done: str) -> dict[str, Any]:
    """What rests on an earlier line that is in force: its level, and its findings behind words that say so."""
    found = judge(row, used.get(row["name"], {}), _accepted_untested(before), undone=False)
    wider = before.number in line.body["record"]["facts"].get("within", ())
    words = f"{done} for {'a wider request' if wider else 'this request'}, and that is in force."
    return {**found, "findings": [words, *found["findings"]], "earlier": before.number}


def _accepted_untested(line: Line) -> bool:
    return line.body["record"]["facts"]["accepted_untested"] is not None


def _later(family: Family, line: Line) -> dict[str, int]:
    """Models whose version a later line has changed -> that line."""
    found: dict[str, int] = {}
    for one in family.ledger.lines[line.number + 1 :]:
        found |= dict.fromkeys(one.body.get("heads", {}), one.number)
    return found
