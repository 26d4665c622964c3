"""Carries out one order where the family lives. Knows nothing of Flower but a backend that waits for sites."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedunlearn.deployed.homecoming import plain_files
from fedunlearn.deployed.order import Order
from fedunlearn.dotted import importable
from fedunlearn.errors import InputError
from fedunlearn.methods import make
from fedunlearn.plain import loads
from fedunlearn.runtime import (
    Backend,
    Family,
    Record,
    Split,
    bank,
    catch_up,
    depart,
    rollback,
    seal,
)
from fedunlearn.runtime.backend import Progress
from fedunlearn.scenario import (
    Scenario,
    assess,
    extend_afar,
    forget,
    go_on,
    line_of,
    of_family,
    request_of,
    train_afar,
    workers_here,
)
from fedunlearn.scenario.files import parse
from fedunlearn.scenario.requests import named_in
from fedunlearn.scenario.train import grown

FAMILIES = "FEDUNLEARN_FAMILIES"
WHERE = "run-config: topology"
NEED_EVERYBODY = ("unlearn", "rollback", "assess", "bank")  # for others, whoever is not there follows later

Answer = dict[str, Any]


def families_here() -> Path:
    """The folder of families on the coordinator's machine.

    Raises:
        InputError: the environment does not name it, or it is not there.
    """
    named = os.environ.get(FAMILIES)
    if not named:
        raise InputError(
            f"{FAMILIES} is not set where the ServerApp runs; its machine's owner sets it to the folder of families"
        )
    if not Path(named).is_dir():
        raise InputError(f"{FAMILIES}={named}: no such folder where the ServerApp runs")
    return Path(named)


def carry_out(order: Order, families: Path, away: Backend, wait: Callable[[Sequence[str]], None], say: Progress) -> Answer:
    """Do what an order says.

    Args:
        order: the order.
        families: the folder of families.
        away: carries tasks to the sites.
        wait: waits until sites are there, or raises.
        say: told, in words, what is being done.

    Returns:
        The answer as plain data; under "family", the family's plain files as they are then.

    Raises:
        FedUnlearnError: it cannot be done; says why.
    """
    folder = families / order.family
    if order.action == "train":
        scenario = _scenario(order, families)
        wait(scenario.sites)
        family = train_afar(scenario, folder, away, workers_here(scenario, Family(folder)), by=order.by, progress=say)
        return _answer(order, family, {})
    family = Family.open(folder)
    family.ledger.by = order.by
    if order.action == "show":
        return _answer(order, family, {})
    _unchanged(order, family)
    scenario = of_family(family)
    if order.action == "extend":
        more = _topology(order)
        whole, new = grown(scenario, more, WHERE)
        if new:
            wait(_staying(family, whole))
        return _answer(order, extend_afar(family, more, WHERE, away, progress=say), {})
    if order.action in NEED_EVERYBODY:
        sites = _staying(family, scenario)
        if order.quorum == 1:
            wait(sites)
        else:  # whoever is missing is for the quorum to judge
            say(f"asking {', '.join(sites)}; one that is not connected is waited for, {order.join:g} s")
    both = Split(workers_here(scenario, family), away, family.id)
    if order.action == "unlearn":
        return _answer(order, family, _unlearn(order, family, scenario, both, say))
    if order.action == "rollback":
        undone = family.ledger.last_undoable()
        line = rollback(family, both, lift_exclusion=order.lift_exclusion, reason=order.reason or None)
        told = {"line": line.number, "undoes": undone.number, "request": undone.body["request"]}
        return _answer(order, family, {**told, "heads": dict(line.body["heads"]), "lifted": order.lift_exclusion})
    if order.action == "assess":
        line = line_of(family, order.request or None, None if order.line < 0 else order.line)
        found = assess(family, line, order.tier, both, retrained=order.reference, seeds=order.seeds, progress=say)
        return _answer(order, family, {"line": line.hash, "found": found})
    if order.action == "bank":
        return _answer(order, family, {"rows_read": bank(family, both, progress=say)})
    if order.action == "seal":
        line = seal(family, both, order.request or None, reason=order.reason or None, named=named_in(scenario))
        return _answer(order, family, {"line": line.number, "requests": line.body["requests"]})
    if order.action == "depart":
        return _answer(order, depart(family, both, order.place, reason=order.reason or None), {})
    catch_up(family, both)
    return _answer(order, family, {"line": family.ledger.lines[-1].number, "places": list(family.places)})


def _unchanged(order: Order, family: Family) -> None:
    """Refuse an order that was given in view of an older ledger: it would be about something else than was meant.

    Raises:
        InputError: it was; says what has been done since, and by whom.
    """
    last = family.ledger.lines[-1]
    if order.after in ("", last.hash):
        return
    since = f"line {last.number} ({last.kind}{f', by {last.by}' if last.by else ''}, {last.time})"
    raise InputError(
        f"{order.action}: the family has moved on since the copy here was brought home, up to ledger {since}; nothing was "
        f"done. The copy is brought up to date now: look at it (fedunlearn show), then say again what is to be done"
    )


def _staying(family: Family, scenario: Scenario) -> list[str]:
    """Sites that have not departed."""
    return [site for site in scenario.sites if site not in family.departed]


def _scenario(order: Order, families: Path) -> Scenario:
    """Paths of test sets are looked up on this machine: beside the families, then in the data folder."""
    plain, folder = _topology(order), str(families.resolve())
    if isinstance(plain, dict):
        plain["folder"] = folder
    importable(folder)  # factories beside the families are found, as they are for a family that is there
    return parse(plain, WHERE)


def _topology(order: Order) -> Any:
    try:
        return loads(order.topology)
    except ValueError as error:
        raise InputError(f"{WHERE}: not JSON: {error}") from error


def _unlearn(order: Order, family: Family, scenario: Scenario, both: Backend, say: Progress) -> Answer:
    if order.resume:
        return _record(go_on(family, both, reference=order.reference, quorum=order.quorum, progress=say))
    named = tuple(name for each in order.request.split(",") if (name := each.strip()))
    asked = request_of(
        scenario, order.classes, order.samples, order.sites, order.since or None, named, order.due or None,
        order.received or None, order.case, family,
    )  # fmt: skip
    record = forget(
        family,
        asked,
        make(order.method, order.plain_settings),
        both,
        reference=order.reference,
        score_at_roots=order.score_at_roots,
        quorum=order.quorum,
        precision=order.precision,
        atomic=order.atomic,
        accept_untested=order.accept_untested or None,
        reason=order.reason or None,
        progress=say,
    )
    return _record(record)


def _record(record: Record) -> Answer:
    return {"record": {"facts": record.facts, "cost": record.cost}}


def _answer(order: Order, family: Family, told: Answer) -> Answer:
    return {**told, "family": plain_files(Family.open(family.folder), order.has)}
