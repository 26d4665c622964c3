"""Which version of which model some weights are: told by the tensors, whatever their file is called or says of itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fedunlearn.plain import digest
from fedunlearn.runtime.books.family import Family
from fedunlearn.runtime.books.keeping import pending, sealed_away
from fedunlearn.store import Line
from fedunlearn.store.hashing import content_of, names_of
from fedunlearn.tensors import Head, Tensors


@dataclass(frozen=True)
class Origin:
    """A version that the ledger names.

    Args:
        model: whose it is.
        version: its name.
        line: the ledger line that named it first.
        state: "current", "held back" by the gate, "superseded" by another version, "sealed" (it knew what a sealed request had
            forgotten, and is erased since), "lost" with the model's home, or "overtaken": a candidate that never came into
            force.
        by: the ledger line that made it so, where another did than `line`.
    """

    model: str
    version: str
    line: int
    state: str
    by: int | None = None


def origins(family: Family, weights: Tensors) -> list[Origin]:
    """All that some weights are in a family; nothing where they are no version of it.

    No store is read: of a version that has been erased, the ledger still has the name.

    Args:
        family: the family.
        weights: parameters and buffers, by name.

    Raises:
        ShapeError: a weight is NaN or infinite, as no version's is.
    """
    names = set(_names(family, weights))
    first: dict[tuple[str, str], Line] = {}
    for line in family.ledger.lines:
        for what in ("heads", "pending"):
            for model, version in line.body.get(what, {}).items():
                if version in names:
                    first.setdefault((model, version), line)
    return [_origin(family, model, version, line) for (model, version), line in first.items()]


def _names(family: Family, weights: Tensors) -> Iterator[str]:
    """What a version of these weights may be called: under the head and the net of each model, in each layer that fits."""
    hashes = names_of(weights)
    rows = {n.removesuffix(".weight"): t.shape[0] for n, t in weights.items() if n.endswith(".weight") and t.dim() == 2}
    for classes, net in {(model.head, model.net) for model in family.whole_lineage.models}:
        for layer in (layer for layer, n in rows.items() if n == len(classes)):
            yield digest(content_of(hashes, Head(layer, classes), net))


def _origin(family: Family, model: str, version: str, first: Line) -> Origin:
    state, by = _state(family, model, version)
    return Origin(model, version, first.number, state, by)


def _state(family: Family, model: str, version: str) -> tuple[str, int | None]:
    """What has become of a version, and by which line."""
    ledger, gone = family.ledger, sealed_away(family)
    if family.heads.get(model) == version:
        return "current", None
    if version in gone and version in _knowing(family, model, gone[version]):
        return "sealed", gone[version].number
    if pending(family).get(model) == version:
        return "held back", None
    if model in family.lost and ledger.heads()[model] == version:
        return "lost", family.departed[family.whole_lineage[model].home].number
    heads = [(line.number, line.body["heads"][model]) for line in ledger.lines if model in line.body.get("heads", {})]
    after = _after(heads, version)
    return ("overtaken" if after is None else "superseded"), after


def _knowing(family: Family, model: str, seal: Line) -> set[str]:
    """Versions of a model that were in force before what a ledger line sealed had changed it."""
    ledger = family.ledger
    lines = [n for n, by in ledger.sealed.items() if by.number == seal.number and model in ledger.lines[n].body["heads"]]
    return {v for line in ledger.lines[: min(lines, default=0)] if (v := line.body.get("heads", {}).get(model))}


def _after(heads: list[tuple[int, str]], version: str) -> int | None:
    """The line that put another version in its place, the last time; None where it was never current."""
    was = [i for i, (_, name) in enumerate(heads) if name == version]
    return heads[was[-1] + 1][0] if was else None


STATES: Mapping[str, str] = {
    "current": "current",
    "held back": "held back by the gate; not in force",
    "overtaken": "a candidate that never came into force",
    "superseded": "superseded by ledger line {by}",
    "sealed": "given up when ledger line {by} sealed it: it knows what was to be forgotten",
    "lost": "lost with its home, which departed (ledger line {by})",
}
"""What each state is, in words."""
