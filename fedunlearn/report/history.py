"""What other ledger lines say of the request that a page is about: tries, tests, its dates, what is sealed or lifted."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedunlearn.lineage import Request
from fedunlearn.runtime import Family
from fedunlearn.runtime.books.cases import carried_out, filed, said_in, together
from fedunlearn.runtime.books.evaluations import evaluated
from fedunlearn.runtime.books.line_bodies import request_in
from fedunlearn.runtime.settle import still_excluded
from fedunlearn.store import Line


def edited_before(family: Family, line: Line) -> dict[str, Line]:
    """Models that an earlier try of the same request, or a wider one that was in force by then, has edited -> that line."""
    asked, undone, found = {r.what for r in carried_out(line)}, family.ledger.undone, dict[str, Line]()
    within = line.body["record"]["facts"].get("within", ())
    for one in (x for x in family.ledger.lines[: line.number] if x.kind == "unlearned" and x.number not in undone):
        if one.number in within or asked & {r.what for r in carried_out(one)}:
            found |= dict.fromkeys(one.body["heads"], one)
    return found


def tries(family: Family, line: Line) -> list[dict[str, Any]]:
    """Earlier ledger lines that tried the same request, whatever came of them.

    Returns:
        `number`, `time`, `by`, `method`, how many models were `committed`, `held_back` and `untouched`, whether all of it was
        `rolled_back`, and its `gate`, where its limits were others than those of the line: None where they were the same.
    """
    asked, undone, limits = {r.what for r in carried_out(line)}, family.ledger.undone, line.body["record"]["facts"]["gate"]
    found = []
    for one in (x for x in family.ledger.lines[: line.number] if x.kind == "unlearned"):
        if asked & {r.what for r in carried_out(one)}:
            body, facts = one.body, one.body["record"]["facts"]
            counts = {"committed": body["heads"], "held_back": body["pending"], "untouched": body["untouched"]}
            found.append({
                "number": one.number, "time": one.time, "by": one.by, "method": facts["method"],
                **{what: len(models) for what, models in counts.items()},
                "rolled_back": one.number in undone, "gate": None if facts["gate"] == limits else facts["gate"],
            })  # fmt: skip
    return found


def tests(family: Family, lines: Collection[int]) -> list[dict[str, Any]]:
    """What was evaluated afterwards of what lines edited, whatever it found.

    Returns:
        For each ledger line that names results: its `number`, `time` and `by`, the line that it is `of`, `models`, by tier, and
        what the retrained models beside them were `lacking` besides.
    """
    return [
        {
            "number": one.number, "time": one.time, "by": one.by, "of": number, "lacking": one.body.get("lacking", []),
            "models": {tier: sorted(m for m, of in one.body["results"].items() if tier in of) for tier in _tiers(one)},
        }
        for number in sorted(lines)
        for one in evaluated(family.ledger, number)
    ]  # fmt: skip


def _tiers(line: Line) -> list[str]:
    return sorted({tier for tiers in line.body["results"].values() for tier in tiers})


def retaken(tests: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[int]]:
    """Tests that were taken more than once: tier and model -> the ledger lines that say so."""
    found: dict[tuple[int, str, str], list[int]] = {}
    for one in tests:
        for tier, models in one["models"].items():
            for model in models:
                found.setdefault((one["of"], tier, model), []).append(one["number"])
    return {(tier, model): numbers for (_, tier, model), numbers in found.items() if len(numbers) > 1}


def dates(family: Family, line: Line, request: Request) -> dict[str, Any]:
    """When a request was received and had to be done, by all lines up to one, and whether that line was in time.

    Returns:
        `received` and `due`, as `cases` has them; `moved`, for every time that a date took the place of another: `number`,
        `by`, `reason` of that line, and the date `from` which it was moved; `late`, by `due`.
    """
    now, said, moved = replace(request, received=None, due=None), dict[str, Request](), list[dict[str, Any]]()
    for one in (x for x in family.ledger.lines[: line.number + 1] if x.kind == "unlearned"):
        for asked in (r for r in carried_out(one) if r.what == request.what):
            for each in said_in(one, asked):
                said[asked.id] = filed(said.get(asked.id, each), each)
                before, now = now, together(list(said.values()))
                if before.due and now.due != before.due:
                    moved.append({"number": one.number, "by": one.by, "reason": one.body.get("reason"), "from": before.due})
    late = None if now.due is None else line.time[:10] > now.due
    return {"received": now.received, "due": now.due, "moved": moved, "late": late}


def excluded(family: Family, line: Line) -> dict[str, Any]:
    """What may not be trained on any more: `at` which sites a line said so, and the line that has `lifted` that, if any."""
    at, lifted = list(line.body["exclusions"]), None
    if at and not still_excluded(family, line):
        lines, asked = family.ledger.lines, request_in(line).what
        by = [x for x in lines if x.kind == "rolled back" and x.body["lifted"]]
        lifted = next((x.number for x in reversed(by) if request_in(lines[x.body["undoes"]]).what == asked), None)
    return {"at": at, "lifted": lifted}


def sealed(family: Family, line: Line, before: Mapping[str, Line]) -> dict[str, Any]:
    """What of a request cannot be rolled back any more.

    Args:
        family: the family.
        line: of the request.
        before: models that rest on an earlier line -> that line.

    Returns:
        `by`, the line that sealed this one; `left`, models that still held the data then; `earlier`, for each earlier line that
        is sealed its number (`line`) and that of the line that sealed it (`by`); `open`, whether this line changed a model
        that can be rolled back.
    """
    seals = family.ledger.sealed
    own, others = seals.get(line.number), sorted({x.number for x in before.values() if x.number in seals})
    earlier = [{"line": number, "by": seals[number].number} for number in others]
    left = [] if own is None else [m for m in own.body["left"] if m in line.body["record"]["facts"]["plan"]["affected"]]
    return {"by": own, "left": left, "earlier": earlier, "open": own is None and bool(line.body["heads"])}
