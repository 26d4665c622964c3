"""Heirs that were left waiting because a place was offline, and how they are finished when it is back."""

import networkx as nx

from fedunlearn.errors import InputError
from fedunlearn.evaluation import Gate
from fedunlearn.lineage import Lineage, Plan, discover, narrowed
from fedunlearn.methods import make
from fedunlearn.runtime.backend import Backend
from fedunlearn.runtime.cases import models_of, waiting
from fedunlearn.runtime.coordinator import Doing, Progress, Retrained, carry_out
from fedunlearn.runtime.family import Family
from fedunlearn.runtime.record import Record
from fedunlearn.runtime.settle import alone
from fedunlearn.runtime.told import request_of
from fedunlearn.store import Line


def waiting_plan(family: Family) -> Plan | None:
    """The plan of what the oldest of these lines has left to do; None where no model waits.

    Models born meanwhile from one that waits are in it too.
    """
    found = waiting(family)
    if not found:
        return None
    line = min(found.values(), key=lambda x: x.number)
    request = request_of(line)
    plan = discover(family.lineage, request)
    left = {model for model, at in found.items() if at.number == line.number}
    seen = {m for x in _chain(family, line) for m in models_of(x)}
    born = _descendants(family.lineage, left) - seen
    return narrowed(family.lineage, plan, left | born)


def resume(
    family: Family,
    backend: Backend,
    *,
    retrained: Retrained = None,
    quorum: float = 1.0,
    progress: Progress = lambda _: None,
) -> Record:
    """Finish what a request left waiting, with its own method, settings and gate; the oldest first, one request a call.

    Evidence is measured on the versions that were current when the request began: those of models that have forgotten since
    would not show it any more. Rows that are excluded from training may still be read to be forgotten.

    Args:
        family: the family.
        backend: carries tasks to the places.
        retrained: as in `unlearn`; of the heirs of `waiting_plan`.
        quorum: as in `unlearn`; those that are still offline go on waiting.
        progress: told, in words, what is being done.

    Returns:
        The record of this part of the request, with a ledger line of its own.

    Raises:
        InputError: nothing waits.
        SiteError: a place failed; nothing was changed.
    """
    plan = waiting_plan(family)
    if plan is None:
        raise InputError(f"{family.folder}: no model waits for a place to come back; there is nothing to resume")
    line = min(waiting(family).values(), key=lambda x: x.number)
    facts = line.body["record"]["facts"]
    doing = Doing(
        make(line.body["method"], facts["settings"]),
        Gate(**facts["gate"]),
        quorum,
        accept_untested=facts["accepted_untested"],
        reason=line.body["reason"],
        precision=facts["precision"],
        then=family.ledger.heads(began(family, line).number),
        resumes=line.number,
    )
    with alone(family, backend):
        return carry_out(family, plan, doing, backend, retrained=retrained, progress=progress)


def began(family: Family, line: Line) -> Line:
    """The line that began the request which a line belongs to."""
    return _chain(family, line)[-1]


def _chain(family: Family, line: Line) -> list[Line]:
    """A line, the one that it resumed, and so on to the one that began the request."""
    found = [line]
    while (before := found[-1].body.get("resumes")) is not None:
        found.append(family.ledger.lines[before])
    return found


def _descendants(lineage: Lineage, models: set[str]) -> set[str]:
    return {d for m in models for d in nx.descendants(lineage.graph, m)}
