"""Commands of a site's owner, on the site's own machine."""

from pathlib import Path
from typing import Annotated

import typer

from fedunlearn.cli.console import out, print_json
from fedunlearn.cli.options import Json
from fedunlearn.cli.store import tell_checked
from fedunlearn.runtime import check_site
from fedunlearn.scenario import Site, open_site

app = typer.Typer(no_args_is_help=True, help="For the owner of a site: what waits for you, allowing it, checking the store.")

File = Annotated[Path, typer.Argument(help="the site's own file, site.yaml")]


@app.command()
def show(file: File, as_json: Json = False) -> None:
    """What this site lets others ask for, and what waits for its owner."""
    site = open_site(file)
    if as_json:
        print_json({"name": site.place, "policy": site.file.policy, "tasks": [vars(w) for w in site.consent.wishes()]})
        return
    asks = "its owner allows each task" if site.file.policy == "ask" else "tasks are done without asking"
    out.print(f"{site.place}: {asks}; store {site.folder}", markup=False)
    for wish in site.consent.wishes():
        state = f"allowed {wish.approved}" if wish.approved else f"waits since {wish.asked}"
        out.print(f"  {wish.id}  {state}: {wish.what}", markup=False)


@app.command()
def approve(
    file: File,
    task: Annotated[list[str], typer.Argument(help="its id, as `show` prints it, or its beginning; several may be given")],
    as_json: Json = False,
) -> None:
    """Allow tasks that wait; each is done when it is asked for again."""
    site: Site = open_site(file)
    allowed = [site.consent.approve(one) for one in task]
    if as_json:
        print_json({"name": site.place, "allowed": [vars(w) for w in allowed]})
        return
    for wish in allowed:
        out.print(f"allowed: {wish.id}: {wish.what}", markup=False)


@app.command("fsck")
def check(file: File, as_json: Json = False) -> None:
    """Check every file of this site's store. Changes nothing; exit status 1 on damage.

    Which old versions a rollback still needs, only the coordinator's ledger says.
    """
    tell_checked(check_site(open_site(file).folder), (), as_json)
