"""What is printed for people."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.markup import escape

from fedunlearn.cli.console import err, out
from fedunlearn.cli.draw import closeness_table, lineage_tree, plan_table, record_table
from fedunlearn.cli.state import due, waiting_for
from fedunlearn.errors import few
from fedunlearn.lineage import NOT_EXPRESSIBLE, Plan, Request, discover, unaccounted
from fedunlearn.runtime import Family, Record, behind, cut, owed, pending
from fedunlearn.runtime.books.cases import PLANNED, UNDONE, cases
from fedunlearn.runtime.books.evaluations import counted
from fedunlearn.runtime.books.record import COMMITTED, PENDING, UNTOUCHED
from fedunlearn.scores import KNOWN

SHOWN = 20  # names in one sentence; --json has them all


def opened(folder: Path) -> Family:
    """A family, with a note where its folder is not as it was left."""
    family = Family.open(folder)
    if family.ledger.torn:
        err.print(
            f"[yellow]note:[/yellow] {escape(str(family.ledger.path))}: the last line is torn (a command was cut off "
            f"while writing it); it was never committed and is passed over"
        )
    if lost := family.unregistered:
        err.print(
            f"[yellow]note:[/yellow] {escape(str(folder))}: the register of {escape(', '.join(lost))} is lost; rows are called "
            f"and held out as they stand now, which is right only if none has come, gone or moved since models were trained: "
            f"restore it from a backup (fedunlearn fsck names the file)"
        )
    return family


def say_plan(found: Plan, cost: dict[str, Any], done: Sequence[str] = ()) -> None:
    """A plan, what it would cost, and heirs that an earlier line has changed for it or for more."""
    if not found.heirs and done:
        out.print(
            f"nothing is left to do: {few(done, SHOWN)} forgot {found.request.words()} with a wider request", markup=False
        )
        return
    if not found.heirs:
        out.print(f"nothing to forget: no model was trained on {found.request.words()}", markup=False)
        return
    out.print()
    out.print(plan_table(found))
    seconds = "" if cost["seconds"] is None else f", about {cost['seconds']} s of measuring"
    out.print(
        f"{len(found.affected)} models affected, {len(found.heirs) + len(done)} of them kept; {cost['rows']} rows to read, "
        f"{cost['bytes'] / 1e6:.1f} MB of evidence to send{seconds}",
        markup=False,
    )
    if done:
        out.print(f"not edited again, as an earlier line has done it: {few(done, SHOWN)}", markup=False)
    for one in found.request.merges:
        out.print(f"{one.id}: {one.words()}: reaches {few(found.of_case(one.id), SHOWN)}", markup=False)
    if found.untested:
        out.print(f"cannot be tested: {few(found.untested, SHOWN)}", markup=False)
    for sites in dict.fromkeys(found.unopposed.values()):
        heirs = ", ".join(name for name, voters in found.unopposed.items() if voters == sites)
        what = "is taken at its word" if len(sites) == 1 else "cannot be told apart if they disagree"
        out.print(f"only {' and '.join(sites)} can measure it for {heirs}, and {what}: no merge outvotes a lie", markup=False)


def say_notes(texts: Iterable[str]) -> None:
    """What people should know, though nothing is refused for it."""
    for text in texts:
        err.print(f"note: {text}", markup=False)


def say_alike(family: Family, request: Request) -> None:
    """Models with the very weights of an heir, which the lineage does not connect with it."""
    heads = family.heads
    if len({*heads.values()}) == len(heads):  # planning takes long in large lineages
        return
    found = discover(family.lineage, request)
    reached = {*found.affected}
    same = {heads[heir.name]: heir.name for heir in found.heirs}
    say_notes(
        f"{model} has the very weights of {heir}, which this request reaches, and by the lineage comes from no model that it "
        f"reaches: say there where it comes from, or it keeps what is to be forgotten"
        for model in (m.name for m in family.lineage.models if m.kept and m.name not in reached)
        if (heir := same.get(heads.get(model, ""))) is not None
    )


def say_unreached(family: Family, request: Request) -> None:
    """Models that a request may be about, and does not reach."""
    if not any(m.imported for m in family.lineage.models):
        return
    affected = {*discover(family.lineage, request).affected}
    say_notes(
        f"{name} has an output for what {request.id} asks to forget, and no recorded row taught it, so that this request does "
        f"not reach it: say whose rows did (`site:`), and import it anew"
        for name in unaccounted(family.lineage, request, affected)
    )


def say_late(family: Family) -> None:
    """Places that have yet to hear of the last ledger line, and go on as before it: with rows that are excluded, say."""
    if words := cut(family):
        out.print(words, markup=False)
    elif late := behind(family):
        out.print(f"not yet at {few(late, SHOWN)}: run fedunlearn settle", markup=False)
    if late := owed(family):
        out.print(f"sealed, but not yet erased at {few(late, SHOWN)}: run fedunlearn settle", markup=False)


def say_record(record: Record) -> None:
    """What was done and what it did."""
    if record.nothing:
        words, within = Request.from_json(record.facts["request"]).words(), record.facts.get("within", ())
        if within:
            out.print(
                f"nothing is left to do: every model that was trained on {words} forgot it with a wider request (ledger line "
                f"{', '.join(map(str, within))}); that this one asked for it, too, is in the ledger now",
                markup=False,
            )
            return
        out.print(f"nothing to forget: no kept model was trained on {words}", markup=False)
        return
    out.print()
    out.print(record_table(record.facts["models"]))
    if (closeness := closeness_table(record.facts["models"])) is not None:
        out.print(closeness)
    for objection in record.facts["objections"]:
        out.print(f"held back: {objection['model']}: {objection['text']}", markup=False)
    for site, guard in record.facts["guarded"].items():
        out.print(
            f"{site} counted no row's gradient for more than {guard['clip']:g}, and added noise {guard['noise']:g}",
            markup=False,
        )
    for place, code in record.facts.get("codes", {}).items():
        out.print(f"{place} works with other code: {', '.join(f'{k} {v}' for k, v in code.items())}", markup=False)
    committed = [m for m in record.facts["models"] if m["status"] == COMMITTED and m["forgotten_before"] is not None]
    if record.facts["request"]["classes"] and (little := [m["name"] for m in committed if m["forgotten_before"] < KNOWN]):
        out.print(f"recognised less than half of it before, so that it shows little now: {few(little, SHOWN)}", markup=False)
    if spent := record.facts.get("spent"):
        out.print(
            f"evidence was measured on {', '.join(spent)} as they are since they forgot, and may show little: how they were "
            f"before is sealed",
            markup=False,
        )
    verdict = "every heir was accepted" if record.accepted else "not every heir was accepted; their old versions stay in force"
    out.print(f"{verdict}; {record.cost['seconds']} s, {record.cost['bytes_up'] / 1e6:.2f} MB of evidence", markup=False)
    if not record.accepted:
        out.print(f"what was tried is kept: look at it with fedunlearn report{_hint(record)}", markup=False)


def _hint(record: Record) -> str:
    """Which method may do what this one did not."""
    models, method, objections = record.facts["models"], record.facts["method"], record.facts["objections"]
    texts, untouched = [o["text"] for o in objections], {m["name"] for m in models if m["status"] == UNTOUCHED}
    if unscored := {o["model"] for o in objections if o["text"].startswith("not tested: no row")}:
        without = ", `--accept-untested REASON` does without" if unscored - untouched else ""  # where there is an edit
        return f"; `--score-at-roots` has sites that hold the data score it{without}"
    if all(text.startswith("not tested: there is no retrained model") for text in texts):
        return "; without `--no-reference` there is one to compare with, `--accept-untested REASON` does without"
    scored = any(not text.startswith("not tested") for text in texts)
    if method != "steer" and scored and any(m["status"] == PENDING and m["forgotten_after"] is not None for m in models):
        return "; `--method steer` often forgets at less cost where another method does not"
    if method != "fiun" and any(m["status"] == UNTOUCHED and m["target"] == NOT_EXPRESSIBLE for m in models):
        return "; `--method fiun` (on all layers, as it does by itself) also edits models that have no output for the class"
    return ""


def _limits(body: Mapping[str, Any]) -> str:
    """The gate's, as an extension left them."""
    return ", ".join(f"{name} {value}" for name, value in body.get("gate", {}).items() if value)


def say_inherited(family: Family, known: Collection[str]) -> None:
    """Which further models hold what a request asked to forget: from those they started from, or from where they come."""
    for case in cases(family):
        if case.state in (PLANNED, UNDONE):
            continue
        born = sorted({*case.left} - {*known})
        for imported, how in _HOLDING.items():
            if names := [name for name in born if family.lineage[name].imported is imported]:
                told = how.format(case.request.id, case.request.words())
                err.print(f"{', '.join(names)}: {told}: ask again, and all are reached", markup=False)


_HOLDING = {
    True: "trained elsewhere on what {} asked to forget ({}), and hold it",
    False: "started from models that still hold what {} asked to forget ({}), and hold it, too",
}


def _done(kind: str, body: Mapping[str, Any]) -> str:
    """What a ledger line did, in a few words."""
    match kind:
        case "trained":
            return f"{len(body['heads'])} models" if body.get("heads") else f"no model; limits: {_limits(body)}"
        case "unlearned":
            waiting = f", {len(body['waiting'])} waiting" if "waiting" in body else ""
            counts = f"{len(body['heads'])} committed, {len(body['pending'])} pending, {len(body['untouched'])} untouched"
            return f"{body['request']}: {counts}{waiting}"
        case "rolled back":
            return f"{body['request']}, line {body['undoes']}"
        case "evaluated":
            return f"{body['request']}, line {body['evaluates']}: {counted(body['results'])}"
        case "sealed":
            return ", ".join(body["requests"])
        case "departed":
            lost = f", and with it {', '.join(body['lost'])}" if body["lost"] else ""
            return f"{body['place']}{lost}"
    return ""


def say_family(family: Family, whole: bool = False) -> None:
    """The lineage, what happened so far, what is open."""
    waits = waiting_for(family)
    notes = {m: f"pending: candidate {v[:12]}" for m, v in pending(family).items()} | dict.fromkeys(waits, "pending: waits")
    tree, folded = lineage_tree(family.lineage, family.heads, notes, whole=whole)
    out.print(tree)
    for group in folded:
        out.print(f"     folded: {group} (--all shows them)", markup=False)
    for line in family.ledger.lines:
        when = datetime.fromisoformat(line.time).astimezone(UTC).strftime("%Y-%m-%d %H:%M")
        body = line.body
        out.print(f"{line.number:>3}  {when}  {line.kind}: {_done(line.kind, body)}", markup=False)
        for model, words in body.get("carried", {}).items():
            out.print(f"     {model}: {'; '.join(words)}", markup=False)
        for shard, rows in body.get("withheld", {}).items():
            out.print(f"     without {rows} rows of {shard}, which requests on other families had excluded there", markup=False)
    for one in due(family):
        out.print(f"open: {one['id']}: {one['what']}" + (f", due {one['due']}" if one["due"] else ""), markup=False)
    for model, why in waits.items():
        out.print(f"pending: {model}: {why}; then run fedunlearn unlearn {family.folder} --resume", markup=False)
    say_late(family)
