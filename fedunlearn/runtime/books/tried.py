"""What earlier tries of a request have left to do, and on which versions its evidence is measured."""

from collections.abc import Collection, Iterator, Mapping
from itertools import product
from typing import NamedTuple

from fedunlearn.errors import InputError
from fedunlearn.lineage import Plan, Request, narrowed
from fedunlearn.runtime.books.cases import APPLIED, DONE, PLANNED, UNDONE, Standing, carried_out, cases, merges_of, names_of
from fedunlearn.runtime.books.family import Family
from fedunlearn.runtime.books.line_bodies import request_in
from fedunlearn.store import Line


def _check(family: Family, plan: Plan, standing: Mapping[tuple[object, ...], Standing]) -> None:
    """Refuse a name that was another request's, and what is done; of what is merged, also what touches nothing, or waits.

    Raises:
        InputError: says which, and what to do.
    """
    waits, named = waiting(family), {name: x for x in standing.values() for name in x.names}
    passes = [line for line in family.ledger.lines if line.kind == "unlearned" and merges_of(line)]
    for one, line in product((plan.request, *plan.request.merges), passes):
        if line.body["request"] == one.id and (passed := request_in(line)).what != one.what:
            raise InputError(
                f"request {one.id} ({one.words()}): ledger line {line.number} carried out several under that name "
                f"({passed.words()}); give this one a name of its own"
            )
    if plan.request.merges and (other := named.get(plan.request.id)):
        raise InputError(
            f"request {plan.request.id} ({plan.request.words()}): ledger line {other.names[plan.request.id]} is of one request "
            f"of that name ({other.request.words()}); give what is merged a name of its own"
        )
    for one in plan.request.merges or (plan.request,):
        if (other := named.get(one.id)) and other.request.what != one.what:
            raise InputError(
                f"request {one.id} ({one.words()}): ledger line {other.names[one.id]} is of another request of that name "
                f"({other.request.words()}); give this one a name of its own"
            )
    for one in plan.request.merges or (plan.request,):
        known, where = standing.get(one.what), f"request {one.id} ({one.words()})"
        reached = plan.of_case(one.id) if plan.request.merges else tuple(h.name for h in plan.heirs)
        if plan.request.merges and not reached:
            raise InputError(f"{where}: no kept model was trained on it; there is nothing to forget, leave it out")
        if (
            known and known.state in DONE and not known.left and reached
        ):  # one that only a wider one did has no line: it gets one
            again = "; to do it again, roll it back first (fedunlearn rollback)" if known.state == APPLIED else ""
            what = "leave it out" if plan.request.merges else f"no model that holds it has come since{again}"
            undone = family.ledger.undone
            number = (known.within or [n for n in known.lines if n not in undone] or known.lines)[-1]
            raise InputError(f"{where}: is {known.state} already (ledger line {number}); {what}")
        if not plan.request.merges:
            continue
        if known and any(model in known.left and line.number in known.lines for model, line in waits.items()):
            raise InputError(
                f"{where}: waits for a place to be online; resume it first (fedunlearn unlearn --resume), or leave it out"
            )


class Remaining(NamedTuple):
    """What is left to do of a request.

    Args:
        plan: for the heirs that are left.
        then: model -> the version to measure evidence on (see `as_tried`).
        within: ledger lines in force of wider requests that made heirs forget it, which are not edited for it once more.
        spent: models that evidence is measured on and that have forgotten it already: how they were before is sealed.
    """

    plan: Plan
    then: Mapping[str, str] | None
    within: tuple[int, ...]
    spent: tuple[str, ...]


def remaining(family: Family, plan: Plan) -> Remaining:
    """What earlier tries of a request, of those that it merges or of wider ones, have left to do.

    What a try in force has changed is not edited once more.

    Raises:
        InputError: a name was another request's, or it is done; of what is merged, also that it touches nothing, or waits.
    """
    standing = {x.request.what: x for x in cases(family)}
    _check(family, plan, standing)
    left, within = set[str](), set[int]()
    for one in plan.request.merges or (plan.request,):
        reached = plan.of_case(one.id) if plan.request.merges else [h.name for h in plan.heirs]
        known = standing.get(one.what) or cases(family, [one])[-1]  # as part of wider ones
        tried = known.state not in (PLANNED, UNDONE)
        left |= set(reached).intersection(known.left) if tried else set(reached)
        within.update(known.within)
    if len(left) < len(plan.heirs):
        plan = narrowed(family.lineage, plan, left)
    first = first_try(family, plan.request)
    before = (line for line in _tries(family, plan.request) if first is None or line.number < first)
    spent = {m for line in before for m in line.body["heads"]} & {p.model for p in plan.points}
    return Remaining(plan, _heads_at(family, first), tuple(sorted(within)), tuple(sorted(spent)))


def moves_due(family: Family, request: Request, reason: str | None, noted: Collection[Request] = ()) -> dict[str, str]:
    """Refuse that a request's date is moved to a later day without a word: under another name, the first still counts.

    Args:
        family: the family.
        request: as it is asked now.
        reason: why its date is moved.
        noted: requests as they were noted before.

    Returns:
        For each that no ledger line has yet, and that is asked with another date than was noted: its name, and what was noted.

    Raises:
        InputError: a ledger line, or whoever noted it, has an earlier date, and no reason is given.
    """
    if not any(one.due for one in request.merges or (request,)):
        return {}
    standing, was_due = {x.request.what: x for x in cases(family, noted)}, dict[str, str]()
    lines = {name: x.number for x in family.ledger.lines if x.kind == "unlearned" for name in names_of(x)}
    for one in request.merges or (request,):
        if (known := standing.get(one.what)) is None or not (one.due and known.request.due):
            continue
        line = lines.get(one.id)
        if one.id in {*known.names, known.request.id, *known.also} and one.due > known.request.due and reason is None:
            by = "as it was noted" if line is None else f"by ledger line {line}"
            raise InputError(
                f"request {one.id} ({one.words()}): due {one.due}, and {by} it is due {known.request.due}; to move the date "
                f"say why (--reason), or leave out --due"
            )
        if line is None and (before := next((x.due for x in noted if (x.id, x.what) == (one.id, one.what)), None)):
            was_due |= {one.id: before} if before != one.due else {}
    return was_due


def first_try(family: Family, request: Request) -> int | None:
    """The first ledger line in force that tried a request, one of those that it merges or a wider one; None where none did.

    None, too, of what was tried before the last unlearning that is sealed: the versions of then are erased.
    """
    sealed = max(family.ledger.sealed, default=-1)
    return next((x.number for x in _tries(family, request) if x.number > sealed), None)


def _tries(family: Family, request: Request) -> Iterator[Line]:
    """Ledger lines in force that tried a request, one of those that it merges or a wider one."""
    ledger, asked = family.ledger, request.merges or (request,)
    undone = ledger.undone
    lines = (x for x in ledger.lines if x.kind == "unlearned" and x.number not in undone)
    return (x for x in lines if any(each.covers(one) for each in carried_out(x) for one in asked))


def as_tried(family: Family, request: Request) -> dict[str, str] | None:
    """Models -> the versions that evidence for a request is measured on, where it was tried before; None where it was not.

    Those that were current when it was first tried: models that have forgotten since would not show it any more. What has
    been rolled back since was never there.
    """
    return _heads_at(family, first_try(family, request))


def _heads_at(family: Family, line: int | None) -> dict[str, str] | None:
    return None if line is None else family.ledger.heads_in_force(line)


def waiting(family: Family) -> dict[str, Line]:
    """Models that an unlearning in force has left waiting -> the oldest such line, in order of time."""
    found: dict[str, Line] = {}
    for line, models in outstanding(family):
        found = dict.fromkeys(models, line) | found
    return dict(sorted(found.items(), key=lambda one: one[1].number))


def outstanding(family: Family) -> list[tuple[Line, dict[str, set[Request]]]]:
    """Ledger lines in force that left models waiting, in order of time, each with those that wait for it yet, and for what.

    A model waits until later lines have done every request that the line carries out on it: together, or one by one.
    """
    undone, lost = family.ledger.undone, family.lost
    found: dict[int, tuple[Line, dict[str, set[Request]]]] = {}  # what is to be done yet, by line and model
    for line in (x for x in family.ledger.lines if x.kind == "unlearned" and x.number not in undone):
        done, request = carried_out(line), request_in(line)
        for since, rest in found.values():
            again = models_of(line) if request.what == request_in(since).what else set[str]()
            over = {asked: again | _over(asked, line, request, done) for asked in set().union(*rest.values())}
            for model, left in rest.items():
                left -= {asked for asked in left if model in over[asked]}
        waits = {m: {asked for asked, reached in done.items() if m in reached} for m in line.body.get("waiting", ())}
        found[line.number] = line, {model: left for model, left in waits.items() if model not in lost}
    still = [(line, {model: left for model, left in rest.items() if left}) for line, rest in found.values()]
    return [(line, rest) for line, rest in still if rest]


def _over(asked: Request, line: Line, request: Request, done: Mapping[Request, Collection[str]]) -> set[str]:
    """Models that wait for a request no more after a later line: it was tried again there, or they were made to forget more."""
    tried = {m for one, reached in done.items() if one.what == asked.what for m in reached} & models_of(line)
    heads: set[str] = {*line.body["heads"]}
    forgot = heads if request.covers(asked) else heads & {m for one, of in done.items() if one.covers(asked) for m in of}
    return tried | forgot


def models_of(line: Line) -> set[str]:
    """Heirs that an "unlearned" line is about."""
    return {one["name"] for one in line.body["record"]["facts"]["models"]}
