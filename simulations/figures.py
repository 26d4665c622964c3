"""Figures of results, one an SVG in the folder `figures/` beside this file, made from them and nothing else.

Colours and greys are of middling lightness and the background is left out, so that they can be read on white and on black. The
same result gives the same bytes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from reproduction import RETRAINED, Rows, counted, left, lost, rest

FIGURES = Path(__file__).parent / "figures"
GREY = "#808080"
COLOURS = {"fiun": "#d95f02", "ssd": "#3b82c4", "lfssd": "#1b9e77", "fisher mask": "#c25b9e", "steer": "#b8860b",
           "logit mask": "#8470d8", RETRAINED: GREY, "before": GREY}  # fmt: skip
OTHERS = ("#d95f02", "#3b82c4", "#1b9e77", "#c25b9e", "#b8860b", "#8470d8", "#a0522d", "#5f9ea0")
MARKS = "osD^vPX*"
STYLE = {
    "svg.hashsalt": "fedunlearn", "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"], "font.size": 8,
    "text.color": GREY, "axes.labelcolor": GREY,
    "axes.edgecolor": GREY, "axes.titlecolor": GREY, "xtick.color": GREY, "ytick.color": GREY, "axes.titlesize": 8,
    "legend.fontsize": 7, "legend.frameon": False, "lines.linewidth": 1.2, "lines.markersize": 3,
}  # fmt: skip
PERCENT, POINTS = "still recognised, %", "lost on the rest, points"
BOTH = (PERCENT, left), (POINTS, lost)
DEEP = 4  # generations, of an inheritance that is drawn
Line = Sequence[tuple[float, Sequence[float]]]  # x, and a value a seed


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Args:
        title: what it shows.
        x: label of the horizontal axis, with its unit.
        y: of the vertical one.
        lines: by name.
        names: of the places on the horizontal axis, where they are no numbers.
        log: which axes are logarithmic: none, "x", or "xy".
    """

    title: str
    x: str
    y: str
    lines: Mapping[str, Line]
    names: Sequence[str] = field(default=())
    log: str = ""


def draw(name: str, rows: Rows) -> None:
    """The figure of that name, out of the rows of its results."""
    panels = PANELS[name](rows)
    columns = min(2, len(panels))
    deep = -(-len(panels) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * columns, 2.5 * deep), layout="constrained")
        for axes, panel in zip(figure.subplots(deep, columns, squeeze=False).flat, panels, strict=False):
            _fill(axes, panel)
        FIGURES.mkdir(exist_ok=True)
        text = StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    rounded = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.1f}", text.getvalue())  # points
    (FIGURES / f"{name}.svg").write_text(re.sub(r"^[ \t]+|[ \t]+$", "", rounded, flags=re.M))


def _fill(axes: Axes, panel: Panel) -> None:
    others = [colour for colour in OTHERS if colour not in {COLOURS.get(name) for name in panel.lines}]
    for number, (name, line) in enumerate(panel.lines.items()):
        if not line:
            continue
        x, each = [at for at, _ in line], [values for _, values in line]
        colour = COLOURS.get(name, others[number % len(others)])
        style = {RETRAINED: "--", "before": ":"}.get(name, "none" if panel.names else "-")
        nudge = 0.1 * (number - (len(panel.lines) - 1) / 2) if panel.names else 0.0
        mean = [sum(v) / len(v) for v in each]
        bare = (len(line) > 8 and not panel.names) or (len(line) > 1 and name in (RETRAINED, "before"))
        mark = "" if bare else MARKS[number % len(MARKS)]
        shown = [at + nudge for at in x]
        axes.plot(shown, mean, color=colour, linestyle=style, marker=mark, label=name)
        if panel.names:
            axes.vlines(shown, [min(v) for v in each], [max(v) for v in each], color=colour, linewidth=1)
        elif name not in (RETRAINED, "before"):
            axes.fill_between(x, [min(v) for v in each], [max(v) for v in each], color=colour, alpha=0.15, linewidth=0)
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    if panel.names:
        axes.set_xticks(range(len(panel.names)), panel.names, rotation=20, ha="right")
    if panel.log:
        axes.set_xscale("log")
    if panel.log == "xy":
        axes.set_yscale("log")
    axes.grid(axis="y", alpha=0.25, color=GREY, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend()


def by_method(
    rows: Rows, cell: str, metric: Callable[[Rows], float | None], retrained: bool = False, methods: Sequence[str] = ()
) -> dict[str, Line]:
    """A line a method over the values of a cell, seed by seed, of heirs that knew what they were to forget."""
    of = [r for r in counted([r for r in rows if "method" in r]) if r["cell"] == cell]
    lines = {m: _line([r for r in of if r["method"] == m], metric) for m in methods or dict.fromkeys(r["method"] for r in of)}
    if retrained:
        again = [r | {"forgotten_after": r["retrained_forgotten"], "retained_after": r["retrained_retained"]} for r in of]
        lines[RETRAINED] = _line(again, metric)
    return lines


def _line(rows: Rows, metric: Callable[[Rows], float | None]) -> Line:
    line = []
    for at in sorted({r["at"] for r in rows}):
        there = [r for r in rows if r["at"] == at]
        found = [metric([r for r in there if r["seed"] == s]) for s in dict.fromkeys(r["seed"] for r in there)]
        if known := [v for v in found if v is not None]:
            line.append((at, known))
    return line


def _repeated(rows: Rows) -> list[Panel]:
    panels = []
    for cell in dict.fromkeys(r["cell"] for r in rows):
        of = [r for r in rows if r["cell"] == cell]
        by = {m: [r for r in of if r["method"] == m] for m in dict.fromkeys(r["method"] for r in of)}
        some = next(iter(by.values()))
        some = [r for r in some if r["at"] == max(r["at"] for r in some)]  # it lacks all of it from the start
        dropped = {m: _line(own, partial(_mean_of, _dropped)) for m, own in by.items()}
        dropped[RETRAINED] = _line(some, partial(_mean_of, lambda r: _dropped(r, "rest_retrained")))
        known = {m: _line(own, partial(_mean_of, lambda r: r["forgotten"])) for m, own in by.items()}
        known[RETRAINED] = _line(some, partial(_mean_of, lambda r: r["retrained"]))
        panels += [Panel(cell, "requests so far", y, lines) for y, lines in ((PERCENT, known), (POINTS, dropped))]
    return panels


def _dropped(row: Mapping[str, Any], after: str = "rest") -> float:
    return float(row["rest_before"] - row[after])


def _mean_of(value: Callable[[Mapping[str, Any]], float | None], rows: Rows) -> float | None:
    """In %, of the rows that have one."""
    known = [v for v in map(value, rows) if v is not None]
    return 100 * sum(known) / len(known) if known else None


def _pair(rows: Rows, cell: str, x: str, retrained: bool, **how: Any) -> list[Panel]:
    """What is left, and what that cost."""
    return [Panel(cell, x, y, by_method(rows, cell, m, retrained), **how) for y, m in BOTH]


def _size(rows: Rows) -> list[Panel]:
    return _pair(rows, "classes", "classes forgotten, %", True) + _pair(
        rows, "rows", "training rows forgotten, %", True, log="x"
    )


def _along(rows: Rows, what: str) -> Rows:
    """Cells that have a name and a place become one."""
    return [r | {"cell": what} for r in rows]


def _shift(rows: Rows) -> list[Panel]:
    names = tuple(dict.fromkeys(r["cell"] for r in sorted(rows, key=lambda r: r["at"])))
    return _pair(_along(rows, "evidence measured on other rows"), "evidence measured on other rows", "", False, names=names)


def _nets(rows: Rows) -> list[Panel]:
    names = tuple(dict.fromkeys(r["cell"] for r in sorted(rows, key=lambda r: r["at"])))
    return _pair(_along(rows, "one class, one model"), "one class, one model", "", True, names=names)


def _drift(rows: Rows) -> list[Panel]:
    panels = []
    for cell in dict.fromkeys(r["cell"] for r in rows):
        alike = [r for r in rows if r["cell"] == cell and "cosine" in r]
        keys = dict.fromkeys((r["evidence"], r["part"]) for r in alike)
        lines = {f"{e}, {p}": _line([r for r in alike if (r["evidence"], r["part"]) == (e, p)], _cosine) for e, p in keys}
        panels += [
            Panel(cell, "generations below the root", "cosine with own evidence", lines),
            *(Panel(cell, "generations below the root", y, by_method(rows, cell, m, True)) for y, m in BOTH),
        ]
    return panels


def _cosine(rows: Rows) -> float:
    return float(sum(r["cosine"] for r in rows) / len(rows))


def _labels(rows: Rows) -> list[Panel]:
    return _pair(rows, "wrong labels", "wrong labels, %", True)


def _parts(rows: Rows) -> list[Panel]:
    given = [r for r in rows if r["at"]]
    return [
        Panel(cell, "units masked, %", y, by_method(given, cell, metric, True))
        for cell in dict.fromkeys(r["cell"] for r in given)
        for y, metric in ((PERCENT, left), ("accuracy on the rest, %", rest))
    ]


def _strength(rows: Rows) -> list[Panel]:
    given = [r for r in rows if r["at"]]
    return [p for cell in dict.fromkeys(r["cell"] for r in given) for p in _pair(given, cell, "alpha", False, log="x")]


def _ratios(rows: Rows) -> list[Panel]:
    """FisherMask's ratios: a line a way, its ratio taken off its name."""
    given = []
    for row in rows:
        if found := re.fullmatch(r"mask (\d+)%(, .*)?", row["method"]):
            given.append(row | {"cell": "a class", "at": float(found[1]), "method": f"mask{found[2] or ''}"})
    return _pair(given, "a class", "units masked, %", True)


def _inherited(rows: Rows) -> list[Panel]:
    """Families that are deep enough to see it."""
    named = {"request": "", "class": ""}
    some = [r | named | {"cell": r["family"], "at": r["depth"], "heir": r["name"]} for r in rows]
    deep = [f for f in dict.fromkeys(r["cell"] for r in some) if max(r["at"] for r in some if r["cell"] == f) > DEEP]
    return [p for f in deep for p in _pair(some, f, "models below the last trained on it", True)]


def _poisoned(rows: Rows) -> list[Panel]:
    """What each merge bears of each lie, all heirs together."""
    lies = list(dict.fromkeys(r["poison"] for r in rows))
    panels = []
    for method in dict.fromkeys(r["method"] for r in rows):
        of = [r | {"at": lies.index(r["poison"])} for r in rows if r["method"] == method]
        by = {m: [r for r in of if r["merging"] == m] for m in dict.fromkeys(r["merging"] for r in of)}
        for y, metric in BOTH:
            panels.append(Panel(method, "", y, {m: _line(own, metric) for m, own in by.items()}, names=lies))
    return panels


def _scale(rows: Rows) -> list[Panel]:
    kinds = dict.fromkeys(r["sources"] for r in rows)
    return [
        Panel(title, "models", y, {k: [(r["models"], [r[what]]) for r in rows if r["sources"] == k] for k in kinds}, log="xy")
        for title, y, what in (
            ("one request", "seconds of one core", "seconds"),
            ("one request", "peak memory, MB", "peak_mb"),
            ("plan", "seconds", "plan_s"),
            ("ledger", "bytes more", "ledger_bytes"),
        )
    ]


PANELS: dict[str, Callable[[Rows], list[Panel]]] = {
    "open_repeated": _repeated, "open_size": _size, "open_shift": _shift, "open_drift": _drift, "open_labels": _labels,
    "open_parts": _parts, "open_strength": _strength, "open_place": _strength, "open_nets": _nets,
    "reproduce_fishermask": _ratios, "inherited": _inherited, "poisoned_evidence": _poisoned, "scale": _scale,
}  # fmt: skip
