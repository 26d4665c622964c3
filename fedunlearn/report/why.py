"""Why a model was, or was not, part of a request: where the data entered, and on which way it came."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from fedunlearn.errors import few
from fedunlearn.lineage import Lineage, Request


def reasons(
    lineage: Lineage, facts: Mapping[str, Any], elsewhere: Mapping[str, int], unknown: Collection[str]
) -> dict[str, str]:
    """A sentence for every kept model.

    Args:
        lineage: the family as it was at the ledger line.
        facts: the record's.
        elsewhere: models that the request reached -> another line that is about them.
        unknown: models that it does not reach and that have an output for it, which nothing recorded has taught.
    """
    plan, request = facts["plan"], Request.from_json(facts["request"])
    words, affected, rows = request.words(), set(plan["affected"]), {row["name"]: row for row in facts["models"]}
    through = _through(lineage, plan["roots"], affected)
    at = {name: frozenset(s.site for s in lineage[name].data if request.touches(s)) for name in plan["roots"]}
    where: dict[tuple[str, ...], str] = {}  # many heirs share their sources
    found = {}
    for model in (m for m in lineage.models if m.kept):
        row = rows.get(model.name)
        if row is not None:
            sources = tuple(row["sources"])
            if sources not in where:
                sites = sorted(frozenset[str]().union(*(at[name] for name in sources)))
                where[sources] = f"{few(sources, 2)} (rows of {few(sites)})"
            if model.name in at:
                text = f"It was trained on {words} itself, with rows of {few(sorted(at[model.name]))}."
            elif through[model.name] is None:
                way = "averages" if row["holds_class"] else "descends from"
                text = f"It {way} models that were trained on {words}: {where[sources]}."
            else:
                own = "" if row["holds_class"] else " No row of it trained this model itself."
                text = f"It inherits {words} through {through[model.name]}, from {where[sources]}.{own}"
            text += _OWNER if model.imported else ""
        elif model.name in affected:
            other = f"line {elsewhere[model.name]}" if model.name in elsewhere else "another line"
            text = f"The request reached it, but this ledger line is not about it: see {other}."
        elif not model.parents and not model.data:
            text = "The lineage knows no data and no parent of it; if it has any, nobody can tell from here."
        else:
            text = f"Neither it nor any ancestor was trained on {words}, as far as the lineage knows."
        text += _UNTAUGHT if model.name in unknown else ""
        found[model.name] = text
    return found


_UNTAUGHT = " It has an output for it all the same, and nobody here knows what taught that."
_OWNER = " It came with its weights: this is what its topology says."


def _through(lineage: Lineage, roots: Iterable[str], affected: set[str]) -> dict[str, str | None]:
    """For every affected model on a shortest way from a root: the last kept model before it, if there is one."""
    found: dict[str, str | None] = dict.fromkeys(roots)
    queue = deque(found)
    while queue:
        name = queue.popleft()
        for child in lineage.graph.adj[name]:
            if child in affected and child not in found:
                found[child] = name if lineage[name].kept else found[name]
                queue.append(child)
    return found
