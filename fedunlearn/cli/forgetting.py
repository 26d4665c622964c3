"""What a request would touch, making every heir forget, taking that back, and ending the time in which it can be taken back."""

import sys
from typing import Annotated

import typer

from fedunlearn.cli import flower
from fedunlearn.cli.console import confirm, out, print_json, progress
from fedunlearn.cli.options import (
    AtRoots,
    By,
    Classes,
    Data,
    Folder,
    Json,
    MethodName,
    Named,
    Reason,
    Samples,
    Settings,
    Since,
    Sites,
    Yes,
    pairs,
)
from fedunlearn.cli.say import opened, say_alike, say_family, say_late, say_notes, say_plan, say_record, say_unreached
from fedunlearn.cli.state import cost
from fedunlearn.cli.where import HERE, Where, placed
from fedunlearn.errors import InputError
from fedunlearn.lineage import discover
from fedunlearn.methods import make
from fedunlearn.runtime import (
    Family,
    behind,
    changed_by,
    cut,
    owed,
    remaining,
    rollback as roll_back,
    seal as run_seal,
    sealable,
    still_excluded,
    still_there,
    undoable,
)
from fedunlearn.scenario import check_samples, forget, go_on, of_family, request_of
from fedunlearn.scenario.requests import named_in


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
    asked = request_of(scenario, classes, samples, sites, since, requests or (), family=family)
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


@placed
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
    where: Where = HERE,
    by: By = None,
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
    if where.in_flower:
        request_ = {"classes": classes, "samples": samples, "sites": sites, "since": since, "due": due}
        request_ |= {"request": ",".join(requests or ()), "case": case, "received": received}
        how = {"method": method, "settings": pairs(settings), "reference": not no_reference, "atomic": atomic}
        how |= {"accept_untested": accept_untested, "reason": reason, "quorum": quorum, "precision": precision}
        how |= {"score_at_roots": score_at_roots, "resume": resume}
        record = flower.unlearn(folder, where.federation, {**request_, **how})
    elif resume:
        family = opened(folder)
        with progress() as say, where.reach(family) as carrier:
            record = go_on(family, carrier, reference=not no_reference, quorum=quorum, progress=say)
    else:
        family = opened(folder)
        asked = request_of(of_family(family), classes, samples, sites, since, requests or (), due, received, case, family)
        chosen = make(method, pairs(settings))
        say_alike(family, asked)
        say_unreached(family, asked)
        with progress() as say, where.reach(family) as carrier:
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


@placed
def rollback(
    folder: Folder,
    lift: Annotated[
        bool | None,
        typer.Option("--lift-exclusion/--keep-exclusion", help="may the forgotten data be trained on again? asked, or kept"),
    ] = None,
    request: Annotated[str | None, typer.Option("--request", help="its id, so that no other is undone by mistake")] = None,
    reason: Reason = None,
    where: Where = HERE,
    by: By = None,
    as_json: Json = False,
) -> None:
    """Back to the versions before the last unlearning in force, by one more ledger line."""
    family = opened(folder)
    with flower.as_of_copy(folder, where.backend):
        undone = undoable(family, request, named_in(of_family(family)))
    if lift is None:
        lift = sys.stdin.isatty() and typer.confirm(f"May the data of request {undone.body['request']} be trained on again?")
    if where.in_flower:
        family, line = flower.rollback(folder, where.federation, lift, reason)
    else:
        with where.reach(family) as carrier:
            line = roll_back(family, carrier, lift_exclusion=lift, reason=reason, request=undone.body["request"])
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


@placed
def seal(
    folder: Folder,
    request: Annotated[str | None, typer.Option("--request", help="its id; all in force by default")] = None,
    yes: Yes = False,
    reason: Reason = None,
    where: Where = HERE,
    by: By = None,
    as_json: Json = False,
) -> None:
    """End the rollback window: erase old versions, and what was banked of what is forgotten, for good."""
    family = Family.open(folder)
    with flower.as_of_copy(folder, where.backend):
        named = named_in(of_family(family))
        lines = sealable(family, request, named)
    requests = changed_by(*lines)
    words = f"{', '.join(requests)}: old versions and banked importances are erased for good; no rollback is possible any more"
    confirm(words, yes)
    if where.in_flower:
        family, line = flower.seal(folder, where.federation, request, reason)
    else:
        with where.reach(family) as carrier:
            line = run_seal(family, carrier, request, reason=reason, named=named)
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
