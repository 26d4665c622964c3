"""Heirs that were left waiting because a place was offline, and how they are finished when it is back."""

from collections.abc import Mapping, Set

import networkx as nx

from fedunlearn.errors import InputError
from fedunlearn.evaluation import Gate
from fedunlearn.lineage import Lineage, Plan, Request, discover, narrowed
from fedunlearn.methods import make
from fedunlearn.runtime.backend import Backend, Progress
from fedunlearn.runtime.books.cases import carried_out, cases
from fedunlearn.runtime.books.family import Family
from fedunlearn.runtime.books.line_bodies import request_in
from fedunlearn.runtime.books.record import Record
from fedunlearn.runtime.books.tried import as_tried, outstanding
from fedunlearn.runtime.coordinator import Doing, Retrained, carry_out
from fedunlearn.runtime.settle import alone
from fedunlearn.store import Line


def waiting_plan(family: Family) -> Plan | None:
    """The plan of what the oldest line that has left models waiting has to do yet; None where no model waits.

    Of several requests in one, models that were made to forget some of them meanwhile are planned for the rest, and those of
    another rest later. Models that were born meanwhile from one that waits, and hold it, are in it too.
    """
    waits = outstanding(family)
    if not waits:
        return None
    request, models = _first(*waits[0])
    asked = {one.what for one in request.merges or (request,)}
    lines = (x for x in family.ledger.lines if x.kind == "unlearned")
    tried = {(one.what, m) for line in lines for one, reached in carried_out(line).items() for m in reached}
    holding = {(case.request.what, m) for case in cases(family) if case.request.what in asked for m in case.left}
    born = _descendants(family.lineage, models) & {m for _, m in holding - tried}
    return narrowed(family.lineage, discover(family.lineage, request), models | born)


def resume(
    family: Family,
    backend: Backend,
    *,
    retrained: Retrained = None,
    quorum: float = 1.0,
    progress: Progress = lambda _: None,
) -> Record:
    """Finish what a request left waiting, with its own method, settings and gate; the oldest first, one request a call.

    Evidence is measured on the versions that were current when the request was first tried (see `as_tried`). Rows that are
    excluded from training may still be read to be forgotten.

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
    line, _ = outstanding(family)[0]
    facts = line.body["record"]["facts"]
    doing = Doing(
        make(line.body["method"], facts["settings"]),
        Gate(**facts["gate"]),
        quorum,
        accept_untested=facts["accepted_untested"],
        reason=line.body["reason"],
        precision=facts["precision"],
        then=as_tried(family, plan.request),
        resumes=line.number,
    )
    with alone(family, backend), backend.telling(progress):
        return carry_out(family, plan, doing, backend, retrained=retrained, progress=progress)


def _first(line: Line, rest: Mapping[str, Set[Request]]) -> tuple[Request, set[str]]:
    """Of what a line left waiting, the models that what the first of them waits for can be done at together, and what it is."""
    done = {m: frozenset(one for one, reached in carried_out(line).items() if m in reached) - left for m, left in rest.items()}
    meanwhile = done[next(iter(rest))]
    models = {m for m in rest if done[m] == meanwhile}
    if not meanwhile:
        return request_in(line), models
    left = [one for one in request_in(line).merges if any(one in rest[m] for m in models)]
    return left[0] if len(left) == 1 else Request(merges=tuple(left)), models


def _descendants(lineage: Lineage, models: set[str]) -> set[str]:
    return {d for m in models for d in nx.descendants(lineage.graph, m)}
