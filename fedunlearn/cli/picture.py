"""The lineage as a picture file: older models on the left, one colour a kind of birth."""

import math
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import networkx as nx

from fedunlearn.errors import InputError
from fedunlearn.lineage import BIRTHS, Lineage

FORMATS = (".svg", ".png", ".pdf")
COLOURS = dict(zip(BIRTHS, ("#4477aa", "#ccbb44", "#228833", "#aa3377"), strict=True))  # told apart by the colour-blind, too
MOST_NAMES = 150  # more would cover one another


def draw_picture(lineage: Lineage, path: Path, pending: Collection[str] = ()) -> None:
    """Draw the kept models, with the retired ones between them folded into the edges.

    Args:
        lineage: the family.
        path: where to; its ending says the format.
        pending: models with a candidate that was held back; they get a red rim.

    Raises:
        InputError: an ending that is no picture's, or matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"--picture {path}: expected a file that ends in {', '.join(FORMATS)}")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError as error:
        raise InputError('pictures need matplotlib; pip install "fedunlearn[pictures]"') from error
    kept = [m for m in lineage.models if m.kept]
    retired = Counter(m.name.split("/", 1)[0] for m in lineage.models if not m.kept)
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(m.name for m in kept)
    graph.add_edges_from((p, m.name) for m in kept for p in lineage.kept_parents(m.name))
    generations = list(nx.topological_generations(graph))
    for layer, names in enumerate(generations):
        for name in names:
            graph.nodes[name]["layer"] = layer
    place = nx.multipartite_layout(graph, subset_key="layer")
    widest = max(len(names) for names in generations)
    figure = Figure(figsize=(min(40, 2 + 2.0 * len(generations)), min(40, 2 + 0.45 * widest)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.margins(0.12)
    for parent, child in graph.edges:
        (x0, y0), (x1, y1) = place[parent], place[child]
        axes.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "->", "color": "#888888", "shrinkA": 6, "shrinkB": 6})
    size = max(8.0, 90.0 / math.sqrt(max(1, len(kept) / 20)))
    for model in kept:
        x, y = place[model.name]
        rim = "#cc3311" if model.name in pending else "white"
        axes.scatter([x], [y], s=size, color=COLOURS[model.born], edgecolors=rim, linewidths=1.5, zorder=3)
        if len(kept) <= MOST_NAMES:
            text = model.name + (f" ({retired[model.name]} on the way)" if retired[model.name] else "")
            axes.annotate(text, (x, y), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=7)
    births = [b for b in BIRTHS if any(m.born == b for m in kept)]
    marks = [Line2D([], [], marker="o", linestyle="", color=COLOURS[b], label=b) for b in births]
    axes.legend(handles=marks, loc="lower right", fontsize=7, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
