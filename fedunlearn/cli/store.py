"""Keeping, proving and erasing: check all files, erase what nothing needs, end the rollback window."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from fedunlearn.cli import flower
from fedunlearn.cli.console import one_line, out, print_json
from fedunlearn.cli.log import log
from fedunlearn.cli.options import Address, By, Carrier, Data, Federation, Folder, Json, OwnSites, Reason, Yes
from fedunlearn.cli.state import standing
from fedunlearn.errors import InputError, StoreError
from fedunlearn.runtime import (
    Family,
    changed_by,
    collect,
    cut,
    depart as run_depart,
    fsck,
    lost_with,
    owed,
    remarks,
    seal as run_seal,
    sealable,
    still_there,
)
from fedunlearn.scenario import backend_of, of_family
from fedunlearn.store import Checked

MOST = 20  # files that are listed


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (check, gc, seal, depart, log):
        app.command("fsck" if command is check else command.__name__)(command)


def check(folder: Folder, as_json: Json = False) -> None:
    """Check every hash and every reference of a family's folder. Changes nothing; exit status 1 on damage."""
    family = Family(folder)
    try:
        places = here(folder)
    except StoreError:  # fsck says what is wrong with that file
        places = _with_folders(family)
    found = fsck(folder, places)
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


def seal(
    folder: Folder,
    request: Annotated[str | None, typer.Option("--request", help="its id; all in force by default")] = None,
    yes: Yes = False,
    reason: Reason = None,
    backend: Carrier = "in-process",
    address: Address = None,
    sites_in: OwnSites = None,
    federation: Federation = None,
    by: By = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """End the rollback window: erase old versions, and what was banked of what is forgotten, for good."""
    family = Family.open(folder)
    with flower.as_of_copy(folder, backend):
        lines = sealable(family, request)
    requests = changed_by(*lines)
    words = f"{', '.join(requests)}: old versions and banked importances are erased for good; no rollback is possible any more"
    _confirm(words, yes)
    if flower.asked(backend, federation):
        family, line = flower.seal(folder, federation, request, reason)
    else:
        with backend_of(family, backend, address, sites_in) as carrier:
            line = run_seal(family, carrier, request, reason=reason)
    body, there = line.body, still_there(family, line)
    if as_json:
        told = {k: body[k] for k in ("requests", "left", "erases")}
        print_json({"line": line.number, **told, "unerased": list(owed(family)), "still_in_force": there})
        return
    out.print(
        f"sealed {', '.join(body['requests'])} (ledger line {line.number}); {len(body['erases'])} versions given up",
        markup=False,
    )
    if body["left"]:
        out.print(f"still hold it, untouched or held back: {', '.join(body['left'])}", markup=False)
    for model, twin in there.items():
        out.print(
            f"still in force: {model} has the very weights that {twin} had before, and by the lineage comes from no model that "
            f"was asked to forget: say there where it comes from, or it keeps them",
            markup=False,
        )


def depart(
    folder: Folder,
    place: Annotated[str, typer.Argument(help="a site or a home that is gone for good")],
    yes: Yes = False,
    reason: Reason = None,
    backend: Carrier = "in-process",
    address: Address = None,
    sites_in: OwnSites = None,
    federation: Federation = None,
    by: By = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Give up a place that is gone for good: nobody waits for it any more, and models that live there are lost."""
    family = Family.open(folder)
    with flower.as_of_copy(folder, backend):
        lost = lost_with(family, place)
    models = f"{', '.join(lost)} {'are' if len(lost) > 1 else 'is'} lost with it, " if lost else ""
    _confirm(f"{place}: {models}no request reaches it any more, and it cannot come back under its name", yes)
    if flower.asked(backend, federation):
        family = flower.depart(folder, federation, place, reason)
    else:
        with backend_of(family, backend, address, sites_in, departing=(place,)) as carrier:
            family = run_depart(family, carrier, place, reason=reason)
    line = family.departed[place]
    if as_json:
        print_json({"line": line.number, **{k: line.body[k] for k in ("place", "lost", "acknowledged", "unerased")}})
        return
    owes = "; it had not said that it erased what is sealed" if line.body["unerased"] else ""
    out.print(f"{place} has departed (ledger line {line.number}){owes}", markup=False)


def _confirm(words: str, yes: bool) -> None:
    """What cannot be undone is asked about, unless it was said to be meant."""
    if not yes:
        if not sys.stdin.isatty():
            raise InputError(f"{words}; say --yes to do it")
        typer.confirm(f"{words}. Go on?", abort=True)


def say_requests(family: Family, as_json: bool) -> None:
    """Requests as cases."""
    found, words = standing(family), cut(family)
    if as_json:
        print_json({"requests": found, "cut": words})
        return
    if words:
        out.print(words, markup=False)
    for one in found:
        dates = ", ".join(f"{what} {one[what]}" for what in ("received", "due", "done") if one[what])
        dates += f" (at first due {one['first_due']})" if one["first_due"] else ""
        late = "OVERDUE  " if one["overdue"] else "LATE  " if one["late"] else ""
        left = f"; still in {', '.join(one['left'])}" if one["left"] else ""
        lost = f"; lost with their homes, still holding it: {', '.join(one['lost'])}" if one["lost"] else ""
        also = f" (also {', '.join(one['names'])})" if one["names"] else ""
        within = f"; by wider requests, ledger line {', '.join(map(str, one['within']))}" if one["within"] else ""
        told = f"{one['what']}{'; ' + dates if dates else ''}{within}{left}{lost}"
        out.print(f"{one['id']}{also}  {late}{one['state']}: {told}", markup=False)
    if not found:
        out.print("no requests")


def here(folder: Path) -> list[str]:
    """Places whose stores are in the folder: none in a copy of a family that lives elsewhere, and no sites of their own."""
    family = Family(folder)
    if family.elsewhere:
        return []
    scenario = of_family(Family.open(folder))
    return [p for p in family.places if not (scenario.own and p in scenario.sites)]
