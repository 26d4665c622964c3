"""A family, a plan and a record, drawn for a terminal."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from fedunlearn.lineage import Lineage, Plan

MARKS = {"absent": "must be absent", "as_retrained": "as a retrained model", "not_expressible": "no output for it"}


def lineage_tree(lineage: Lineage, versions: Mapping[str, str], notes: Mapping[str, str]) -> Tree:
    """Kept models under their kept parents; retired ones are counted. A model with several parents hangs under the last.

    Args:
        lineage: the family.
        versions: current version of each kept model.
        notes: a remark on a model, for example "pending".
    """
    tree = Tree("[bold]lineage[/bold]  (older above; + also descends from)")
    nodes: dict[str, Tree] = {}
    retired = Counter(m.name.split("/", 1)[0] for m in lineage.models if not m.kept)
    for model in (m for m in lineage.models if m.kept):
        parents = lineage.kept_parents(model.name)
        own = ", ".join(sorted({s.site for s in lineage.own(model.name)}))
        text = f"[bold]{escape(model.name)}[/bold]  {model.born} @ {escape(model.home)}, data of {escape(own or 'nobody')}"
        if retired[model.name]:
            text += f", {retired[model.name]} models on the way"
        text += f"  [cyan]{versions.get(model.name, '')[:12]}[/cyan]"
        if len(parents) > 1:
            text += f"  [dim]+ {escape(', '.join(parents[:-1]))}[/dim]"
        if model.name in notes:
            text += f"  [yellow]{escape(notes[model.name])}[/yellow]"
        nodes[model.name] = (nodes[parents[-1]] if parents else tree).add(text)
    return tree


def plan_table(plan: Plan) -> Table:
    """Every heir: what it should look like after, and where its evidence comes from."""
    table = Table(title=f"plan: forget {escape(plan.request.words())}", title_justify="left")
    for column in ("model", "home", "target", "trained on it itself", "evidence from", "weighed by", "tested"):
        table.add_column(column)
    for h in plan.heirs:
        tested = "-" if h.target == "not_expressible" else "yes" if h.tested else "[red]no[/red]"
        points = "\n".join(f"{p.model} @ {p.shard}" for p in h.points)
        table.add_row(
            h.name,
            h.home,
            MARKS[h.target],
            "yes" if h.holds_class else "no: inherits it",
            points or "[red]none[/red]",
            ", ".join(s.site for s in h.own),
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


def percent(fraction: float | None) -> str:
    """A fraction in percent; a dash where it was not tested."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"
