"""Commands of a site's owner, on the site's own machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from fedunlearn.cli.console import out, print_json
from fedunlearn.cli.export import write_weights
from fedunlearn.cli.options import Json
from fedunlearn.cli.upkeep import tell_checked
from fedunlearn.errors import InputError, unknown
from fedunlearn.runtime import barred_at, check_site, models_at
from fedunlearn.scenario import Site, open_site

app = typer.Typer(
    no_args_is_help=True, help="For the owner of a site: what waits, allowing it, weights for serving, checking the store."
)

File = Annotated[Path, typer.Argument(help="the site's own file, site.yaml")]


@app.command()
def show(file: File, as_json: Json = False) -> None:
    """What this site lets others ask for, what waits for its owner, which models it keeps, what is not trained on any more."""
    site = open_site(file)
    kept, barred = models_at(site.folder), barred_at(site.folder)
    if as_json:
        models = [{"name": one.model, "version": one.version, "family": one.family} for one in kept]
        excluded = [{**vars(one.selection), "request": one.request, "family": one.family} for one in barred]
        tasks = [vars(w) for w in site.consent.wishes()]
        told = {"tasks": tasks, "models": models, "excluded": excluded, "error": site.error}
        print_json({"name": site.place, "policy": site.file.policy, **told})
        return
    asks = "its owner allows each task" if site.file.policy == "ask" else "tasks are done without asking"
    out.print(f"{site.place}: {asks}; store {site.folder}", markup=False)
    for wish in site.consent.wishes():
        state = f"allowed {wish.approved}" if wish.approved else f"waits since {wish.asked}"
        out.print(f"  {wish.id}  {state}: {wish.what}", markup=False)
    for one in kept:
        out.print(f"  model {one.model!r}{_of(one.family)}: version {one.version[:12]}", markup=False)
    for bar in barred:
        asked = f"request {bar.request!r}{_of(bar.family)}"
        out.print(f"  not trained on any more, for any family: {bar.selection.words()} ({asked})", markup=False)
    if site.error:
        out.print(f"  went wrong last, and was told to nobody in these words:\n{site.error}", markup=False)


def _of(family: str) -> str:
    return f" of family {family[:12]}" if family else ""


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


@app.command("export")
def export_one(
    file: File,
    model: Annotated[str, typer.Argument(help="name of a model whose home this site is")],
    to: Annotated[Path, typer.Argument(help="where to write: a safetensors file")],
    family: Annotated[str, typer.Option(help="id of its family, or its beginning, where several have such a model")] = "",
    force: Annotated[bool, typer.Option("--force", help="replace the file if it exists")] = False,
    as_json: Json = False,
) -> None:
    """Write a model's current weights for serving; plain safetensors and torch read them."""
    site = open_site(file)
    kept = models_at(site.folder)
    fits = [one for one in kept if one.model == model and one.family.startswith(family)]
    if not fits:
        raise unknown("model", model, (one.model for one in kept if one.family.startswith(family)), where=str(site.folder))
    if len(fits) > 1:
        of = ", ".join(one.family[:12] for one in fits)
        raise InputError(f"model {model!r} is kept of {len(fits)} families, {of}; name one with --family")
    write_weights(fits[0].store, model, fits[0].version, to, force, as_json)


@app.command()
def check(file: File, as_json: Json = False) -> None:
    """Open all that this file names, as the first task would: rows, nets, device, methods. Counts rows of each class."""
    site = open_site(file)
    worker = site.check()
    shards = {name: rows.counts() for name, rows in worker.data.shards.items()}
    held = {split: rows.counts() for split, rows in worker.data.held_out.items()}
    if as_json:
        print_json({"name": site.place, "device": worker.device, "shards": shards, "held_out": held})
        return
    out.print(f"{site.place}: computes on {worker.device}", markup=False)
    for what, counts in ((f"to train on, {name!r}", counts) for name, counts in shards.items()):
        out.print(f"  {what}: {_counted(counts)}", markup=False)
    for split, counts in held.items():
        out.print(f"  {split}: {_counted(counts)}", markup=False)


def _counted(counts: Mapping[str, int]) -> str:
    return f"{sum(counts.values()):,} rows: " + ", ".join(f"{n:,} of {name!r}" for name, n in counts.items())


@app.command("fsck")
def fsck(file: File, as_json: Json = False) -> None:
    """Check every file of this site's store. Changes nothing; exit status 1 on damage.

    Which old versions a rollback still needs, only the coordinator's ledger says.
    """
    tell_checked(check_site(open_site(file).folder), (), as_json)
