"""Where each model of a lineage is drawn: older on the left; what is alike is folded, so that 5,000 are some dozen boxes."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import networkx as nx

from fedunlearn.lineage import Lineage, Model, alike, chained

MOST = 120  # boxes; more are folded by column, birth and level
COLUMNS = 16  # into so many columns then
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 204, 46, 52, 16, 10  # pixels of a box and between boxes
SWEEPS = 6


def drawing(lineage: Lineage, marks: Mapping[str, Hashable]) -> dict[str, Any]:
    """Boxes and lines between them.

    Args:
        lineage: the family; only kept models are drawn, retired ones are on the lines.
        marks: what tells models apart that are alike otherwise, such as how they fared.

    Returns:
        `width` and `height`, pixels; `boxes`, each with `models` (the first names it; several were folded), `born`, `x`, `y`
        (of its upper left corner); `lines`, pairs of places in `boxes`; `within`, how many lines were lost inside boxes that
        stand for many.
    """
    kept = [m for m in lineage.models if m.kept]
    parents = {m.name: lineage.kept_parents(m.name) for m in kept}
    boxes = _fold(kept, parents, marks)
    column = _columns(boxes, parents)
    if len(boxes) > MOST:
        last = max(*column, COLUMNS)  # the first column stays by itself: what everything comes from
        bucket = {m.name: -(-c * (COLUMNS - 1) // last) for b, c in zip(boxes, column, strict=True) for m in b}
        boxes = _grouped(kept, lambda m: (bucket[m.name], m.born, marks.get(m.name)))
        column = [bucket[b[0].name] for b in boxes]
    inside = {m.name: i for i, b in enumerate(boxes) for m in b}
    pairs = {(inside[p], inside[c]) for c, several in parents.items() for p in several if inside[p] != inside[c]}
    lines = sorted((a, b) for a, b in pairs if column[a] < column[b])
    row = _rows(column, lines)
    tallest = max(row) + 1
    return {
        "width": 2 * MARGIN + (max(column) + 1) * (WIDTH + GAP_X) - GAP_X,
        "height": round(2 * MARGIN + tallest * (HEIGHT + GAP_Y) - GAP_Y),
        "boxes": [
            {
                "models": [m.name for m in b],
                "born": b[0].born,
                "x": MARGIN + column[i] * (WIDTH + GAP_X),
                "y": round(MARGIN + row[i] * (HEIGHT + GAP_Y), 1),
            }
            for i, b in enumerate(boxes)
        ],
        "lines": [list(line) for line in lines],
        "within": len(pairs) - len(lines),
    }


def _fold(kept: Sequence[Model], parents: Mapping[str, Sequence[str]], marks: Mapping[str, Hashable]) -> list[list[Model]]:
    """Each model by itself, but for groups alike and for the middles of chains."""
    key: dict[str, Hashable] = {m.name: group[0].name for group in alike(kept, parents, marks) for m in group}
    middle = chained(kept, parents, marks)
    for model in kept:  # in order of time: the first of a chain's middle names the rest
        if model.name in middle:
            before = parents[model.name][0]
            key[model.name] = key[before] if before in middle else model.name
    return _grouped(kept, lambda m: key.get(m.name, m.name))


def _grouped(models: Sequence[Model], key: Callable[[Model], Hashable]) -> list[list[Model]]:
    groups: dict[Hashable, list[Model]] = {}
    for model in models:
        groups.setdefault(key(model), []).append(model)
    return list(groups.values())


def _columns(boxes: Sequence[Sequence[Model]], parents: Mapping[str, Sequence[str]]) -> list[int]:
    """The longest way from a beginning, in boxes."""
    inside = {m.name: i for i, b in enumerate(boxes) for m in b}
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(len(boxes)))
    graph.add_edges_from((inside[p], inside[c]) for c, several in parents.items() for p in several if inside[p] != inside[c])
    found = [0] * len(boxes)
    for number, generation in enumerate(nx.topological_generations(graph)):
        for box in generation:
            found[box] = number
    return found


def _rows(column: Sequence[int], lines: Sequence[tuple[int, int]]) -> list[float]:
    """Barycentre ordering (Sugiyama, Tagawa and Toda 1981): each box near the mean of its neighbours, to and fro."""
    layers: dict[int, list[int]] = {}
    for box, at in enumerate(column):
        layers.setdefault(at, []).append(box)
    tallest = max(map(len, layers.values()))
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for a, b in lines:
        above.setdefault(b, []).append(a)
        below.setdefault(a, []).append(b)
    row = [0.0] * len(column)

    def place(boxes: Sequence[int]) -> None:
        start = (tallest - len(boxes)) / 2
        for number, box in enumerate(boxes):
            row[box] = start + number

    for boxes in layers.values():
        place(boxes)
    order = sorted(layers)
    for sweep in range(SWEEPS):
        near = below if sweep % 2 else above
        for at in reversed(order) if sweep % 2 else order:
            means = {b: sum(row[n] for n in near[b]) / len(near[b]) if near.get(b) else row[b] for b in layers[at]}
            layers[at].sort(key=lambda b: means[b])
            place(layers[at])
    return row
