"""How a family stands: its lineage, current versions, what happened so far, and its requests as cases."""

from pathlib import Path
from typing import Annotated

import typer

from fedunlearn.cli import flower
from fedunlearn.cli.console import out, print_json
from fedunlearn.cli.options import Federation, Folder, Json
from fedunlearn.cli.picture import draw_picture
from fedunlearn.cli.say import opened, say_family
from fedunlearn.cli.state import standing, state
from fedunlearn.runtime import Family, cut, pending


def show(
    folder: Folder,
    whole: Annotated[bool, typer.Option("--all", help="draw every kept model, many alike ones too")] = False,
    picture: Annotated[Path | None, typer.Option(help="draw the lineage into this file too: .svg, .png or .pdf")] = None,
    requests: Annotated[bool, typer.Option("--requests", help="requests as cases: received, due, how far")] = False,
    backend: Annotated[str, typer.Option("--backend", help="flower: bring the newest state home first")] = "in-process",
    federation: Federation = None,
    as_json: Json = False,
) -> None:
    """The lineage, current versions, and what happened so far."""
    family = flower.show(folder, federation) if flower.asked(backend, federation) else opened(folder)
    if picture is not None:
        draw_picture(family.lineage, picture, pending(family))
    if requests:
        _say_requests(family, as_json)
    elif as_json:
        print_json(state(family))
    else:
        say_family(family, whole)


def _say_requests(family: Family, as_json: bool) -> None:
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
