"""Why a model was, or was not, part of a request: where the data entered, and on which way it came."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from fedunlearn.lineage import Lineage, Request


def reasons(lineage: Lineage, facts: Mapping[str, Any], resumes: int | None) -> dict[str, str]:
    """A sentence for every kept model.

    Args:
        lineage: the family as it was at the ledger line.
        facts: the record's.
        resumes: the ledger line that this one goes on with, if any.
    """
    plan, words = facts["plan"], Request.from_json(facts["request"]).words()
    affected, rows = set(plan["affected"]), {row["name"]: row for row in facts["models"]}
    through = _through(lineage, plan["roots"], affected)
    entered = {name: _few(sorted({s.site for s in lineage[name].data})) for name in plan["roots"]}
    found = {}
    for model in (m for m in lineage.models if m.kept):
        if model.name in rows:
            found[model.name] = _reached(model.name, through, entered, rows[model.name]["holds_class"], words)
        elif model.name in affected:
            where = f"line {resumes}" if resumes is not None else "another line"
            found[model.name] = f"The request reached it, but this ledger line is not about it: see {where}."
        elif not model.parents and not model.data:
            found[model.name] = "The lineage knows no data and no parent of it; if it has any, it cannot know that."
        else:
            found[model.name] = f"Neither it nor any ancestor was trained on {words}, as far as the lineage knows."
    return found


def _reached(
    name: str, through: Mapping[str, tuple[str | None, str]], entered: Mapping[str, str], holds: bool, words: str
) -> str:
    before, root = through[name]
    if name in entered:
        return f"It was trained on {words} itself, at {entered[name]}."
    first = f"{words} entered {root} (data of {entered[root]})"
    if before is None:
        return f"{'It averages models that were trained on it' if holds else 'It descends from models on the way'}: {first}."
    inherited = "" if holds else " It was not trained on any of it itself."
    return f"It inherits it through {before}: {first}.{inherited}"


def _through(lineage: Lineage, roots: Iterable[str], affected: set[str]) -> dict[str, tuple[str | None, str]]:
    """For every affected model on a shortest way from a root: the last kept model before it, if any, and the root."""
    found: dict[str, tuple[str | None, str]] = {root: (None, root) for root in roots}
    queue = deque(found)
    while queue:
        name = queue.popleft()
        before, root = found[name]
        for child in lineage.graph.adj[name]:
            if child in affected and child not in found:
                found[child] = (name if lineage[name].kept else before, root)
                queue.append(child)
    return found


def _few(names: list[str], most: int = 4) -> str:
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
