"""Which versions a family still needs: those in force, those that a rollback would bring back, those that wait."""

from collections.abc import Collection

from fedunlearn.lineage import Request
from fedunlearn.runtime.books.family import Family
from fedunlearn.runtime.books.line_bodies import request_in
from fedunlearn.runtime.books.tried import as_tried, outstanding
from fedunlearn.store import Line


def needed(family: Family, sealing: Collection[int] = ()) -> dict[str, dict[str, str]]:
    """Home -> versions that must be there, and why, in words.

    Of what the ledger names, other versions may be erased: those that were rolled back, candidates that were overtaken, and
    what was from before a sealed request.

    Args:
        family: the family.
        sealing: ledger lines that are about to be sealed.
    """
    lineage, ledger = family.lineage, family.ledger
    undone, sealed, lost = ledger.undone, {*ledger.sealed, *sealing}, family.lost
    found: dict[str, dict[str, str]] = {}

    def keep(model: str, version: str, why: str) -> None:
        if model not in lost:
            found.setdefault(lineage[model].home, {}).setdefault(version, why)

    for model, version in ledger.heads().items():
        keep(model, version, f"the current version of {model}")
    for line in (x for x in ledger.lines if x.kind == "unlearned" and x.number not in undone and x.number not in sealed):
        before = ledger.heads(line.number)
        for model in line.body["heads"]:
            keep(model, before[model], f"what a rollback of {line.body['request']} brings {model} back to")
    for model, version in pending(family).items():
        keep(model, version, f"the candidate of {model} that was held back")
    for line, rest in outstanding(family):
        left = sorted(set[Request]().union(*rest.values()), key=lambda one: one.id)
        for request in (request_in(line), *left):  # what is resumed: all of it, or what is left
            for model, version in (as_tried(family, request) or {}).items():
                keep(model, version, f"what {model} was when {request.id} was first tried, which waits for a place")
    return found


def pending(family: Family) -> dict[str, str]:
    """Candidates that the gate held back, until the model or the request moves on, or the line is rolled back."""
    found: dict[str, str] = {}
    undone, lost = family.ledger.undone, family.lost
    for line in family.ledger.lines:
        candidates = line.body.get("pending", {})
        for model in (*line.body.get("heads", {}), *candidates):
            found.pop(model, None)
        if line.number not in undone:
            found.update(candidates)
    return {model: version for model, version in found.items() if model not in lost}


def sealed_away(family: Family) -> dict[str, Line]:
    """Versions that a sealing had erased, and that no line has named since -> the "sealed" line."""
    found: dict[str, Line] = {}
    for line in family.ledger.lines:
        for what in ("heads", "pending"):
            for version in line.body.get(what, {}).values():
                found.pop(version, None)
        if line.kind == "sealed":
            found |= dict.fromkeys(line.body["erases"], line)
    return found
