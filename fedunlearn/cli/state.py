"""What a family's folder says about itself, as plain data."""

from typing import Any

from fedunlearn.lineage import Plan, Request
from fedunlearn.runtime import Family, behind, cases, owed, pending, waiting
from fedunlearn.scenario import of_family


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
        }
        for m in family.lineage.models
    ]
    story = [
        {"line": x.number, "time": x.time, "kind": x.kind, "request": x.body.get("request"), "hash": x.hash} for x in lines
    ]
    late = {"behind": list(behind(family)), "unerased": list(owed(family))}
    return {"models": models, "ledger": story, **late, "due": due(family)}


def waiting_for(family: Family) -> dict[str, str]:
    """Models that a request has left waiting for a place to be online, and why, in words."""
    found = {}
    for model, line in waiting(family).items():
        texts = {o["model"]: o["text"] for o in line.body["record"]["facts"]["objections"]}
        found[model] = f"{line.body['request']}: {texts[model]}"
    return found


def standing(family: Family) -> list[dict[str, Any]]:
    """Every request as a case."""
    named = [asked.request(name) for name, asked in of_family(family).requests.items()]
    return [
        {
            "id": x.request.id,
            "what": x.request.words(),
            "received": x.request.received,
            "due": x.request.due,
            "state": x.state,
            "overdue": x.overdue,
            "left": list(x.left),
            "lines": list(x.lines),
        }
        for x in cases(family, named)
    ]


def due(family: Family) -> list[dict[str, Any]]:
    """Requests that the scenario names or that left something undone, and that are not in force."""
    undone = family.ledger.undone
    asked = {r.what: r for r in (a.request(n) for n, a in of_family(family).requests.items())}
    left: dict[tuple[object, ...], set[str]] = {}
    for line in (x for x in family.ledger.lines if x.kind == "unlearned"):
        request = Request.from_json(line.body["record"]["facts"]["request"])
        asked[request.what] = request
        if line.number not in undone:
            open_ = {*line.body["pending"], *line.body["untouched"], *line.body.get("waiting", ())}
            before = left.get(request.what, set()) if "resumes" in line.body else set()
            left[request.what] = (before - set(line.body["heads"])) | open_
    return [{"id": r.id, "what": r.words(), "due": r.due} for what, r in asked.items() if left.get(what, {""})]
