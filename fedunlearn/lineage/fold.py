"""Big families on one page: many models alike become one, long chains keep their ends."""

from collections.abc import Hashable, Mapping, Sequence

from fedunlearn.lineage.model import Model

FOLD = 6  # so many childless children of one parent, one birth and one head become one


def alike(
    kept: Sequence[Model], parents: Mapping[str, Sequence[str]], marks: Mapping[str, Hashable]
) -> list[tuple[Model, ...]]:
    """Groups of at least `FOLD` childless models with the same parents, birth, head (of transfers) and mark.

    Args:
        kept: models, in order of time.
        parents: the kept parents of each.
        marks: what else tells models apart; one that has a mark of its own is never folded.
    """
    inherited = {p for several in parents.values() for p in several}
    groups: dict[tuple[Hashable, ...], list[Model]] = {}
    for model in kept:
        if model.name not in inherited:
            head = model.head if model.born == "transfer" else ()
            groups.setdefault((tuple(parents[model.name]), model.born, head, marks.get(model.name)), []).append(model)
    return [tuple(group) for group in groups.values() if len(group) >= FOLD]


def chained(kept: Sequence[Model], parents: Mapping[str, Sequence[str]], marks: Mapping[str, Hashable]) -> set[str]:
    """Models in the middle of long chains: one kept parent, one kept child, and such neighbours on both sides."""
    children: dict[str, list[str]] = {m.name: [] for m in kept}
    for name, several in parents.items():
        for parent in several:
            children[parent].append(name)
    born = {m.name: m.born for m in kept}

    def middle(name: str) -> bool:
        return (
            len(parents[name]) == 1
            and len(children[name]) == 1
            and born[name] == born[children[name][0]] == "incremental"
            and tuple(parents[children[name][0]]) == (name,)
        )

    def same(name: str) -> bool:
        return marks.get(parents[name][0]) == marks.get(name) == marks.get(children[name][0])

    inner = {m.name for m in kept if middle(m.name)}
    return {n for n in inner if parents[n][0] in inner and children[n][0] in inner and same(n)}
