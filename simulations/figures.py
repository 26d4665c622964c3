"""How figures are drawn, one an SVG in the folder `figures/` beside this file; `panels` says what they show.

Colours and greys are of middling lightness and the background is left out, so that they can be read on white and on black. The
same panels give the same bytes.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from reproduced import RETRAINED

FIGURES = Path(__file__).parent / "figures"
GREY = "#808080"
COLOURS = {"fiun": "#d95f02", "ssd": "#3b82c4", "lfssd": "#1b9e77", "fisher mask": "#c25b9e", "steer": "#b8860b",
           "logit mask": "#8470d8", RETRAINED: GREY, "before": GREY}  # fmt: skip
OTHERS = ("#d95f02", "#3b82c4", "#1b9e77", "#c25b9e", "#b8860b", "#8470d8", "#a0522d", "#5f9ea0")
MARKS = "osD^vPX*"
STYLE: Any = {  # keys are literals to matplotlib's stubs
    "svg.hashsalt": "fedunlearn", "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"], "font.size": 8,
    "text.color": GREY, "axes.labelcolor": GREY,
    "axes.edgecolor": GREY, "axes.titlecolor": GREY, "xtick.color": GREY, "ytick.color": GREY, "axes.titlesize": 8,
    "legend.fontsize": 7, "legend.frameon": False, "lines.linewidth": 1.2, "lines.markersize": 3,
}  # fmt: skip
CLIP = re.compile(r"\bp[0-9a-f]{10}\b")  # named by places to their last bit, which the layout's solver does not repeat
WIDE, HIGH = 3.6, 2.5  # of a panel, in inches
ABOUT, ROW, DOT, KEY = 0.7, 0.13, 0.03, 0.16  # the same of its title and axis, a row, each of its dots, a line of a legend
KEYS = 4  # of a figure, beside each other


class Span(NamedTuple):
    """A value and a range around it: of seeds, or an interval.

    Args:
        value: the mean, or what all together give.
        low: where the range begins.
        high: where it ends.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Span":
        """Mean and range of what seeds give."""
        return cls(sum(values) / len(values), min(values), max(values))


@dataclass(frozen=True)
class Lines:
    """How something changes along a number.

    Args:
        title: what it shows.
        x: label of the horizontal axis, with its unit.
        y: of the vertical one.
        lines: by name, a span at each place.
        log: which axes are logarithmic: none, "x", or "xy".
    """

    title: str
    x: str
    y: str
    lines: Mapping[str, Mapping[float, Span]]
    log: str = ""


@dataclass(frozen=True)
class Dots:
    """How things of a kind compare: a row each, from above.

    Args:
        title: what it shows.
        x: label of the horizontal axis, with its unit.
        dots: by name, a span in each row that it has.
        log: whether that axis is logarithmic.
    """

    title: str
    x: str
    dots: Mapping[str, Mapping[str, Span]]
    log: bool = False

    @property
    def rows(self) -> list[str]:
        """Their names."""
        return list(dict.fromkeys(row for of in self.dots.values() for row in of))


Panel = Lines | Dots


def draw(name: str, panels: Sequence[Panel]) -> None:
    """Draw the figure of that name: two panels beside each other, those of dots in rows of their own."""
    pairs = [panels[i : i + 2] for i in range(0, len(panels), 2)]
    heights = [max(_height(panel) for panel in pair) for pair in pairs]
    columns = max(map(len, pairs))
    with mpl.rc_context(STYLE):
        keys = list(dict.fromkeys(name for panel in panels if isinstance(panel, Dots) for name in panel.dots))
        above = KEY * (1 + -(-len(keys) // KEYS)) if len(keys) > 1 else 0.0
        figure = Figure(figsize=(WIDE * columns, sum(heights) + above), layout="constrained")
        grid = figure.subplots(len(pairs), columns, squeeze=False, height_ratios=heights)
        for pair, line in zip(pairs, grid, strict=True):
            for panel, axes in zip(pair, line, strict=False):
                _dots(axes, panel) if isinstance(panel, Dots) else _lines(axes, panel)
            for axes in line[len(pair) :]:
                axes.remove()
            if len(pair) == 2 and all(isinstance(p, Dots) for p in pair) and _rows(pair[0]) == _rows(pair[1]):
                line[1].set_yticklabels([])
        if above:
            named = {label: mark for axes in figure.axes for mark, label in zip(*axes.get_legend_handles_labels(), strict=True)}
            figure.legend([named[key] for key in keys], keys, loc="outside upper center", ncols=min(KEYS, len(keys)))
        FIGURES.mkdir(exist_ok=True)
        text = StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    rounded = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.1f}", text.getvalue())  # points
    for number, clip in enumerate(dict.fromkeys(CLIP.findall(rounded)), 1):
        rounded = rounded.replace(clip, f"clip-{number}")
    (FIGURES / f"{name}.svg").write_text(re.sub(r"^[ \t]+|[ \t]+$", "", rounded, flags=re.M))


def _height(panel: Panel) -> float:
    return ABOUT + (ROW + DOT * len(panel.dots)) * len(panel.rows) if isinstance(panel, Dots) else HIGH


def _rows(panel: Panel) -> list[str]:
    return panel.rows if isinstance(panel, Dots) else []


def _lines(axes: Axes, panel: Lines) -> None:
    for number, (name, line) in enumerate(panel.lines.items()):
        if not line:
            continue
        x, spans = list(line), list(line.values())
        colour, still = _colour(name, number, list(panel.lines)), name in (RETRAINED, "before")
        style = {RETRAINED: "--", "before": ":"}.get(name, "-")
        mark = "" if len(line) > 8 or (len(line) > 1 and still) else MARKS[number % len(MARKS)]
        axes.plot(x, [s.value for s in spans], color=colour, linestyle=style, marker=mark, label=name)
        if not still:
            axes.fill_between(x, [s.low for s in spans], [s.high for s in spans], color=colour, alpha=0.15, linewidth=0)
    axes.set_ylabel(panel.y)
    if panel.log:
        axes.set_xscale("log")
    if panel.log == "xy":
        axes.set_yscale("log")
    axes.legend()
    _finish(axes, panel, "y")


def _dots(axes: Axes, panel: Dots) -> None:
    rows = panel.rows
    for number, (name, spans) in enumerate(panel.dots.items()):
        nudge = 0.7 * (number - (len(panel.dots) - 1) / 2) / len(panel.dots)
        y, colour = [rows.index(row) + nudge for row in spans], _colour(name, number, list(panel.dots))
        ranges = [(s.low, s.high, math.nan) for s in spans.values()]  # one path for all, which keeps files small
        axes.plot(np.ravel(ranges), np.repeat(y, 3), color=colour, linewidth=0.8)
        mark = MARKS[number % len(MARKS)]
        axes.plot([s.value for s in spans.values()], y, color=colour, linestyle="none", marker=mark, label=name)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    if panel.log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", length=0)
    between = np.repeat(np.arange(1, len(rows)) - 0.5, 3)
    across = axes.get_yaxis_transform()
    axes.plot(np.tile((0, 1, math.nan), len(rows) - 1), between, transform=across, color=GREY, alpha=0.15, linewidth=0.5)
    _finish(axes, panel, "x")


def _finish(axes: Axes, panel: Panel, across: str) -> None:
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x)
    axes.grid(axis=across, alpha=0.25, color=GREY, linewidth=0.5)  # type: ignore[arg-type]
    axes.spines[["top", "right"]].set_visible(False)


def _colour(name: str, number: int, names: Sequence[str]) -> str:
    others = [colour for colour in OTHERS if colour not in {COLOURS.get(n) for n in names}]
    return COLOURS.get(name, others[number % len(others)])
