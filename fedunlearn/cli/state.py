"""What a family's folder says about itself, as plain data."""

from pathlib import Path
from typing import Any

from fedunlearn.lineage import Plan
from fedunlearn.runtime import Family, behind, cut, owed, pending, waiting
from fedunlearn.runtime.books.cases import PLANNED, UNDONE
from fedunlearn.scenario import cases_of, of_family


def cost(family: Family, found: Plan) -> dict[str, Any]:
    """Rows to read, bytes of evidence to send, and seconds at the speed that training had on this machine."""
    rows = found.rows + sum(n for h in found.heirs for s in h.own for n in s.rows.values())
    speed = family.ledger.lines[0].body.get("rows_per_second")
    return {"rows": rows, "bytes": found.sent, "seconds": round(rows / speed, 1) if speed else None}


def state(family: Family) -> dict[str, Any]:
    """Models, versions, candidates, ledger, what is open: what `show --json` prints."""
    heads, lines = family.heads, family.ledger.lines
    candidates, waits = pending(family), waiting_for(family)
    models = [
        {
            "name": m.name,
            "home": m.home,
            "born": m.born,
            "parents": list(m.parents),
            "head": list(m.head),
            "kept": m.kept,
            "version": heads.get(m.name),
            "pending": candidates.get(m.name),
            "waiting": waits.get(m.name),
            "net": m.net,
            "started": dict(m.started),
            "imported": m.imported,
        }
        for m in family.lineage.models
    ]
    story = [
        {"line": x.number, "time": x.time, "kind": x.kind, "request": x.body.get("request"), "hash": x.hash} for x in lines
    ]
    late = {"behind": list(behind(family)), "unerased": list(owed(family)), "cut": cut(family)}
    return {"models": models, "ledger": story, **late, "departed": list(family.departed), "due": due(family)}


def waiting_for(family: Family) -> dict[str, str]:
    """Models that a request has left waiting for a place to be online, and why, in words."""
    found = {}
    for model, line in waiting(family).items():
        texts = {o["model"]: o["text"] for o in line.body["record"]["facts"]["objections"]}
        found[model] = f"{line.body['request']}: {texts[model]}"
    return found


def standing(family: Family) -> list[dict[str, Any]]:
    """Every request as a case."""
    return [
        {
            "id": x.request.id,
            "names": [n for n in (*x.names, *x.also) if n != x.request.id],
            "what": x.request.words(),
            "received": x.request.received,
            "due": x.request.due,
            "state": x.state,
            "first_due": x.first_due,
            "overdue": x.overdue,
            "done": x.done,
            "late": x.late,
            "left": list(x.left),
            "lost": list(x.lost),
            "lines": list(x.lines),
            "within": list(x.within),
        }
        for x in cases_of(family)
    ]


def due(family: Family) -> list[dict[str, Any]]:
    """Requests that the scenario names or that left something undone, and that are not in force."""
    return [
        {"id": x.request.id, "what": x.request.words(), "due": x.request.due}
        for x in cases_of(family)
        if x.left or x.state in (PLANNED, UNDONE)
    ]


def here(folder: Path) -> list[str]:
    """Places whose stores are in the folder: none in a copy of a family that lives elsewhere, and no sites of their own."""
    family = Family(folder)
    if family.elsewhere:
        return []
    scenario = of_family(Family.open(folder))
    return [p for p in family.places if not (scenario.own and p in scenario.sites)]
