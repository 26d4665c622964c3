"""Commands whose family lives in a Flower deployment: an order is submitted, and its answer comes home into the folder."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedunlearn.cli.console import progress
from fedunlearn.deployed import Copy, Deployment, Order
from fedunlearn.errors import InputError, SiteError, unknown
from fedunlearn.runtime import Family, Record
from fedunlearn.runtime.backend import Progress, deadline
from fedunlearn.scenario import Scenario, keep_assessed
from fedunlearn.scenario.places import BACKENDS as CARRIERS
from fedunlearn.store import Line
from fedunlearn.store.ledger import somebody
from fedunlearn.store.signing import KEY

BACKENDS = (*CARRIERS, "flower")


def asked(backend: str, federation: str | None) -> bool:
    """Whether a command goes to a Flower deployment.

    Raises:
        InputError: one is named, and the command would not go there; or no such backend.
    """
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS, where="--backend")
    if federation is not None and backend != "flower":
        raise InputError(f"--federation {federation}: goes with --backend flower, not with {backend!r}")
    return backend == "flower"


def train(scenario: Scenario, folder: Path, backend: str, federation: str, say: Progress) -> Family:
    """Train a family in a federation; its copy, without weights, is kept here.

    Raises:
        InputError: another backend is asked for, the rows are not the sites' own, or the folder is taken.
        SiteError: the run failed; says why.
    """
    asked(backend, federation)
    if not scenario.own:
        raise InputError(
            f"{scenario.name}: its data is opened in one process; in a federation each site opens its own: say "
            f"`data: {{sites: own}}` and give every site a site.yaml, or leave out --federation"
        )
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; choose another folder with --out")
    topology = scenario.model_dump(by_alias=True, mode="json", exclude_unset=True, exclude={"folder"})
    copy = Copy.of(folder, federation)
    order = _order("train", copy, topology=json.dumps(topology))
    return copy.keep(Deployment(federation).carry_out(order, say, copy.keep)["family"])


def extend(folder: Path, federation: str | None, more: Any) -> Family:
    """Train further models onto the family, at its sites."""
    return _done(folder, federation, "extend", topology=json.dumps(more))[0]


def show(folder: Path, federation: str | None) -> Family:
    """Bring the newest state home."""
    return _done(folder, federation, "show")[0]


def settle(folder: Path, federation: str | None) -> Family:
    """Bring every place in line with the ledger."""
    return _done(folder, federation, "settle")[0]


def bank(folder: Path, federation: str | None) -> int:
    """Bank importances by class at the sites; how many rows were read."""
    read = _done(folder, federation, "bank")[1].get("rows_read")
    if not isinstance(read, int):
        raise SiteError("the answer does not say what was read; do both sides run the same version of fedunlearn?")
    return read


def rollback(folder: Path, federation: str | None, lift: bool, reason: str | None = None) -> tuple[Family, Line]:
    """Back to the versions before; the family, and the ledger line that says so."""
    family, _ = _done(folder, federation, "rollback", after=_seen(folder), lift_exclusion=lift, reason=reason or "")
    return family, family.ledger.lines[-1]


def seal(folder: Path, federation: str | None, request: str | None, reason: str | None) -> tuple[Family, Line]:
    """End the rollback window; the family, and the ledger line that says so."""
    family, _ = _done(folder, federation, "seal", after=_seen(folder), request=request or "", reason=reason or "")
    return family, next(x for x in reversed(family.ledger.lines) if x.kind == "sealed")


def depart(folder: Path, federation: str | None, place: str, reason: str | None) -> Family:
    """Give up a place that is gone for good; the family."""
    return _done(folder, federation, "depart", after=_seen(folder), place=place, reason=reason or "")[0]


def assess(folder: Path, federation: str | None, words: Mapping[str, Any]) -> tuple[Family, Line, dict[str, Any]]:
    """Take what is missing of a tier, each model at its home; the family, the ledger line it is about, and what is kept of it.

    Args:
        folder: of the copy.
        federation: another connection than the folder remembers.
        words: fields of `Order`.
    """
    family, answer = _done(folder, federation, "assess", **words)
    line = next((x for x in family.ledger.lines if x.kind == "unlearned" and x.hash == answer.get("line")), None)
    if line is None:
        raise SiteError("the answer names no request of this family; do both sides run the same version of fedunlearn?")
    return family, line, keep_assessed(family, line, answer.get("found"))


def unlearn(folder: Path, federation: str | None, words: Mapping[str, Any]) -> Record:
    """Make every heir forget, each at its home.

    Args:
        folder: of the copy.
        federation: another connection than the folder remembers.
        words: fields of `Order`; None for what was left out.
    """
    given = {k: v for k, v in words.items() if v is not None}
    _, answer = _done(folder, federation, "unlearn", **{**given, "settings": json.dumps(given["settings"])})
    told = answer.get("record")
    if not (isinstance(told, dict) and isinstance(told.get("facts"), dict) and isinstance(told.get("cost"), dict)):
        raise SiteError("the answer holds no record; do both sides run the same version of fedunlearn?")
    return Record(told["facts"], told["cost"])


def _seen(folder: Path) -> str:
    """The last line of the copy's ledger: what the question was asked, and answered, in view of."""
    return Family.open(folder).ledger.lines[-1].hash


@contextmanager
def as_of_copy(folder: Path, backend: str) -> Iterator[None]:
    """Say of what is refused here that the copy may be older than the family."""
    try:
        yield
    except InputError as error:
        if backend != "flower":
            raise
        raise InputError(
            f"{error}; so it is by the copy here: bring it up to date (fedunlearn show {folder} --backend flower)"
        ) from error


def _order(action: str, copy: Copy, **more: Any) -> Order:
    if action != "show" and os.environ.get(KEY):
        raise InputError(
            f"{KEY} is set here, where no ledger line is written: in a Flower deployment the ServerApp writes and signs them. "
            f"Its machine's owner sets it there; unset it here"
        )
    return Order(action=action, family=copy.family, by=somebody(), deadline=deadline(), has=copy.has, **more)


def _done(folder: Path, federation: str | None, action: str, **more: Any) -> tuple[Family, dict[str, Any]]:
    copy = Copy.of(folder, federation)
    with progress() as say:
        answer = Deployment(copy.federation).carry_out(_order(action, copy, **more), say, copy.keep)
    return copy.keep(answer.get("family") or {}), answer
