"""Requests as cases: what was asked, by when, and how far it is. All of it follows from the ledger."""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import product
from typing import Any

from fedunlearn.errors import InputError
from fedunlearn.lineage import Plan, Request, discover, narrowed
from fedunlearn.runtime.family import Family
from fedunlearn.runtime.told import request_of
from fedunlearn.store import Line

PLANNED, APPLIED, PENDING, SEALED, REFUSED, UNDONE = "planned", "applied", "pending", "sealed", "refused", "rolled back"
NOTHING, LOST = "held by no model", "lost"
DONE = (APPLIED, SEALED, NOTHING, LOST)

Held = tuple[Line, Collection[str]]  # a ledger line, and those of its heirs that a case reaches


@dataclass(frozen=True)
class Standing:
    """How far a request is.

    Args:
        request: the request.
        state: "planned": nobody has carried it out; "applied": every heir was committed; "pending": some heirs were held
            back or wait; "refused": the gate held back all; "sealed": it cannot be rolled back any more; "rolled back";
            "held by no model": none had been trained on it; "lost": what held it is lost, and none of it was changed.
        left: models that still hold it; none of what nobody has carried out yet, a plan tells them.
        lost: models that hold it and are lost with their homes (see `depart`): nobody can say what becomes of them.
        lines: numbers of its ledger lines.
        overdue: whether it is not done, and its date is past.
        names: every name that it has had -> the last of its ledger lines under that name.
        also: further names under which the topology asks for it, while nobody has carried it out.
    """

    request: Request
    state: str
    left: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    lines: tuple[int, ...] = ()
    overdue: bool = False
    names: Mapping[str, int] = field(default_factory=dict)
    also: tuple[str, ...] = ()


def cases(family: Family, named: Iterable[Request] = (), today: date | None = None) -> tuple[Standing, ...]:
    """Every request, in order of the first time that it was carried out.

    One that was asked for several times is one case: under its first name, received when it first was. Due is what was last
    said under a name, and of several names the earliest.

    Args:
        family: the family.
        named: requests that its scenario names.
        today: to tell what is overdue; by default, today.
    """
    by_what: dict[tuple[object, ...], list[Held]] = {}
    asked: dict[tuple[object, ...], dict[str, Request]] = {}  # by name
    names: dict[tuple[object, ...], dict[str, int]] = {}
    for line in (x for x in family.ledger.lines if x.kind == "unlearned"):
        for request, reached in carried_out(line).items():
            by_what.setdefault(request.what, []).append((line, reached))
            said = asked.setdefault(request.what, {})
            said[request.id] = _filed(said.get(request.id, request), request)
            names.setdefault(request.what, {})[request.id] = line.number
    for request in named:
        asked.setdefault(request.what, {}).setdefault(request.id, request)
        if request.what in by_what:  # asked for by what it says: the scenario's name counts all the same
            names[request.what].setdefault(request.id, by_what[request.what][-1][0].number)
    now, undone, sealed = today or date.today(), family.ledger.undone, family.ledger.sealed.keys()
    others = [line for line in family.ledger.lines if line.kind == "rolled back" or "models" in line.body]
    found = []
    for what, said in asked.items():
        request = _together(list(said.values()))
        held = by_what.get(what, [])
        in_force = [(line, set(models)) for line, models in held if line.number not in undone]
        if in_force:
            state, left, gone = _standing(family, request, in_force, _holding(family, request, held, others), sealed)
        elif held:
            holding = _holding(family, request, held, others)
            state, left, gone = UNDONE, holding - family.lost, holding & family.lost
        else:
            state, left, gone = PLANNED, set(), set()
        late = request.due is not None and date.fromisoformat(request.due) < now and (state not in DONE or bool(left))
        lines = tuple(line.number for line, _ in held)
        parts = tuple(sorted(left)), tuple(sorted(gone))
        also = () if held else tuple(name for name in said if name != request.id)
        found.append(Standing(request, state, *parts, lines, late, names.get(what, {}), also))
    return tuple(found)


def _filed(first: Request, again: Request) -> Request:
    """One case, asked for again under the same name."""
    return replace(first, received=first.received or again.received, due=again.due or first.due)


def _together(asked: Sequence[Request]) -> Request:
    """One case, asked for under several names."""
    received, due = ([d for d in dates if d] for dates in ((x.received for x in asked), (x.due for x in asked)))
    return replace(asked[0], received=min(received, default=None), due=min(due, default=None))


def carried_out(line: Line) -> dict[Request, Collection[str]]:
    """The requests that an "unlearned" line carries out, those that one merges each by itself -> its heirs that they reach."""
    facts = line.body["record"]["facts"]
    request, every = request_of(line), [one["name"] for one in facts["models"]]
    return {one: facts["plan"]["cases"][one.id]["heirs"] for one in request.merges} or {request: every}


def names_of(line: Line) -> tuple[str, ...]:
    """Names of the cases that an "unlearned" line carries out."""
    return tuple(one["id"] for one in _merges(line)) or (line.body["request"],)


def _merges(line: Line) -> Sequence[Mapping[str, Any]]:
    """The requests that an "unlearned" line carries out together; none where it carries out one."""
    return line.body["record"]["facts"]["request"].get("merges") or ()


def changed_by(*lines: Line) -> tuple[str, ...]:
    """Names of those cases for which "unlearned" lines changed a model, each once: what can be rolled back or sealed."""
    every = ((line.body["heads"].keys(), *one) for line in lines for one in carried_out(line).items())
    return tuple(dict.fromkeys(request.id for heads, request, reached in every if not heads.isdisjoint(reached)))


def _check(family: Family, plan: Plan, standing: Mapping[tuple[object, ...], Standing]) -> None:
    """Refuse a name that was another request's, and what is done; of what is merged, also what touches nothing, or waits.

    Raises:
        InputError: says which, and what to do.
    """
    waits, named = waiting(family), {name: x for x in standing.values() for name in x.names}
    passes = [line for line in family.ledger.lines if line.kind == "unlearned" and _merges(line)]
    for one, line in product((plan.request, *plan.request.merges), passes):
        if line.body["request"] == one.id and (passed := request_of(line)).what != one.what:
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
        if known and known.state in DONE and not known.left and reached:
            again = "; to do it again, roll it back first (fedunlearn rollback)" if known.state == APPLIED else ""
            what = "leave it out" if plan.request.merges else f"no model that holds it has come since{again}"
            raise InputError(f"{where}: is {known.state} already (ledger line {known.lines[-1]}); {what}")
        if not plan.request.merges:
            continue
        if known and any(model in known.left and line.number in known.lines for model, line in waits.items()):
            raise InputError(
                f"{where}: waits for a place to be online; resume it first (fedunlearn unlearn --resume), or leave it out"
            )


def remaining(family: Family, plan: Plan) -> tuple[Plan, Mapping[str, str] | None]:
    """What earlier tries of a request, or of those that it merges, have left to do; and the versions to measure evidence on.

    What a try in force has changed is not edited once more.

    Returns:
        The plan for the heirs that are left, and model -> version (see `as_tried`).

    Raises:
        InputError: a name was another request's, or it is done; of what is merged, also that it touches nothing, or waits.
    """
    standing, undone = {x.request.what: x for x in cases(family)}, family.ledger.undone
    _check(family, plan, standing)
    left = set[str]()
    for one in plan.request.merges or (plan.request,):
        reached = plan.of_case(one.id) if plan.request.merges else [h.name for h in plan.heirs]
        known = standing.get(one.what)
        tried = known is not None and not undone.issuperset(known.lines)
        left |= set(reached).intersection(known.left) if known and tried else set(reached)
    if len(left) < len(plan.heirs):
        plan = narrowed(family.lineage, plan, left)
    return plan, as_tried(family, plan.request)


def first_try(family: Family, request: Request) -> int | None:
    """The first ledger line in force that tried a request, or one of those that it merges; None where none did.

    None, too, of what was tried before the last unlearning that is sealed: the versions of then are erased.
    """
    ledger, asked = family.ledger, {one.what for one in request.merges or (request,)}
    undone, sealed = ledger.undone, max(ledger.sealed, default=-1)
    tries = (x for x in ledger.lines[sealed + 1 :] if x.kind == "unlearned" and x.number not in undone)
    return next((x.number for x in tries if not asked.isdisjoint(one.what for one in carried_out(x))), None)


def as_tried(family: Family, request: Request) -> dict[str, str] | None:
    """Models -> the versions that evidence for a request is measured on, where it was tried before; None where it was not.

    Those that were current when it was first tried: models that have forgotten since would not show it any more. What has
    been rolled back since was never there.
    """
    first = first_try(family, request)
    return None if first is None else family.ledger.heads_in_force(first)


def waiting(family: Family) -> dict[str, Line]:
    """Models that an unlearning in force has left waiting -> the ledger line that did, in order of time."""
    undone, lost = family.ledger.undone, family.lost
    found: dict[str, Line] = {}
    for line in (x for x in family.ledger.lines if x.kind == "unlearned" and x.number not in undone):
        what, models = request_of(line).what, models_of(line)  # tried again: whatever became of them, they wait no more
        found = {m: x for m, x in found.items() if m not in models or request_of(x).what != what}
        found |= dict.fromkeys(line.body.get("waiting", ()), line)
    return {model: line for model, line in found.items() if model not in lost}


def models_of(line: Line) -> set[str]:
    """Heirs that an "unlearned" line is about."""
    return {one["name"] for one in line.body["record"]["facts"]["models"]}


def _standing(
    family: Family, request: Request, held: Sequence[tuple[Line, set[str]]], holding: Set[str], sealed: Set[int]
) -> tuple[str, set[str], set[str]]:
    """How far a case is, who is there and holds it, and who holds it and is lost."""
    state, left = _state(held, holding, sealed)
    new, lost = holding - left, family.lost
    gone, done = (left | new) & lost, {m for line, reached in held for m in reached & set(line.body["heads"])}
    if lost:  # those too that no line names, as they were lost before it
        first = {m.name for m in family.whole_lineage.models[: family.models_before(held[0][0].number)]}
        gone |= {h.name for h in discover(family.whole_lineage, request).heirs} & lost & first - done
    new, left = new - lost, (left | new) - lost
    if new:
        state = state if state in (SEALED, REFUSED) else PENDING
    elif gone and not left and state not in (SEALED, APPLIED):  # nobody is left to wait for, or to try again
        state = APPLIED if done else LOST
    return state, left, gone


def _holding(family: Family, request: Request, held: Sequence[Held], others: Sequence[Line]) -> set[str]:
    """Models that hold a case, by all of its ledger lines and by what came between them.

    A model that a try in force has changed holds it no more, whatever a later try with another method could not do to it;
    one that is rolled back to what it was does again. What has come since holds it if it was trained on it, or comes from a
    model that held it then: what descends from an edited model holds nothing that this had not. Of a checkpoint that came
    with its weights nobody knows from which version of its parent, so that it holds what any of them has held.

    Args:
        family: the family.
        request: of the case.
        held: its lines, those included that were rolled back, in order of time.
        others: lines by which something was rolled back, or models came.
    """
    reached, first = {line.number: set(models) for line, models in held}, held[0][0].number
    lineage, known, plan = family.whole_lineage, family.models_before(first), None  # what is lost may hold it, too
    holding, changed = set[str](), dict[int, set[str]]()  # by each line that was in force by then
    for line in sorted([*(x for x, _ in held), *(x for x in others if x.number > first)], key=lambda x: x.number):
        if (about := reached.get(line.number)) is not None:
            changed[line.number] = about & line.body["heads"].keys()
            holding = (holding | about).difference(*changed.values())
        elif line.body.get("undoes") in changed:
            holding |= changed.pop(line.body["undoes"]).difference(*changed.values())
        elif (count := line.body.get("models")) is not None and known is not None:
            plan = plan or discover(lineage, request)
            before = {m.name for m in lineage.models[:known] if m.kept}
            for model in lineage.models[known:count]:  # parents first
                came = not before.isdisjoint({*model.parents} - model.started.keys())  # with its weights
                inherits = came or not holding.isdisjoint(model.parents)
                if model.name in plan.roots or (model.name in plan.sources and inherits):
                    holding.add(model.name)
            known = count
    return {name for name in holding if lineage[name].kept}


def _state(held: Sequence[tuple[Line, set[str]]], holding: Set[str], sealed: Set[int]) -> tuple[str, set[str]]:
    """How far a case is whose ledger lines in force are these, each with the models that the case reaches; and who holds it.

    What is sealed cannot be rolled back, by none of its lines.
    """
    left = {m for _, reached in held for m in reached} & holding
    if not any(reached for _, reached in held):
        return NOTHING, set()
    changed = [line.number for line, reached in held if reached & set(line.body["heads"])]
    if changed and sealed >= set(changed):
        return SEALED, left
    if left:
        moved = any(reached & {*line.body["heads"], *line.body.get("waiting", ())} for line, reached in held)
        return (PENDING if moved else REFUSED), left
    return APPLIED, left
