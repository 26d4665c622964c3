"""The commands. Exit status: 0 done, 1 held back by the gate, failed at a site, or busy, 2 wrong input.

Long because every command is here, so that the whole command line can be read in one place; most lines are options.
"""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fedunlearn.cli import INTERRUPTED, TERMINATED, flower, site, store
from fedunlearn.cli.compare import compare
from fedunlearn.cli.console import err, out, print_json, progress
from fedunlearn.cli.export import export as export_weights, identify
from fedunlearn.cli.options import (
    Address,
    AtRoots,
    By,
    Carrier,
    Classes,
    Data,
    Federation,
    Folder,
    Json,
    MethodName,
    Named,
    OwnSites,
    Reason,
    Samples,
    Settings,
    Since,
    Sites,
    Trainer,
    every,
)
from fedunlearn.cli.picture import draw_picture
from fedunlearn.cli.report import report
from fedunlearn.cli.say import (
    opened,
    say_alike,
    say_family,
    say_inherited,
    say_late,
    say_notes,
    say_plan,
    say_record,
    say_unreached,
)
from fedunlearn.cli.state import cost, state
from fedunlearn.errors import FedUnlearnError, InputError, check_names, unknown
from fedunlearn.lineage import discover
from fedunlearn.methods import make
from fedunlearn.runtime import (
    Family,
    bank as run_bank,
    behind,
    catch_up,
    cut,
    pending,
    refuse_cut,
    remaining,
    rollback as roll_back,
    sealed_away,
    still_excluded,
    undoable,
)
from fedunlearn.scenario import (
    backend_of,
    check_samples,
    doubts,
    extend as run_extend,
    extend_afar,
    find_topology,
    forget,
    go_on,
    grown,
    load,
    of_family,
    open_site_data,
    read_plain,
    request_of as _request,
    sites_away,
    train as run_train,
    train_afar,
    workers_here,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Unlearning for families of models that inherit from one another.",
)

app.callback()(every)
app.add_typer(site.app, name="site")
app.command()(compare)
app.command()(report)
app.command()(identify)
store.register(app)


def main() -> None:
    """Run a command, turn our errors into one message and an exit status."""
    sys.path.insert(0, str(Path.cwd()))  # factories and methods of the user's own
    try:
        app()
    except FedUnlearnError as error:
        err.print(f"[bold red]error:[/bold red] {escape(str(error))}")
        sys.exit(error.exit_status)
    except SystemExit as end:
        if end.code in (INTERRUPTED, TERMINATED):
            err.print(
                "interrupted: nothing holds but what the ledger says (fedunlearn show). Where its last line is this command's, "
                "fedunlearn settle finishes it; otherwise run the command again to go on"
            )
        raise
    except OSError as error:  # a full disk, a folder that may not be written, a file where a folder should be
        err.print(f"[bold red]error:[/bold red] {escape(f'{error.filename}: {error.strerror}')}")
        sys.exit(InputError.exit_status)


@app.command()
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


@app.command()
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
            if sites_in is None:
                family = run_extend(family, more, str(models), backend=backend, progress=say)
            else:
                whole = grown(scenario, more, str(models))[0]
                with sites_away(whole, sites_in, backend, address, departed=family.departed) as away:
                    family = extend_afar(family, more, str(models), away, progress=say)
    if as_json:
        print_json({"folder": str(folder), **state(family)})
    else:
        say_family(family)
    say_inherited(family, known)
    say_notes(doubts(family, [m for m in family.heads if m not in known]))


@app.command("import")
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


@app.command()
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
        store.say_requests(family, as_json)
    elif as_json:
        print_json(state(family))
    else:
        say_family(family, whole)


@app.command()
def plan(
    folder: Folder,
    requests: Named = None,
    classes: Classes = "",
    samples: Samples = "",
    sites: Sites = "",
    since: Since = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """What a request would touch and why. Changes nothing."""
    family = opened(folder)
    scenario = of_family(family)
    asked = _request(scenario, classes, samples, sites, since, requests or (), family=family)
    whole = discover(family.lineage, asked)
    found = remaining(family, whole).plan
    check_samples(scenario, family.folder, asked)
    say_alike(family, asked)
    say_unreached(family, asked)
    say_notes(filter(None, [cut(family)]))
    price, left = cost(family, found), {h.name for h in found.heirs}
    done = [h.name for h in whole.heirs if h.name not in left]
    if as_json:
        print_json({**found.to_json(), "done": done, "cost": price})
    else:
        say_plan(found, price, done)


@app.command()
def unlearn(
    folder: Folder,
    requests: Named = None,
    classes: Classes = "",
    samples: Samples = "",
    sites: Sites = "",
    since: Since = None,
    method: MethodName = "fiun",
    settings: Settings = None,
    no_reference: Annotated[bool, typer.Option("--no-reference", help="do not retrain a family to compare with")] = False,
    atomic: Annotated[bool, typer.Option("--atomic", help="hold back all models when one is held back")] = False,
    accept_untested: Annotated[str | None, typer.Option(help="commit what could not be tested, for this reason")] = None,
    score_at_roots: AtRoots = False,
    reason: Reason = None,
    case: Annotated[str, typer.Option(help="name of the case, where the scenario has none; else made of what is asked")] = "",
    received: Annotated[str | None, typer.Option(help="date that it came in; by default today")] = None,
    due: Annotated[str | None, typer.Option(help="date by which it must be done")] = None,
    precision: Annotated[str, typer.Option(help="of evidence on its way: float64, float32 or bfloat16")] = "float64",
    quorum: Annotated[float, typer.Option(help="least share of the places that must be online; the others' heirs wait")] = 1.0,
    skip_offline: Annotated[bool, typer.Option("--skip-offline", help="go on with whoever is online: --quorum 0")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="finish what was left waiting for a place to be online")] = False,
    backend: Carrier = "in-process",
    address: Address = None,
    sites_in: OwnSites = None,
    federation: Federation = None,
    by: By = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make every heir of some data forget it."""
    quorum, named = 0.0 if skip_offline else quorum, bool(classes or samples or sites or since or requests)
    if resume:
        said = {"what to forget": named, "--method": method != "fiun", "--set": settings, "--atomic": atomic, "--due": due}
        said |= {"--case": case, "--received": received}
        said |= {"--accept-untested": accept_untested, "--score-at-roots": score_at_roots, "--reason": reason}
        if wrong := [what for what, given in (said | {"--precision": precision != "float64"}).items() if given]:
            raise InputError(f"--resume with {', '.join(wrong)}: stands alone; what it goes on with is in the ledger")
    if flower.asked(backend, federation):
        request_ = {"classes": classes, "samples": samples, "sites": sites, "since": since, "due": due}
        request_ |= {"request": ",".join(requests or ()), "case": case, "received": received}
        how = {"method": method, "settings": _pairs(settings), "reference": not no_reference, "atomic": atomic}
        how |= {"accept_untested": accept_untested, "reason": reason, "quorum": quorum, "precision": precision}
        how |= {"score_at_roots": score_at_roots, "resume": resume}
        record = flower.unlearn(folder, federation, {**request_, **how})
    elif resume:
        family = opened(folder)
        with progress() as say, backend_of(family, backend, address, sites_in) as carrier:
            record = go_on(family, carrier, reference=not no_reference, quorum=quorum, progress=say)
    else:
        family = opened(folder)
        asked = _request(of_family(family), classes, samples, sites, since, requests or (), due, received, case, family)
        chosen = make(method, _pairs(settings))
        say_alike(family, asked)
        say_unreached(family, asked)
        with progress() as say, backend_of(family, backend, address, sites_in) as carrier:
            record = forget(
                family, asked, chosen, carrier, reference=not no_reference, score_at_roots=score_at_roots, progress=say,
                atomic=atomic, accept_untested=accept_untested, reason=reason, quorum=quorum, precision=precision,
            )  # fmt: skip
    after = Family.open(folder)
    if as_json:
        print_json({**record.to_json(), "behind": list(behind(after))})
    else:
        say_record(record)
        say_late(after)
    raise typer.Exit(0 if record.accepted else 1)


@app.command()
def rollback(
    folder: Folder,
    lift: Annotated[
        bool | None,
        typer.Option("--lift-exclusion/--keep-exclusion", help="may the forgotten data be trained on again? asked, or kept"),
    ] = None,
    request: Annotated[str | None, typer.Option("--request", help="its id, so that no other is undone by mistake")] = None,
    reason: Reason = None,
    backend: Carrier = "in-process",
    address: Address = None,
    sites_in: OwnSites = None,
    federation: Federation = None,
    by: By = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Back to the versions before the last unlearning in force, by one more ledger line."""
    family = opened(folder)
    with flower.as_of_copy(folder, backend):
        undone = undoable(family, request)
    if lift is None:
        lift = sys.stdin.isatty() and typer.confirm(f"May the data of request {undone.body['request']} be trained on again?")
    if flower.asked(backend, federation):
        family, line = flower.rollback(folder, federation, lift, reason)
    else:
        with backend_of(family, backend, address, sites_in) as carrier:
            line = roll_back(family, carrier, lift_exclusion=lift, reason=reason, request=request)
    still = still_excluded(family, undone)
    if as_json:
        body = {"line": line.number, "undoes": undone.number, "heads": dict(line.body["heads"]), "lifted": lift}
        print_json(body | {"still_excluded_by": list(still)})
        return
    say_family(family)
    kept = "still may not be trained on"
    if lift:
        kept = "may be trained on again" + (f", but for what {' and '.join(still)} exclude as well" if still else "")
    out.print(f"\nrolled back request {undone.body['request']}; its data {kept}", markup=False)


@app.command()
def export(
    folder: Folder,
    model: Annotated[str, typer.Argument(help="name of a model")],
    file: Annotated[Path, typer.Argument(help="where to write: a safetensors file")],
    version: Annotated[str | None, typer.Option(help="another version than the current one, for example a candidate")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace the file if it exists")] = False,
    as_json: Json = False,
) -> None:
    """Write a model's weights for serving; plain safetensors and torch read them."""
    family = opened(folder)
    refuse_cut(family)
    node = family.lineage[model]
    heads = family.heads
    if model not in heads:
        raise InputError(f"model {model!r} is retired: its weights are gone; kept are: {', '.join(heads)}")
    held = family.store(node.home)
    name = heads[model]
    if version is not None:
        given = {v for x in family.ledger.lines for k in ("heads", "pending") if (v := x.body.get(k, {}).get(model))}
        fits = [v for v in given if v.startswith(version)]
        if len(fits) != 1:
            raise unknown(f"version of {model}", version, (v[:12] for v in given))
        name = fits[0]
    if (by := sealed_away(family).get(name)) is not None:
        raise InputError(
            f"{model} {name[:12]}: erased; ledger line {by.number} sealed it, so it is not given out, even where a file of it "
            f"is (still or again) there: fedunlearn fsck tells, fedunlearn settle and gc erase it"
        )
    if name not in held.versions() and node.home not in store.here(folder):
        raise InputError(
            f"{model}: its weights are not in {folder} but at its home {node.home!r}; there: fedunlearn site export "
            f"site.yaml {model} FILE, or for the coordinator's own this command with the family's folder there"
        )
    export_weights(held, model, name, file, force, as_json)


@app.command("settle")
def settle_(
    folder: Folder,
    backend: Carrier = "in-process",
    address: Address = None,
    sites_in: OwnSites = None,
    federation: Federation = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Bring every place in line with the ledger, after a place or a command failed half-way."""
    family = opened(folder)
    if flower.asked(backend, federation):
        family = flower.settle(folder, federation)
    else:
        with backend_of(family, backend, address, sites_in) as carrier:
            catch_up(family, carrier)
    number = family.ledger.lines[-1].number
    if as_json:
        print_json({"line": number, "places": list(family.places)})
    else:
        out.print(f"every place holds ledger line {number}")


@app.command()
def bank(
    folder: Folder,
    backend: Carrier = "in-process",
    address: Address = None,
    sites_in: OwnSites = None,
    federation: Federation = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Measure importances by class ahead of any request, so that the evidence of class requests reads no data."""
    family = opened(folder)
    if flower.asked(backend, federation):
        read = flower.bank(folder, federation)
    else:
        with progress() as say, backend_of(family, backend, address, sites_in) as carrier:
            read = run_bank(family, carrier, progress=say)
    if as_json:
        print_json({"rows_read": read})
    else:
        out.print(f"banked; {read} rows read")


@app.command()
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
    chosen = make(method, _pairs(settings))  # what is wrong is said before anything is trained
    folder = folder or _fresh(Path("runs") / "demo")
    asked = _request(scenario, classes)
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


def _program() -> str:
    """What to type to run this program again."""
    here = Path(sys.argv[0])
    if here.name == "__main__.py":
        return "python -m fedunlearn"
    if shutil.which(here.name) or not here.exists():
        return here.name
    return str(here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here)


def _pairs(settings: list[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in settings or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text}: expected key=value, for example --set alpha=auto")
        if key in pairs:
            raise InputError(f"--set {text}: {key} is {pairs[key]!r} already; give it once")
        pairs[key] = value
    return pairs


def _fresh(folder: Path) -> Path:
    names = [folder, *(folder.with_name(f"{folder.name}-{i}") for i in range(2, 10_000))]
    return next(f for f in names if not f.exists())
