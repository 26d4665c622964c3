"""A family, a plan and a record, drawn for a terminal."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from fedunlearn.errors import few
from fedunlearn.lineage import Lineage, Model, Plan, alike, chained

MOST_POINTS = 6  # evidence points of one heir that are listed
NETS = ("before", "after", "mask")
MARKS = {"absent": "must be absent", "as_retrained": "as a retrained model", "not_expressible": "no output for it"}


def lineage_tree(
    lineage: Lineage, versions: Mapping[str, str], notes: Mapping[str, str], *, whole: bool = False
) -> tuple[Tree, list[str]]:
    """Kept models under their kept parents; retired ones are counted. A model with several parents hangs under the last.

    Args:
        lineage: the family.
        versions: current version of each kept model.
        notes: a remark on a model, for example "pending".
        whole: draw every kept model; by default, many alike (a star of transfers, checkpoints of rounds) share a line.

    Returns:
        The tree, and a line for each group that was folded.
    """
    tree = Tree("[bold]lineage[/bold]  (older above; + also descends from)")
    nodes: dict[str, Tree] = {}
    kept = [m for m in lineage.models if m.kept]
    parents = {m.name: lineage.kept_parents(m.name) for m in kept}
    retired = Counter(m.name.split("/", 1)[0] for m in lineage.models if not m.kept)
    marks = {name: name for name in notes}  # what has a note is drawn by itself
    groups = [] if whole else alike(kept, parents, marks)
    folded = {m.name: group for group in groups for m in group}
    chains = set() if whole else chained(kept, parents, marks)
    for model in kept:
        if (model.name in folded and folded[model.name][0] is not model) or model.name in chains:
            if model.name in chains:
                nodes[model.name] = nodes[parents[model.name][-1]]
            continue
        group = folded.get(model.name, [model])
        nodes[model.name] = (nodes[parents[model.name][-1]] if parents[model.name] else tree).add(
            _line(lineage, group, parents[model.name], retired, versions, notes)
        )
    said = [f"{g[0].name} ... {g[-1].name}: {len(g)} models on one line" for g in groups]
    if chains:
        said.append(f"{len(chains)} models in the middle of chains left out")
    return tree, said


def _line(
    lineage: Lineage,
    group: Sequence[Model],
    parents: Sequence[str],
    retired: Counter[str],
    versions: Mapping[str, str],
    notes: Mapping[str, str],
) -> str:
    model = group[0]
    own = sorted({s.site for m in group for s in lineage.own(m.name)})
    homes = sorted({m.home for m in group})
    name = model.name if len(group) == 1 else f"{model.name} ... {group[-1].name}"
    text = f"[bold]{escape(name)}[/bold]  {model.birth} @ {escape(few(homes))}, data of {escape(few(own) or 'nobody')}"
    if len(group) > 1:
        return f"{text}  [dim]{len(group)} models alike[/dim]"
    if retired[model.name]:
        text += f", {retired[model.name]} models on the way"
    text += f"  [cyan]{versions.get(model.name, '')[:12]}[/cyan]"
    replaced = [p for p, v in model.started.items() if versions.get(p) != v]
    if replaced:
        text += f"  [dim]started from {escape(', '.join(f'{p} {model.started[p][:12]}' for p in replaced))}[/dim]"
    if len(parents) > 1:
        text += f"  [dim]+ {escape(', '.join(parents[:-1]))}[/dim]"
    if model.name in notes:
        text += f"  [yellow]{escape(notes[model.name])}[/yellow]"
    return text


def plan_table(plan: Plan) -> Table:
    """Every heir: what it should look like after, and where its evidence comes from."""
    table = Table(title=f"plan: forget {escape(plan.request.words())}", title_justify="left")
    for column in ("model", "home", "target", "trained on it itself", "evidence from", "weighed by", "tested"):
        table.add_column(column)
    roots = frozenset(plan.roots)
    for h in plan.heirs:
        tested = "-" if h.target == "not_expressible" else "yes" if h.tested else "[red]no[/red]"
        lines = [f"{p.model} @ {p.shard}" + (" (other net)" if p.model in h.foreign else "") for p in h.points[:MOST_POINTS]]
        more = [f"... ({len(h.points)} in all)"] if len(h.points) > MOST_POINTS else []
        points = "\n".join([*lines, *more])
        table.add_row(
            h.name,
            h.home,
            MARKS[h.target],
            "yes" if h.name in roots else "no: averages or inherits it" if h.holds_class else "no: inherits it",
            points or "[red]none[/red]",
            few([s.site for s in h.own]),
            tested,
        )
    return table


def record_table(models: list[Mapping[str, Any]]) -> Table:
    """Before and after on held-out rows, beside the logit mask and the retrained model."""
    rows = "test rows that nobody trained on"
    if any(m["forgotten_on"] == "training" for m in models):
        rows = "forgotten: the forgotten training rows themselves; the rest: " + rows
    table = Table(title=f"on {rows}, in %", title_justify="left")
    table.add_column("model")
    table.add_column("target")
    for column in ("forgotten\nbefore", "\nafter", "\nretrained", "the rest\nbefore", "\nafter", "\nmask", "\nretrained"):
        table.add_column(column, justify="right")
    table.add_column("outcome")
    for m in models:
        shown = [
            m[k]
            for k in (
                "forgotten_before",
                "forgotten_after",
                "retrained_forgotten",
                "retained_before",
                "retained_after",
                "mask_retained",
                "retrained_retained",
            )
        ]
        colour = {"committed": "green", "pending": "red"}.get(m["status"], "yellow")
        table.add_row(m["name"], m["target"], *map(percent, shown), f"[{colour}]{m['status']}[/{colour}]")
    return table


def closeness_table(models: Sequence[Mapping[str, Any]]) -> Table | None:
    """Quick metrics of each edited model that has a retrained one to be compared with; None where none has."""
    table = Table(title="beside a retrained model: before -> after (logit mask)", title_justify="left")
    for column in ("model", "ToW, 1: alike", "KL on the rest, nats", "same answers on the rest, in %"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for m in models:
        found = m["evaluation"].get("quick", {}).get("metrics", {})
        if "tow" in found:
            rest = (found[name].get("test") for name in ("kl_to_retrained", "completeness"))
            table.add_row(m["name"], *(_change(of, i == 2) for i, of in enumerate((found["tow"], *rest))))
    return table if table.row_count else None


def _change(of: Mapping[str, Any] | None, share: bool) -> str:
    """What an edit made of a number, beside what the mask makes of it; a dash where there is no row."""
    if of is None:
        return "-"
    before, after, mask = ((percent(v) if share else f"{v:.3f}") if v is not None else "-" for v in map(of.get, NETS))
    return f"{before} -> {after} ({mask})"


def percent(fraction: float | None) -> str:
    """A fraction in percent; a dash where it was not tested."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"
