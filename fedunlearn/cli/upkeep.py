"""Keeping a family in order: every place in line with the ledger, files checked, what nothing needs erased, places given up."""

from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from fedunlearn.cli import flower
from fedunlearn.cli.console import confirm, one_line, out, print_json
from fedunlearn.cli.options import By, Folder, Json, Reason, Yes
from fedunlearn.cli.say import opened
from fedunlearn.cli.state import here
from fedunlearn.cli.where import HERE, Where, placed
from fedunlearn.errors import StoreError
from fedunlearn.runtime import Family, catch_up, collect, depart as run_depart, fsck as run_fsck, lost_with, remarks
from fedunlearn.store import Checked

MOST = 20  # files that are listed


@placed
def settle(
    folder: Folder,
    where: Where = HERE,
    as_json: Json = False,
) -> None:
    """Bring every place in line with the ledger, after a place or a command failed half-way."""
    family = opened(folder)
    if where.in_flower:
        family = flower.settle(folder, where.federation)
    else:
        with where.reach(family) as carrier:
            catch_up(family, carrier)
    number = family.ledger.lines[-1].number
    if as_json:
        print_json({"line": number, "places": list(family.places)})
    else:
        out.print(f"every place holds ledger line {number}")


def fsck(folder: Folder, as_json: Json = False) -> None:
    """Check every hash and every reference of a family's folder. Changes nothing; exit status 1 on damage."""
    family = Family(folder)
    try:
        places = here(folder)
    except StoreError:  # fsck says what is wrong with that file
        places = _with_folders(family)
    found = run_fsck(folder, places)
    away = [p for p in _readable(lambda: family.places) if p not in places]
    tell_checked(found, away, as_json, _readable(lambda: remarks(family)))


def _with_folders(family: Family) -> list[str]:
    """Places whose stores lie in the family's folder, where nothing else says whether they should."""
    return [place for place in _readable(lambda: family.places) if family.store(place).folder.is_dir()]


def _readable(read: Callable[[], Sequence[str]]) -> Sequence[str]:
    """What some file says, or nothing where it is damaged: `fsck` says what is wrong with it."""
    try:
        return read()
    except StoreError:
        return ()


def tell_checked(found: Checked, away: Sequence[str], as_json: bool, notes: Sequence[str] = ()) -> NoReturn:
    """Print what a check found, and end with its exit status.

    Args:
        found: by the check.
        away: places that were not looked at.
        as_json: print one JSON object.
        notes: what is no damage, but is to be known.
    """
    orphans = [{"file": str(path), "why": why} for path, why in sorted(found.orphans.items())]
    if as_json:
        print_json(
            {"files": found.files, "damage": found.damage, "orphans": orphans, "elsewhere": list(away)} | {"notes": list(notes)}
        )
        raise typer.Exit(1 if found.damage else 0)
    for text in found.damage:
        out.print(f"[bold red]damage:[/bold red] {escape(text)}")
    for text in notes:
        out.print(f"note: {one_line(text)}", markup=False)
    for one in orphans[:MOST]:
        out.print(f"orphan: {one['file']}: {one['why']}", markup=False)
    if len(orphans) > MOST:
        out.print(f"... and {len(orphans) - MOST} more orphans (--json lists them)", markup=False)
    if away:
        out.print(f"elsewhere, so not checked here: {', '.join(away)}", markup=False)
    out.print(f"{found.files} files read: {len(found.damage)} damaged, {len(orphans)} that nothing needs", markup=False)
    raise typer.Exit(1 if found.damage else 0)


def gc(
    folder: Folder,
    dry: Annotated[bool, typer.Option("--dry-run", help="erase nothing, only say what would go")] = False,
    as_json: Json = False,
) -> None:
    """Erase what nothing needs. Never what a rollback could bring back: `seal` ends that."""
    family = Family.open(folder)
    found = {place: swept for place, swept in collect(family, here(folder), dry=dry).items() if swept != type(swept)()}
    size = sum(swept.bytes for swept in found.values())
    if as_json:
        print_json({"dry_run": dry, "bytes": size, "places": {p: vars(s) for p, s in found.items()}})
        return
    for place, swept in found.items():
        left = {"banked": swept.banked, "left by crashes": swept.crashed}
        parts = {"versions": len(swept.versions), "tensors": swept.tensors, **left}
        words = ", ".join(f"{n} {what}" for what, n in parts.items() if n) or "cut off"
        out.print(f"{place}: {words}; {swept.bytes / 1e6:.2f} MB", markup=False)
    out.print(f"{'would erase' if dry else 'erased'} {size / 1e6:.2f} MB", markup=False)


@placed
def depart(
    folder: Folder,
    place: Annotated[str, typer.Argument(help="a site or a home that is gone for good")],
    yes: Yes = False,
    reason: Reason = None,
    where: Where = HERE,
    by: By = None,
    as_json: Json = False,
) -> None:
    """Give up a place that is gone for good: nobody waits for it any more, and models that live there are lost."""
    family = Family.open(folder)
    with flower.as_of_copy(folder, where.backend):
        lost = lost_with(family, place)
    models = f"{', '.join(lost)} {'are' if len(lost) > 1 else 'is'} lost with it, " if lost else ""
    confirm(f"{place}: {models}no request reaches it any more, and it cannot come back under its name", yes)
    if where.in_flower:
        family = flower.depart(folder, where.federation, place, reason)
    else:
        with where.reach(family, (place,)) as carrier:
            family = run_depart(family, carrier, place, reason=reason)
    line = family.departed[place]
    if as_json:
        print_json({"line": line.number, **{k: line.body[k] for k in ("place", "lost", "acknowledged", "unerased")}})
        return
    owes = "; it had not said that it erased what is sealed" if line.body["unerased"] else ""
    out.print(f"{place} has departed (ledger line {line.number}){owes}", markup=False)
