"""Methods beside one another, on families of several topologies and seeds."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import HORIZONTALS
from rich.table import Table as Drawn
from rich.text import Text

from fedunlearn.cli.console import err, out, print_json, progress
from fedunlearn.cli.options import Data, Json
from fedunlearn.compare import (
    Subject,
    choices_of,
    compare as run_compare,
    failed_everywhere,
    notes,
    older,
    overview,
    planned,
    requests_of,
    write,
)
from fedunlearn.compare.deeper import check_tier
from fedunlearn.compare.table import INHERITED
from fedunlearn.scenario import find_topology, load


def compare(
    topologies: Annotated[list[str], typer.Argument(help="topology files, or names of those that come with fedunlearn")],
    methods: Annotated[str, typer.Option(help="names of methods, with commas, or label=name; by default the whole menu")] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="a setting of one method, or label: fiun.alpha=10; may be repeated")
    ] = None,
    classes: Annotated[
        str, typer.Option(help="0,1: each class in a request of its own; 0+1: both in one; by default the topology's requests")
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, help="how many families of each topology")] = 3,
    folder: Annotated[Path, typer.Option("--out", help="where results go; a run that was cut off goes on there")] = Path(
        "runs/compare"
    ),
    no_reference: Annotated[bool, typer.Option("--no-reference", help="do not retrain families to compare with")] = False,
    tier: Annotated[
        str,
        typer.Option(help="evaluate every edited model: quick (seconds), or full (minutes: probe, relearning, membership)"),
    ] = "",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Methods, seeds and topologies in one table: what each leaves, what it costs, where it fails.

    Exit status 1 where a method failed at every model.
    """
    check_tier(tier)
    choices, requests = choices_of(methods, settings or ()), requests_of(classes)
    subjects = [Subject.of(load(find_topology(name)), requests) for name in topologies]
    asked = (subjects, choices, range(seeds), folder / "work", not no_reference, tier)
    err.print(f"planned: {planned(*asked).words()}", markup=False)
    if note := older(*asked):
        err.print(f"note: {note}", markup=False)
    with progress() as say:
        result = run_compare(*asked, progress=say)
    files, broken = write(result, folder), failed_everywhere(result)
    if as_json:
        print_json(result)
        raise typer.Exit(1 if broken else 0)
    found = overview(result).without(INHERITED)  # a terminal is narrow; all of them are in the file
    drawn = Drawn(*found.header, show_lines=True, box=HORIZONTALS, padding=(0, 1, 0, 0))
    for line in found.lines:
        drawn.add_row(*(Text(text.replace(": ", "\n").replace(" [", "\n[")) for text in line))
    out.print(drawn)
    for note in notes(result):
        out.print(note, markup=False)
    out.print(f"\nkept in {', '.join(map(str, files))}", markup=False)
    if broken:
        out.print(f"{', '.join(broken)}: failed at every model, with the reasons above", markup=False)
        raise typer.Exit(1)
