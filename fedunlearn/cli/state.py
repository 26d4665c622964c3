"""What a family's folder says about itself, as plain data."""

from typing import Any

from fedunlearn.lineage import Plan, Request
from fedunlearn.runtime import Family
from fedunlearn.runtime.worker import acknowledged
from fedunlearn.scenario import of_family


def cost(family: Family, found: Plan) -> dict[str, Any]:
    """Rows to read, bytes of evidence to send, and seconds at the speed that training had on this machine."""
    rows = found.rows + sum(n for h in found.heirs for s in h.own for n in s.rows.values())
    speed = family.ledger.lines[0].body.get("rows_per_second")
    return {"rows": rows, "bytes": found.sent, "seconds": round(rows / speed, 1) if speed else None}


def state(family: Family) -> dict[str, Any]:
    """Models, versions, candidates, ledger, what is open: what `show --json` prints."""
    heads, lines = family.heads, family.ledger.lines
    candidates = pending(family)
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
            "net": m.net,
            "started": dict(m.started),
        }
        for m in family.lineage.models
    ]
    story = [
        {"line": x.number, "time": x.time, "kind": x.kind, "request": x.body.get("request"), "hash": x.hash} for x in lines
    ]
    return {"models": models, "ledger": story, "behind": behind(family), "due": due(family)}


def pending(family: Family) -> dict[str, str]:
    """Candidates that the gate held back, until the model or the request moves on."""
    found: dict[str, str] = {}
    for line in family.ledger.lines:
        for model in line.body.get("heads", {}):
            found.pop(model, None)
        found.update(line.body.get("pending", {}))
    return found


def behind(family: Family) -> list[str]:
    """Places that have not acknowledged the last ledger line, as far as their stores are here."""
    last, scenario = family.ledger.lines[-1].hash, of_family(family)
    elsewhere = scenario.sites if scenario.own else ()
    return [p for p in family.places if p not in elsewhere and acknowledged(family.store(p)) != last]


def due(family: Family) -> list[dict[str, Any]]:
    """Requests that the scenario names or that were held back, and that are not in force."""
    undone = {x.body["undoes"] for x in family.ledger.lines if x.kind == "rolled back"}
    asked = {_what(r): r for r in (a.request(n) for n, a in of_family(family).requests.items())}
    done = set()
    for line in (x for x in family.ledger.lines if x.kind == "unlearned"):
        request = Request.from_json(line.body["record"]["facts"]["request"])
        asked[_what(request)] = request
        if line.number not in undone and not line.body["pending"] and not line.body["untouched"]:
            done.add(_what(request))
    return [{"id": r.id, "what": r.words(), "due": r.due} for what, r in asked.items() if what not in done]


def _what(request: Request) -> tuple[object, ...]:
    """What is asked, whatever the case is called."""
    return request.classes, request.samples, request.sites, request.since
