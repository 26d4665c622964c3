"""How a family begins and grows: trained here or at sites, extended, imported; and the demo."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from fedunlearn.cli import flower
from fedunlearn.cli.console import out, print_json, progress
from fedunlearn.cli.options import (
    Address,
    By,
    Classes,
    Data,
    Federation,
    Folder,
    Json,
    MethodName,
    OwnSites,
    Reason,
    Settings,
    Trainer,
    pairs,
)
from fedunlearn.cli.say import opened, say_family, say_inherited, say_notes, say_plan, say_record
from fedunlearn.cli.state import cost, state
from fedunlearn.cli.where import HERE, Where, placed
from fedunlearn.errors import InputError, check_names
from fedunlearn.lineage import discover
from fedunlearn.methods import make
from fedunlearn.runtime import Family, bank as run_bank
from fedunlearn.scenario import (
    backend_of,
    doubts,
    extend as run_extend,
    extend_afar,
    find_topology,
    forget,
    grown,
    load,
    of_family,
    open_site_data,
    read_plain,
    request_of,
    sites_away,
    train as run_train,
    train_afar,
    workers_here,
)


def demo(
    classes: Classes = "0",
    method: MethodName = "fiun",
    settings: Settings = None,
    folder: Annotated[Path | None, typer.Option("--out", help="where to keep the family; runs/demo by default")] = None,
    seed: Annotated[int | None, typer.Option(help="replaces the file's seeds")] = None,
    as_json: Json = False,
) -> None:
    """Train four kinds of heirs on handwritten digits and make them forget one."""
    scenario = load(find_topology("hospitals"))
    scenario = scenario if seed is None else scenario.seeded(seed)
    chosen = make(method, pairs(settings))  # what is wrong is said before anything is trained
    folder = folder or _fresh(Path("runs") / "demo")
    asked = request_of(scenario, classes)
    known = next(iter(open_site_data(scenario, folder).values())).shards["main"].classes
    check_names("class", asked.classes, known)
    with progress() as say:
        family = run_train(scenario, folder, progress=say)
    if not as_json:
        say_family(family)
        found = discover(family.lineage, asked)
        say_plan(found, cost(family, found))
    with progress() as say, backend_of(family) as carrier:
        record = forget(family, asked, chosen, carrier, progress=say)
    if as_json:
        print_json({"folder": str(folder), **record.to_json()})
        return
    say_record(record)
    again = next(c for c in family.lineage.classes if c not in asked.classes)
    program = _program()
    out.print("\nnext:")
    for words in (f"show {folder}", f"report {folder}", f"plan {folder} --classes {again}", f"rollback {folder}"):
        out.print(f"  {program} {words}", markup=False)


def train(
    topology: Annotated[str, typer.Argument(help="a topology file, or the name of one that comes with fedunlearn")],
    folder: Annotated[Path | None, typer.Option("--out", help="where to keep the family; runs/<name> by default")] = None,
    seed: Annotated[int | None, typer.Option(help="replaces the file's seeds")] = None,
    backend: Trainer = "in-process",
    federation: Federation = None,
    address: Address = None,
    sites_in: OwnSites = None,
    by: By = None,
    data: Data = None,
    with_bank: Annotated[
        bool, typer.Option("--bank", help="bank importances by class, so that evidence of class requests reads no data")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train every model of a topology and keep the family."""
    scenario = load(find_topology(topology))
    scenario = scenario if seed is None else scenario.seeded(seed)
    if sites_in is not None and not scenario.own:
        raise InputError(f"--sites-in {sites_in}: goes with data that says `sites: own`; this topology's is opened here")
    folder = folder or Path("runs") / scenario.name
    with progress() as say:
        if federation is not None:
            family = flower.train(scenario, folder, backend, federation, say)
        elif scenario.own and sites_in is not None:
            with sites_away(scenario, sites_in, backend, address) as away:
                family = train_afar(scenario, folder, away, workers_here(scenario, Family(folder)), progress=say)
        else:
            family = run_train(scenario, folder, backend=backend, progress=say)
        if with_bank and federation is None:
            with backend_of(family, backend if scenario.own else "in-process", address, sites_in) as carrier:
                run_bank(family, carrier, progress=say)
    if with_bank and federation is not None:
        flower.bank(folder, federation)
    if as_json:
        print_json({"folder": str(folder), **state(family)})
    else:
        say_family(family)
        out.print(f"\nkept in {folder}", markup=False)
    say_notes(doubts(family, family.heads))


def extend(
    folder: Folder,
    models: Annotated[
        Path, typer.Argument(help="a YAML file: further models (parents may be the family's), requests, other limits")
    ],
    backend: Trainer = "in-process",
    federation: Federation = None,
    address: Address = None,
    sites_in: OwnSites = None,
    reason: Reason = None,
    by: By = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Train further models onto a family, from the versions that are current now; add requests, change limits."""
    family, more = opened(folder), read_plain(models)
    scenario, known = of_family(family), {*family.lineage.by_name}
    more = {**more, "reason": reason} if reason and isinstance(more, dict) else more
    if federation is not None or (scenario.own and backend == "flower"):
        family = flower.extend(folder, federation, more)
    else:
        with progress() as say:
            whole, new = grown(scenario, more, str(models))
            if sites_in is None or not new:
                family = run_extend(family, more, str(models), backend=backend, progress=say)
            else:
                with sites_away(whole, sites_in, backend, address, departed=family.departed) as away:
                    family = extend_afar(family, more, str(models), away, progress=say)
    if as_json:
        print_json({"folder": str(folder), **state(family)})
    else:
        say_family(family)
    say_inherited(family, known)
    say_notes(doubts(family, [m for m in family.heads if m not in known]))


def import_(
    lineage: Annotated[Path, typer.Argument(help="a YAML file: a topology whose models name checkpoint files")],
    folder: Annotated[Path | None, typer.Option("--out", help="where to keep the family; runs/<name> by default")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Register checkpoints that were trained elsewhere, with their parents, as a family."""
    scenario = load(lineage)
    trained = [n for n, m in scenario.models.items() if m.born != "imported"]
    if trained:
        raise InputError(f"{lineage}: models.{trained[0]}: has no file, it would be trained; use `fedunlearn train` for that")
    if scenario.own:
        raise InputError(
            f"{lineage}: checkpoints are registered where their rows can be opened here (data: set, factory or files), not "
            f"with `sites: own`; a Flower federation that trains anew is written down by `fedunlearn.flower.Recorded`"
        )
    train(str(lineage), folder, as_json=as_json)


@placed
def bank(
    folder: Folder,
    where: Where = HERE,
    as_json: Json = False,
) -> None:
    """Measure importances by class ahead of any request, so that the evidence of class requests reads no data."""
    family = opened(folder)
    if where.in_flower:
        read = flower.bank(folder, where.federation)
    else:
        with progress() as say, where.reach(family) as carrier:
            read = run_bank(family, carrier, progress=say)
    if as_json:
        print_json({"rows_read": read})
    else:
        out.print(f"banked; {read} rows read")


def _program() -> str:
    """What to type to run this program again."""
    here = Path(sys.argv[0])
    if here.name == "__main__.py":
        return "python -m fedunlearn"
    if shutil.which(here.name) or not here.exists():
        return here.name
    return str(here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here)


def _fresh(folder: Path) -> Path:
    names = [folder, *(folder.with_name(f"{folder.name}-{i}") for i in range(2, 10_000))]
    return next(f for f in names if not f.exists())
