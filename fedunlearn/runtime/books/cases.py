"""Requests as cases: what was asked, by when, and how far it is. All of it follows from the ledger."""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, NamedTuple

from fedunlearn.lineage import ABSENT, Request, discover, utc_today
from fedunlearn.runtime.books.family import Family
from fedunlearn.runtime.books.line_bodies import request_in
from fedunlearn.store import Line

PLANNED, APPLIED, PENDING, SEALED, REFUSED, UNDONE = "planned", "applied", "pending", "sealed", "refused", "rolled back"
NOTHING, LOST = "held by no model", "lost"
DONE = (APPLIED, SEALED, NOTHING, LOST)


class Held(NamedTuple):
    """A ledger line that is about a case: of its own, or of a wider one.

    Args:
        line: the line.
        reached: those of its heirs that the case reaches.
        changed: those of them that it made forget the case.
    """

    line: Line
    reached: frozenset[str]
    changed: frozenset[str]


@dataclass(frozen=True)
class Standing:
    """How far a request is.

    Args:
        request: the request.
        state: "planned": nobody has carried it out, nor a wider one; "applied": every heir was committed; "pending": some
            heirs were held back or wait; "refused": the gate held back all; "sealed": it cannot be rolled back any more;
            "rolled back"; "held by no model": none had been trained on it; "lost": what held it is lost, and none of it was
            changed.
        left: models that still hold it; none of what nobody has carried out yet, a plan tells them.
        lost: models that hold it and are lost with their homes (see `depart`): nobody can say what becomes of them.
        lines: numbers of its ledger lines.
        within: numbers of ledger lines in force of requests that ask for all that it asks, and more, which made models forget
            it: what these did is not done again.
        overdue: whether it is not done, and its date is past.
        names: every name that it has had -> the last of its ledger lines under that name.
        also: further names under which the topology asks for it, while nobody has carried it out.
        first_due: the date by which it had to be done at first, where a later one took its place.
        done: the day on which the last model was made to forget it; None while something is left to do.
    """

    request: Request
    state: str
    left: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    lines: tuple[int, ...] = ()
    overdue: bool = False
    names: Mapping[str, int] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    within: tuple[int, ...] = ()
    first_due: str | None = None
    done: str | None = None

    @property
    def late(self) -> bool:
        """Whether it was done, after the day by which it had to be."""
        return bool(self.done and self.request.due and self.done > self.request.due)


def cases(family: Family, named: Iterable[Request] = (), today: date | None = None) -> tuple[Standing, ...]:
    """Every request, in order of the first time that it was carried out.

    One that was asked for several times is one case: under its first name, received when it first was. Due is what was last
    said under a name, and of several names the earliest.

    Args:
        family: the family.
        named: requests that its scenario names.
        today: to tell what is overdue; by default, today by UTC, as the ledger counts days.
    """
    by_what: dict[tuple[object, ...], list[Held]] = {}
    asked: dict[tuple[object, ...], dict[str, Request]] = {}  # by name
    names: dict[tuple[object, ...], dict[str, int]] = {}
    firsts: dict[tuple[object, ...], str] = {}
    for line in (x for x in family.ledger.lines if x.kind == "unlearned"):
        for request, reached in carried_out(line).items():
            all_of_it = frozenset(reached)
            by_what.setdefault(request.what, []).append(Held(line, all_of_it, all_of_it & line.body["heads"].keys()))
            said = asked.setdefault(request.what, {})
            names.setdefault(request.what, {})[request.id] = line.number
            for each in said_in(line, request):
                said[request.id] = filed(said.get(request.id, each), each)
                if each.due:
                    firsts.setdefault(request.what, each.due)
    for request in named:
        asked.setdefault(request.what, {}).setdefault(request.id, request)
        if request.what in by_what:  # asked for by what it says: the scenario's name counts all the same
            names[request.what].setdefault(request.id, by_what[request.what][-1].line.number)
    now, undone, sealed = today or utc_today(), family.ledger.undone, family.ledger.sealed.keys()
    others = [line for line in family.ledger.lines if line.kind == "rolled back" or "models" in line.body]
    edits = [(x, request_in(x)) for x in family.ledger.lines if x.kind == "unlearned" and x.body["heads"]]
    found = []
    for what, said in asked.items():
        request = together(list(said.values()))
        own = by_what.get(what, [])
        mine = {x.line.number for x in own}
        wider = _within(family, request, [x for x, of in edits if x.number not in mine and of.covers(request)])
        held = sorted([*own, *wider], key=lambda x: x.line.number)
        in_force = [x for x in held if x.line.number not in undone]
        if in_force:
            state, left, gone = _standing(family, request, in_force, _holding(family, request, held, others), sealed)
        elif own:
            holding = _holding(family, request, held, others)
            state, left, gone = UNDONE, holding - family.lost, holding & family.lost
        else:
            state, left, gone = PLANNED, set(), set()
        late = request.due is not None and date.fromisoformat(request.due) < now and (state not in DONE or bool(left))
        lines, within = (tuple(x.line.number for x in of) for of in (own, (x for x in in_force if x in wider)))
        also = () if own else tuple(name for name in said if name != request.id)
        parts = tuple(sorted(left)), tuple(sorted(gone))
        first = firsts.get(what)
        moved = first if first and request.due and first < request.due else None
        days = [x.line.time[:10] for x in in_force if x.changed or state == NOTHING]
        done = max(days, default=None) if state in DONE and not left else None
        found.append(Standing(request, state, *parts, lines, late, names.get(what, {}), also, within, moved, done))
    return tuple(found)


def _within(family: Family, request: Request, lines: Sequence[Line]) -> list[Held]:
    """What lines of wider requests did for a case: where they were judged by no less than the case asks.

    Where a model has no other source of a class, nothing of the class may be left; that a wider request left as much as a
    retrained model has says nothing about one class by itself.

    Args:
        family: the family.
        request: of the case.
        lines: of wider requests, that changed a model.
    """
    if not lines:
        return []
    found, heirs = list[Held](), discover(family.whole_lineage, request).heirs  # what is lost may have been changed, too
    due = {h.name: h.classes if h.target == ABSENT else h.absent for h in heirs}
    for line in lines:
        told = {one["name"]: one for one in line.body["record"]["facts"]["plan"]["heirs"]}
        enough = {n for n, one in told.items() if one["target"] == ABSENT or {*due.get(n, ())} <= {*one.get("absent", ())}}
        reached = frozenset(due.keys() & told.keys())
        if changed := reached & enough & line.body["heads"].keys():
            found.append(Held(line, reached, changed))
    return found


def filed(first: Request, again: Request) -> Request:
    """One case, asked for again under the same name."""
    return replace(first, received=first.received or again.received, due=again.due or first.due)


def together(asked: Sequence[Request]) -> Request:
    """One case, asked for under several names."""
    received, due = ([d for d in dates if d] for dates in ((x.received for x in asked), (x.due for x in asked)))
    return replace(asked[0], received=min(received, default=None), due=min(due, default=None))


def carried_out(line: Line) -> dict[Request, Collection[str]]:
    """The requests that an "unlearned" line carries out, those that one merges each by itself -> its heirs that they reach."""
    facts = line.body["record"]["facts"]
    request, every = request_in(line), [one["name"] for one in facts["models"]]
    return {one: facts["plan"]["cases"][one.id]["heirs"] for one in request.merges} or {request: every}


def said_in(line: Line, request: Request) -> tuple[Request, ...]:
    """One of the requests that a line carries out, as it was asked; before that as it was noted, where another date was."""
    noted = line.body["record"]["facts"].get("noted", {}).get(request.id)
    return (replace(request, due=noted), request) if noted else (request,)


def names_like(family: Family, name: str, named: Sequence[Request] = ()) -> frozenset[str]:
    """Every name of the case that has this one, and the name itself; what the ledger says comes before what `named` does."""
    known = [case.names for case in cases(family) if name in case.names]
    return frozenset({name}.union(*(known or (case.names for case in cases(family, named) if name in case.names))))


def names_of(line: Line) -> tuple[str, ...]:
    """Names of the cases that an "unlearned" line carries out."""
    return tuple(one["id"] for one in merges_of(line)) or (line.body["request"],)


def merges_of(line: Line) -> Sequence[Mapping[str, Any]]:
    """The requests that an "unlearned" line carries out together; none where it carries out one."""
    return line.body["record"]["facts"]["request"].get("merges") or ()


def changed_by(*lines: Line) -> tuple[str, ...]:
    """Names of those cases for which "unlearned" lines changed a model, each once: what can be rolled back or sealed."""
    every = ((line.body["heads"].keys(), *one) for line in lines for one in carried_out(line).items())
    return tuple(dict.fromkeys(request.id for heads, request, reached in every if not heads.isdisjoint(reached)))


def _standing(
    family: Family, request: Request, held: Sequence[Held], holding: Set[str], sealed: Set[int]
) -> tuple[str, set[str], set[str]]:
    """How far a case is, who is there and holds it, and who holds it and is lost."""
    state, left = _state(held, holding, sealed)
    new, lost = holding - left, family.lost
    gone, done = (left | new) & lost, {m for x in held for m in x.changed}
    if lost:  # those too that no line names, as they were lost before it
        first = {m.name for m in family.whole_lineage.models[: family.models_before(held[0].line.number)]}
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
        held: its lines and those of wider ones, those included that were rolled back, in order of time.
        others: lines by which something was rolled back, or models came.
    """
    about, first = {x.line.number: x for x in held}, held[0].line.number
    lineage, known, plan = family.whole_lineage, family.models_before(first), None  # what is lost may hold it, too
    holding, changed = set[str](), dict[int, frozenset[str]]()  # by each line that was in force by then
    for line in sorted([*(x.line for x in held), *(x for x in others if x.number > first)], key=lambda x: x.number):
        if (one := about.get(line.number)) is not None:
            changed[line.number] = one.changed
            holding = (holding | one.reached).difference(*changed.values())
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


def _state(held: Sequence[Held], holding: Set[str], sealed: Set[int]) -> tuple[str, set[str]]:
    """How far a case is whose ledger lines in force are these; and who holds it.

    What is sealed cannot be rolled back: of no model that it changed is there a version from before. The first line that made a
    model forget it decides; what later ones began with had forgotten it already.
    """
    left = {m for x in held for m in x.reached} & holding
    if not any(x.reached for x in held):
        return NOTHING, set()
    changed = dict[str, int]()
    for x in held:
        changed = dict.fromkeys(x.changed, x.line.number) | changed
    if changed and sealed >= {*changed.values()}:
        return SEALED, left
    if left:
        moved = bool(changed) or any(x.reached.intersection(x.line.body.get("waiting", ())) for x in held)
        return (PENDING if moved else REFUSED), left
    return APPLIED, left
