"""The ledger decides; places follow. Settling makes every place hold what the ledger says, and may be repeated."""

from collections.abc import Mapping

from fedunlearn.data import Selection
from fedunlearn.lineage import Request
from fedunlearn.runtime.backend import Backend, ask
from fedunlearn.runtime.family import Family
from fedunlearn.runtime.tasks import Commit, Committed, Question, Score, Scored
from fedunlearn.store import Line


def settle(family: Family, backend: Backend) -> None:
    """Send every place its current heads and exclusions.

    Raises:
        SiteError: a place failed; the ledger holds all the same, and settling again finishes.
    """
    heads, excluded = family.heads, exclusions(family)
    line = family.ledger.lines[-1].hash
    tasks = []
    for place in family.places:
        mine = {m: v for m, v in heads.items() if family.lineage[m].home == place}
        tasks.append(Commit(place, mine, excluded.get(place, {}), line))
    otherwise = f"committed (ledger line {family.ledger.lines[-1].number}), but not yet everywhere; run `fedunlearn settle`"
    ask(backend, tasks, Committed, otherwise=otherwise)


def exclusions(family: Family) -> dict[str, dict[str, Selection]]:
    """Per site and request, what is excluded from training: by every unlearning whose exclusion no rollback has lifted."""
    lifted = {line.body["undoes"] for line in family.ledger.lines if line.kind == "rolled back" and line.body["lifted"]}
    found: dict[str, dict[str, Selection]] = {}
    for line in (x for x in family.ledger.lines if x.kind == "unlearned" and x.number not in lifted):
        for site, selection in line.body["exclusions"].items():
            chosen = Selection(tuple(selection["classes"]), tuple(selection["samples"]))
            found.setdefault(site, {})[line.body["request"]] = chosen
    return found


def in_force(family: Family) -> tuple[Request, ...]:
    """Requests that changed a model and have not been rolled back, in order of time."""
    undone = {line.body["undoes"] for line in family.ledger.lines if line.kind == "rolled back"}
    lines = [x for x in family.ledger.lines if x.kind == "unlearned" and x.body["heads"] and x.number not in undone]
    return tuple(dict.fromkeys(Request.from_json(x.body["record"]["facts"]["request"]) for x in lines))


def rollback(family: Family, backend: Backend, *, lift_exclusion: bool) -> Line:
    """Back to the versions before the newest unlearning in force, by one more ledger line.

    Args:
        family: the family.
        backend: carries the commit to the homes.
        lift_exclusion: whether the forgotten data may be trained on again.

    Returns:
        The ledger line.

    Raises:
        InputError: there is nothing to roll back, or a version that would become current again is missing or damaged;
            nothing is changed.
        SiteError: a place failed.
    """
    undone = family.ledger.last_undoable()
    before: Mapping[str, str] = family.ledger.heads(undone.number)
    heads = {model: before[model] for model in undone.body["heads"]}
    checks = [Score(family.lineage[model].home, version, Question()) for model, version in heads.items()]
    ask(backend, checks, Scored)  # reading a version checks every hash of it
    request = undone.body["request"]
    body = {"undoes": undone.number, "heads": heads, "request": request, "lifted": lift_exclusion}
    line = family.ledger.append("rolled back", body)
    settle(family, backend)
    return line
