"""The report of one request: an HTML file, and the same as JSON and CSV."""

import re
from pathlib import Path
from typing import Annotated

import typer

from fedunlearn.cli import flower
from fedunlearn.cli.console import out, print_json, progress
from fedunlearn.cli.options import By, Folder
from fedunlearn.cli.say import opened
from fedunlearn.cli.where import HERE, Where, placed
from fedunlearn.errors import InputError
from fedunlearn.report import document, edited_before, page, tables
from fedunlearn.scenario import assess, assessed, line_of
from fedunlearn.store import Line, write_atomically


@placed
def report(
    folder: Folder,
    request: Annotated[str | None, typer.Option(help="the case, as `show` names it; the newest unlearning by default")] = None,
    number: Annotated[
        int | None, typer.Option("--line", help="a ledger line, instead: an earlier try of a case, as `log` numbers them")
    ] = None,
    tier: Annotated[
        str | None,
        typer.Option(help="first take what is missing of quick, full (minutes) or audit (trains shadow models), at the homes"),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="with --tier: retrained families to compare with; 2 give a noise floor")
    ] = 1,
    no_reference: Annotated[bool, typer.Option("--no-reference", help="with --tier: compare with no retrained family")] = False,
    file: Annotated[Path | None, typer.Option("--out", help="the page; <folder>/reports/<case>.html by default")] = None,
    csv: Annotated[Path | None, typer.Option(help="write the tables into this folder, too")] = None,
    where: Where = HERE,
    by: By = None,
    as_json: Annotated[bool, typer.Option("--json", help="print everything that the page shows as one JSON object")] = False,
) -> None:
    """One HTML file about a request: what was found, changed, tested, and what is still in doubt."""
    if file is not None and (file.suffix != ".html" or file.is_dir()):
        raise InputError(f"--out {file}: expected a file that ends in .html")
    if csv is not None and csv.exists() and not csv.is_dir():
        raise InputError(f"--csv {csv}: is a file; name a folder")
    given = {
        f"--backend {where.backend}": where.backend != HERE.backend, "--seeds": seeds != 1, "--no-reference": no_reference,
        "--by": by, "--address": where.address, "--sites-in": where.sites_in, "--federation": where.federation,
    }  # fmt: skip
    if tier is None and (idle := [name for name, value in given.items() if value]):
        raise InputError(f"{idle[0]}: goes with --tier; without it, a report is made of what is kept in {folder}")
    if where.in_flower and tier is not None:
        words = {
            "request": request or "",
            "line": -1 if number is None else number,
            "tier": tier,
            "seeds": seeds,
            "reference": not no_reference,
        }
        family, line, evaluations = flower.assess(folder, where.federation, words)
    else:
        family = opened(folder)
        line = line_of(family, request, number)
        if tier is None:
            evaluations = assessed(family, line)
        else:
            with progress() as say, where.reach(family) as carrier:
                evaluations = assess(family, line, tier, carrier, retrained=not no_reference, seeds=seeds, progress=say)
    path = file or family.folder / "reports" / f"{_file_name(line)}{'' if number is None else f'-line-{number}'}.html"
    then = {one.number: assessed(family, one) for one in edited_before(family, line).values()}
    told = document(family, line, evaluations, then)
    write_atomically(path, page(told).encode())
    texts = {csv / f"{name}.csv": text for name, text in tables(told).items()} if csv is not None else {}
    for table, text in texts.items():
        write_atomically(table, text.encode())
    if as_json:
        print_json({"file": str(path), "tables": list(map(str, texts)), "report": told})
        return
    for sentence in told["verdict"]["sentences"]:
        out.print(sentence, markup=False)
    out.print(f"report of line {line.number} ({line.body['request']}) -> {path}", markup=False)
    if csv is not None:
        out.print(f"tables ({', '.join(w.stem for w in texts)}) -> {csv}", markup=False)


def _file_name(line: Line) -> str:
    """The case, where that may be a file's name; else with the line's hash, so that no two share one."""
    case = line.body["request"]
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", case)[:80].lstrip(".")
    return safe if safe == case else f"{safe}-{line.hash[:8]}"
