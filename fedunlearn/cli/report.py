"""The report of one request: an HTML file, and the same as JSON and CSV."""

import re
from pathlib import Path
from typing import Annotated

import typer

from fedunlearn.cli.console import out, print_json, progress
from fedunlearn.cli.options import Address, Carrier, Data, Folder, OwnSites
from fedunlearn.errors import InputError, unknown
from fedunlearn.report import document, page, tables
from fedunlearn.runtime import Family
from fedunlearn.scenario import assess, assessed, backend_of
from fedunlearn.store import Line, write_atomically


def report(
    folder: Folder,
    request: Annotated[str | None, typer.Option(help="the case, as `show` names it; the newest unlearning by default")] = None,
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
    backend: Carrier = "in-process",
    address: Address = None,
    sites_in: OwnSites = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="print everything that the page shows as one JSON object")] = False,
) -> None:
    """One HTML file about a request: what was found, changed, tested, and what is still in doubt."""
    family = Family.open(folder)
    line = _line(family, request)
    path = file or family.folder / "reports" / f"{_file_name(line)}.html"
    if path.suffix != ".html" or path.is_dir():
        raise InputError(f"--out {path}: expected a file that ends in .html")
    if csv is not None and csv.exists() and not csv.is_dir():
        raise InputError(f"--csv {csv}: is a file; name a folder")
    if tier is None:
        evaluations = assessed(family, line)
    else:
        with progress() as say, backend_of(family, backend, address, sites_in) as carrier:
            evaluations = assess(family, line, tier, carrier, retrained=not no_reference, seeds=seeds, progress=say)
    told = document(family, line, evaluations)
    write_atomically(path, page(told).encode())
    texts = {csv / f"{name}.csv": text for name, text in tables(told).items()} if csv is not None else {}
    for where, text in texts.items():
        write_atomically(where, text.encode())
    if as_json:
        print_json({"file": str(path), "tables": list(map(str, texts)), "report": told})
        return
    for sentence in told["verdict"]["sentences"]:
        out.print(sentence, markup=False)
    out.print(f"report of line {line.number} ({line.body['request']}) -> {path}", markup=False)
    if csv is not None:
        out.print(f"tables ({', '.join(w.stem for w in texts)}) -> {csv}", markup=False)


def _line(family: Family, request: str | None) -> Line:
    """The newest unlearning, or the newest of one case."""
    lines = [line for line in family.ledger.lines if line.kind == "unlearned"]
    if not lines:
        raise InputError(f"{family.folder}: nothing to report; no request was carried out yet (fedunlearn unlearn)")
    asked = [line for line in lines if request in (None, line.body["request"])]
    if not asked:
        raise unknown("request", request, (line.body["request"] for line in lines), where="--request")
    return asked[-1]


def _file_name(line: Line) -> str:
    """The case, where that may be a file's name; else with the line's hash, so that no two share one."""
    case = line.body["request"]
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", case)[:80].lstrip(".")
    return safe if safe == case else f"{safe}-{line.hash[:8]}"
