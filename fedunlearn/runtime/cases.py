"""Requests as cases: what was asked, by when, and how far it is. All of it follows from the ledger."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from fedunlearn.lineage import Request
from fedunlearn.runtime.family import Family
from fedunlearn.store import Line

PLANNED, APPLIED, PENDING, SEALED, REFUSED, UNDONE = "planned", "applied", "pending", "sealed", "refused", "rolled back"
DONE = (APPLIED, SEALED)


@dataclass(frozen=True)
class Standing:
    """How far a request is.

    Args:
        request: the request.
        state: "planned": nobody has carried it out; "applied": every heir was committed; "pending": some heirs were held
            back or wait; "refused": the gate held back all; "sealed": it cannot be rolled back any more; "rolled back".
        left: models that still hold it.
        lines: numbers of its ledger lines.
        overdue: whether it is not done, and its date is past.
    """

    request: Request
    state: str
    left: tuple[str, ...] = ()
    lines: tuple[int, ...] = ()
    overdue: bool = False


def cases(family: Family, named: Iterable[Request] = (), today: date | None = None) -> tuple[Standing, ...]:
    """Every request, in order of the first time that it was carried out.

    Args:
        family: the family.
        named: requests that its scenario names.
        today: to tell what is overdue; by default, today.
    """
    by_what: dict[tuple[object, ...], list[Line]] = {}
    asked: dict[tuple[object, ...], Request] = {}
    for line in (x for x in family.ledger.lines if x.kind == "unlearned"):
        request = Request.from_json(line.body["record"]["facts"]["request"])
        by_what.setdefault(request.what, []).append(line)
        asked[request.what] = request
    for request in named:
        asked.setdefault(request.what, request)
    now = today or date.today()
    found = []
    for what, request in asked.items():
        state, left = _state(family, by_what.get(what, []))
        late = request.due is not None and date.fromisoformat(request.due) < now and (state not in DONE or bool(left))
        numbers = tuple(line.number for line in by_what.get(what, []))
        found.append(Standing(request, state, tuple(sorted(left)), numbers, late))
    return tuple(found)


def _state(family: Family, lines: list[Line]) -> tuple[str, set[str]]:
    undone, sealed = family.ledger.undone, family.ledger.sealed
    if not lines:
        return PLANNED, set()
    held = [line for line in lines if line.number not in undone]
    left: set[str] = set()
    for line in held:
        body = line.body
        before = left if "resumes" in body else set()
        left = (before - set(body["heads"])) | {*body["pending"], *body["untouched"], *body.get("waiting", ())}
    if not held:
        return UNDONE, set()
    if any(line.number in sealed for line in held):
        return SEALED, left
    if left:
        return (PENDING if any(line.body["heads"] or line.body.get("waiting") for line in held) else REFUSED), left
    return APPLIED, left
