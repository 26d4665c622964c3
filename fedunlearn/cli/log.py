"""Reading the ledger: what was done, and whether anybody changed what it says."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from fedunlearn.cli.console import one_line, out, print_json
from fedunlearn.cli.options import Folder, Json
from fedunlearn.errors import InputError, StoreError
from fedunlearn.runtime import Family, confirmed, cut, elsewhere, remarks, rests_on, unwitnessed
from fedunlearn.runtime.books.evaluations import KIND, counted
from fedunlearn.runtime.books.family import LEDGER
from fedunlearn.runtime.books.records import damaged
from fedunlearn.store import Ledger, Line
from fedunlearn.store.signatures import checkable
from fedunlearn.store.signing import read_public


def log(
    folder: Folder,
    verify: Annotated[
        bool, typer.Option("--verify", help="check signatures, records that lines name, and that no place knows more lines")
    ] = False,
    expect: Annotated[
        str | None, typer.Option(help="hash of a line that must be there, or its first 8 digits or more; checked too")
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(help="public key in PEM that must have signed all lines; again for the one that took over; checked too"),
    ] = None,
    signed_from: Annotated[
        int | None,
        typer.Option("--signed-from", min=0, help="the first line that must be signed, where there was no key before it"),
    ] = None,
    as_json: Json = False,
) -> None:
    """All lines of the ledger: who did what, when, why, with which code. Exit status 1 if a line was changed or is missing.

    Places with stores on this machine are read; of others a note tells, and `fedunlearn settle` asks. `fsck` checks all files.
    """
    if expect is not None and not re.fullmatch("[0-9a-f]{8,64}", expect):
        raise InputError(f"--expect {expect!r}: expected a line's hash, or 8 or more of its first hexadecimal digits")
    ledger, wrong, asked = None, list[str](), verify or expect is not None or bool(key) or signed_from is not None
    family = None
    try:
        ledger = Ledger(folder / LEDGER)
        if not ledger.lines:
            _ = Family.open(folder)
        if asked or checkable():
            wrong += ledger.verify([read_public(file) for file in key or ()], signed_from)
        if asked:
            family = Family.open(folder)
            wrong += [words for words in (cut(family), unwitnessed(family)) if words]
            wrong += damaged(family)
        if expect is not None and not any(line.hash.startswith(expect) for line in ledger.lines):
            wrong.append(f"{ledger.path}: has no line {expect}; it was cut, rewritten, or is another family's")
    except StoreError as error:
        wrong.append(str(error))
    if as_json:
        print_json(_plain(ledger, family) | {"wrong": wrong})
        raise typer.Exit(1 if wrong else 0)
    if ledger:
        _say(ledger)
    for text in wrong:
        out.print(f"[bold red]damage:[/bold red] {escape(text)}")
    if family:
        for text in remarks(family):
            out.print(f"note: {one_line(text)}", markup=False)
        out.print(rests_on(family), markup=False)
    if ledger and (first := ledger.unsigned):
        out.print(f"not signed: lines 0 to {first - 1}; {_vouched(first, bool(key), signed_from)}", markup=False)
    if ledger and ledger.lines:
        out.print(f"{len(ledger.lines)} lines, the last is {ledger.lines[-1].hash}", markup=False)
    raise typer.Exit(1 if wrong else 0)


def _say(ledger: Ledger) -> None:
    """A line for each, and why it was done."""
    set_back = ledger.set_back
    for line in ledger.lines:
        told = ", ".join((_about(line), line.hash[:12], *_signed(line, ledger)))
        told += f", its time is before line {line.number - 1}'s" if line.number in set_back else ""
        out.print(f"{line.number:>3}  {one_line(line.time)}  {one_line(line.by) or '-'}  {one_line(told)}", markup=False)
        if why := line.body.get("reason"):
            out.print(f"     because: {one_line(why)}", markup=False)


def _plain(ledger: Ledger | None, family: Family | None) -> dict[str, Any]:
    """The same for a program; `family` is None where nothing was asked about it."""
    found: dict[str, Any] = {"lines": [], "unsigned": 0, "torn": False}
    if ledger:
        lines = [
            vars(x) | {"body": {k: v for k, v in x.body.items() if k != "record"}, "signed": ledger.signed(x)}
            for x in ledger.lines
        ]
        found = {"lines": lines, "unsigned": ledger.unsigned, "torn": bool(ledger.torn)}
    if family:
        found |= {"confirmed": confirmed(family), "elsewhere": elsewhere(family), "notes": remarks(family)}
    return found


def _signed(line: Line, ledger: Ledger) -> tuple[str, ...]:
    """What is said of a line's signature; nothing where nobody signs."""
    key = f"signed {line.key[:12]}"
    words = {
        "valid": key,
        "wrong": "signature does not match",
        "unchecked": f"{key}, not checked, which needs fedunlearn[signatures]",
        "missing": "not signed",
        "none": "not signed" if ledger.unsigned else "",
    }[ledger.signed(line)]
    return (words,) if words else ()


def _vouched(first: int, keyed: bool, since: int | None) -> str:
    """What follows from lines without a signature before the first that has one."""
    told = f"line {first}, which is, vouches for them as they stood then"
    if keyed and since is None:
        told += f". If there was no key before it, say --signed-from {first}; if there was, somebody took the signatures off"
    return told


def _about(line: Line) -> str:
    """What was done, and to what."""
    body = line.body
    if line.kind == "trained" and not body.get("heads"):
        return f"trained no model of {body.get('scenario', '')}: its requests or limits"
    if line.kind == KIND:
        return f"{line.kind} {body['request']} (line {body['evaluates']}): {counted(body['results'])}"
    about = ", ".join(body.get("requests", ())) or str(body.get("request") or body.get("scenario") or body.get("place") or "")
    return f"{line.kind} {about}"
