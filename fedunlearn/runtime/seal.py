"""Ending the rollback window: the old versions hold what was forgotten, so they are erased for good, everywhere.

The commit point is one ledger line. Erasing follows from it, may be repeated, and is owed until every place has answered.
"""

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from fedunlearn.data import Selection
from fedunlearn.errors import InputError, SiteError, StoreError, unknown
from fedunlearn.lineage import Request
from fedunlearn.runtime.backend import Backend, check
from fedunlearn.runtime.books import records
from fedunlearn.runtime.books.cases import cases, changed_by, names_like
from fedunlearn.runtime.books.evaluations import FOLDER, strays
from fedunlearn.runtime.books.family import Family
from fedunlearn.runtime.books.keeping import needed
from fedunlearn.runtime.books.line_bodies import request_in
from fedunlearn.runtime.books.tried import first_try, outstanding
from fedunlearn.runtime.settle import alone, excluded_by, known_lines, settle, since_seal
from fedunlearn.runtime.tasks import Seal, Sealed
from fedunlearn.store import Line, Swept, sweep
from fedunlearn.store.files import TEMPORARY


def sealable(family: Family, request: str | None = None, named: Sequence[Request] = ()) -> tuple[Line, ...]:
    """The ledger lines that sealing a request seals: its own, and all before it, whose old versions hold its data too.

    Requests that were carried out in one pass are sealed by any of them, as they are rolled back together.

    Args:
        family: the family.
        request: its id, or another name that it has had; None for all that are in force.
        named: requests that the family's scenario names, whose names are taken, too.

    Raises:
        InputError: there is none of that id in force, it is sealed already, or some of its models wait for a place.
    """
    ledger = family.ledger
    undone, sealed = ledger.undone, ledger.sealed
    in_force = [x for x in ledger.lines if x.kind == "unlearned" and x.body["heads"] and x.number not in undone]
    open_ = [x for x in in_force if x.number not in sealed]
    if request is not None:
        names = names_like(family, request, named)
        mine = [x for x in in_force if not names.isdisjoint((x.body["request"], *changed_by(x)))]
        if not mine:
            known = {n for one in changed_by(*in_force) for n in names_like(family, one, named)}
            raise unknown("request in force", request, known, where=str(family.folder))
        open_ = [x for x in open_ if x.number <= mine[-1].number]
    if not open_:
        told = f"request {request} is" if request else "every request in force is"
        late = f"; it is not yet erased at {', '.join(places)}: run fedunlearn settle" if (places := owed(family)) else ""
        raise InputError(
            f"{family.folder}: {told} sealed already{late}" if in_force else f"{family.folder}: nothing is in force to seal"
        )
    begun = [(first_try(family, request_in(x)), models) for x, models in outstanding(family)]
    waits = sorted({m for first, models in begun if first is not None and first <= open_[-1].number for m in models})
    if waits:
        raise InputError(
            f"{family.folder}: {', '.join(waits)} still wait for a place to be online, which needs the old versions; "
            f"resume it first (fedunlearn unlearn --resume)"
        )
    return tuple(open_)


def seal(
    family: Family, backend: Backend, request: str | None = None, *, reason: str | None = None, named: Sequence[Request] = ()
) -> Line:
    """End the rollback window of a request, and erase what would undo it: at every place that answers, the others owe it.

    Args:
        family: the family.
        backend: carries tasks to the places.
        request: its id; None for all that are in force.
        reason: why; goes to the ledger.
        named: as for `sealable`.

    Returns:
        The ledger line.

    Raises:
        InputError: as `sealable`; nothing was changed.
        SiteError: it is sealed, but some place has not erased yet; `erase_sealed` goes on.
    """
    with alone(family, backend):
        lines = sealable(family, request, named)
        numbers = [line.number for line in lines]
        requests = changed_by(*lines)
        left = {m for case in cases(family) if not case.names.keys().isdisjoint(requests) for m in case.left}
        staying = {v for held in needed(family, sealing=numbers).values() for v in held}
        body = {
            "seals": numbers,
            "requests": list(requests),
            "left": sorted(left),
            "erases": sorted(_held(family) - staying),
            "reason": reason,
        }
        line = family.ledger.append("sealed", body)
        settle(family, backend, quorum=0.0)
        erase_sealed(family, backend)
    return line


def still_there(family: Family, line: Line) -> dict[str, str]:
    """Models whose current version is one that a sealed request had edited in another model -> that model.

    They hold what it forgot, though the lineage does not say so; a version that is in force is not erased.

    Args:
        family: the family.
        line: the "sealed" one.
    """
    ledger, before = family.ledger, dict[str, str]()
    for number in line.body["seals"]:
        heads = ledger.heads(number)
        before |= {heads[model]: model for model in ledger.lines[number].body["heads"]}
    return {model: before[v] for model, v in family.heads.items() if v in before}


def owed(family: Family) -> tuple[str, ...]:
    """Places that have not said yet that they erased what is sealed, or were brought back to what they were before."""
    if not (aware := since_seal(family)):
        return ()
    known, erased = known_lines(family), family.erased
    back = {place for place, line in known.items() if line not in aware and family.store(place).folder.is_dir()}
    return tuple(p for p in family.places if p in back or erased.get(p) != aware[0])


def erase_sealed(family: Family, backend: Backend) -> list[Sealed]:
    """Have every place that owes it erase what is sealed, and cached references that were trained on it with it.

    Raises:
        SiteError: a place failed; repeating this goes on.
        BusyError: another command is at work.
    """
    late = owed(family)
    if not late:
        return []
    line = next(x for x in reversed(family.ledger.lines) if x.kind == "sealed")
    with family.ledger.alone():
        knowing = [twin.folder for twin in references(family) if not _without_sealed(family, twin)]
        for folder in (*knowing, *_cut_off(family)):  # of the latter nobody can say what they know
            shutil.rmtree(folder)
        keep = tuple(sorted({v for one in (family, *references(family)) for held in needed(one).values() for v in held}))
        forgotten = _forgotten(family)
        hashes = family.ledger.hashes
        tasks = [Seal(place, keep, forgotten.get(place, {}), line.hash, hashes) for place in late]
        answers = backend.carry(tasks)
        pairs = zip(tasks, answers, strict=True)
        family.note_erased({t.place: a.line for t, a in pairs if isinstance(a, Sealed) and a.line == line.hash})
    otherwise = f"sealed (ledger line {line.number}), but not yet erased everywhere; run `fedunlearn settle`"
    return check(tasks, answers, Sealed, otherwise)


def catch_up(family: Family, backend: Backend) -> None:
    """Bring every place in line with the ledger, and have it erase what it owes; those that are there, whoever is not.

    Raises:
        SiteError: some place failed, or is not there; repeating this goes on.
        BusyError: another command is at work.
        StoreError: the ledger was cut.
    """
    try:
        settle(family, backend)
    except SiteError:
        erase_sealed(family, backend)
        raise
    erase_sealed(family, backend)


def collect(family: Family, here: Collection[str], *, dry: bool = False) -> dict[str, Swept]:
    """Erase what nothing needs: overtaken versions, what a crash left, and what a place that has departed left in the folder.

    Never what the ledger can roll back to.

    Args:
        family: the family.
        here: places whose stores are on this machine.
        dry: erase nothing, only say what would go.

    Returns:
        For each place, and each place of a cached reference, what was erased; and among records and results of evaluations.

    Raises:
        BusyError: another command is at work.
        StoreError: a version that is needed is damaged.
    """
    with nullcontext() if dry else alone(family):
        found: dict[str, Swept] = {}
        twins = references(family)
        keep = frozenset(v for one in (family, *twins) for held in needed(one).values() for v in held)
        for one in (family, *twins):
            for place in (p for p in one.places if p in here):
                name = str(one.store(place).folder.relative_to(family.folder))
                found[name] = sweep(one.store(place), keep, dry=dry)
        for folder in (*_cut_off(family), *_left_behind(family)):
            size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
            found[str(folder.relative_to(family.folder))] = Swept(bytes=size)
            if not dry:
                shutil.rmtree(folder)
        for name, cut_off in ((FOLDER, strays(family)), (records.FOLDER, records.strays(family)), (".", _half_written(family))):
            if cut_off:
                found[name] = Swept(bytes=sum(file.stat().st_size for file in cut_off), crashed=len(cut_off))
            for file in cut_off if not dry else ():
                file.unlink()
    return found


def _half_written(family: Family) -> list[Path]:
    """Of the family's own files, those that a crash left behind."""
    return sorted(p for p in family.folder.glob(f"*{TEMPORARY}") if p.is_file())


def references(family: Family) -> tuple[Family, ...]:
    """Families retrained without something, cached beside this one; what was cut off or cannot be read is none."""
    return tuple(twin for folder in _folders(family) if (twin := Family(folder)) and _trained(twin))


def _trained(twin: Family) -> bool:
    try:
        return bool(twin.ledger.lines)
    except StoreError:  # `fsck` says what is wrong with it
        return False


def _cut_off(family: Family) -> Iterator[Path]:
    whole = {twin.folder for twin in references(family)}
    return (folder for folder in _folders(family) if folder not in whole)


def _left_behind(family: Family) -> Iterator[Path]:
    """Stores of places that have departed, where they were in the family's folder."""
    return (folder for place in sorted(family.departed) if (folder := family.store(place).folder).is_dir())


def _folders(family: Family) -> list[Path]:
    return sorted(p for p in (family.folder / "reference").glob("*") if p.is_dir())


def _without_sealed(family: Family, twin: Family) -> bool:
    """Whether a reference was trained without the data of every sealed request."""
    left_out = [Request.from_json(r).what for r in twin.ledger.lines[0].body["without"]]
    return all(request_in(family.ledger.lines[n]).what in left_out for n in family.ledger.sealed)


def _forgotten(family: Family) -> dict[str, dict[str, Selection]]:
    found: dict[str, dict[str, Selection]] = {}
    for line in (family.ledger.lines[n] for n in family.ledger.sealed):
        for site, chosen in excluded_by(family, line).items():
            found.setdefault(site, {})[line.body["request"]] = chosen
    return found


def _held(family: Family) -> set[str]:
    """Every version that the ledger names, but for those that a sealing has erased since, and of models that are lost."""
    found, lost = set[str](), family.lost
    for line in family.ledger.lines:
        found = found - set(line.body.get("erases", ())) | _versions(line, lost)
    return found


def _versions(line: Line, lost: frozenset[str]) -> set[str]:
    """Those that a ledger line makes current or holds back."""
    return {v for k in ("heads", "pending") for m, v in line.body.get(k, {}).items() if m not in lost}
