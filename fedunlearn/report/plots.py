"""Two kinds of picture, laid out: shares with their intervals, and curves. All coordinates are pixels, y from the top."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

NETS = {"before": "before", "after": "after", "mask": "logit mask", "retrained": "retrained"}
WIDTH, LEFT, RIGHT, ROW, TOP = 430, 110, 78, 24, 8
PLOT, BOTTOM = 210, 34  # height of curves; room for an axis
LABELS, LINE = 100, 14  # right of curves; height of a label


def plots(evaluation: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every picture that the results of one model allow.

    Args:
        evaluation: tier -> result of `fedunlearn.evaluation.evaluate`.

    Returns:
        Pictures with `kind` ("shares" or "curves"), `title`, `reading` (how to read it), `summary` (what it shows, in words),
        and what `shares` and `curves` lay out.
    """
    found: dict[str, Any] = {name: of for result in evaluation.values() for name, of in result["metrics"].items()}
    return [plot for name, draw in _DRAWN.items() if name in found for plot in draw(found[name])]


def shares(title: str, reading: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Estimates on an axis from 0 to 1, one below the other.

    Args:
        title: of the picture.
        reading: how to read it.
        rows: (net, estimate with `value`, `low`, `high`).
    """
    span = WIDTH - LEFT - RIGHT
    placed = [
        {
            "net": net,
            "label": NETS.get(net, net.replace("_", " ")),
            "y": TOP + ROW * i + ROW / 2,
            "x": round(LEFT + span * of["value"], 1),
            "low": round(LEFT + span * of["low"], 1),
            "high": round(LEFT + span * of["high"], 1),
            "value": of["value"],
        }
        for i, (net, of) in enumerate(rows)
    ]
    foot = TOP + ROW * len(rows)
    said = "; ".join(f"{p['label']} {of['value']:.1%}" for p, (_, of) in zip(placed, rows, strict=True))
    ticks = [{"x": LEFT + span * t / 4, "label": f"{25 * t}%"} for t in range(5)]
    size = {"width": WIDTH, "height": foot + BOTTOM - 10, "foot": foot, "left": LEFT}
    return {"kind": "shares", "title": title, "reading": reading, "summary": said, "rows": placed, "ticks": ticks, **size}


def curves(
    title: str, reading: str, across: str, up: str, series: Mapping[str, Sequence[Sequence[float]]], diagonal: bool = False
) -> dict[str, Any]:
    """Lines over an axis from 0 on; upwards from 0 to 1.

    Args:
        title: of the picture.
        reading: how to read it.
        across: what the axis is.
        up: what the lines show.
        series: net -> points (x, share).
        diagonal: draw the line of chance.
    """
    span, rise = WIDTH - 44 - LABELS, PLOT - TOP
    most = max((p[0] for points in series.values() for p in points), default=1) or 1
    placed = {net: [(round(44 + span * x / most, 1), round(PLOT - rise * y, 1)) for x, y in of] for net, of in series.items()}
    beside = _apart({net: of[-1][1] for net, of in placed.items()}, PLOT - rise)
    drawn = [
        {
            "net": net,
            "label": NETS.get(net, net.replace("_", " ")),
            "path": "M" + "L".join(f"{x:g} {y:g}" for x, y in points),
            "label_y": beside[net],
        }
        for net, points in placed.items()
    ]
    said = "; ".join(f"{NETS.get(n, n)} from {p[0][1]:.1%} to {p[-1][1]:.1%}" for n, p in series.items())
    ticks = [{"x": round(44 + span * t / 4, 1), "label": f"{most * t / 4:.4g}"} for t in range(5)]
    grid = [{"y": round(PLOT - rise * t / 4, 1), "label": f"{25 * t}%"} for t in range(5)]
    extent = {"left": 44, "right": 44 + span, "top": PLOT - rise, "foot": PLOT}
    return {
        "kind": "curves", "title": title, "reading": reading, "summary": said, "series": drawn, "ticks": ticks, "grid": grid,
        "across": across, "up": up, "diagonal": diagonal, "width": WIDTH, "height": PLOT + BOTTOM + 8, **extent,
    }  # fmt: skip


def _apart(wanted: Mapping[str, float], top: float) -> dict[str, float]:
    """Heights of labels near those wanted, of which none covers another or lies below the axis."""
    found: dict[str, float] = {}
    height = top - LINE
    for net in sorted(wanted, key=wanted.__getitem__):
        found[net] = height = max(wanted[net], height + LINE)
    height = PLOT + LINE
    for net in reversed(found):
        found[net] = height = min(found[net], height - LINE)
    return found


def _accuracies(of: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for part, what in (("forgotten", "What is forgotten"), ("test", "The rest")):
        rows = [(net, parts[part]) for net, parts in of.items() if part in parts]
        if rows:
            yield shares(f"{what}: accuracy", "Where the retrained model is, the edited one should be.", rows)


def _probes(title: str) -> Any:
    reading = "A new last layer on its features. Above the retrained model is knowledge that was left."

    def draw(of: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        yield shares(title, reading, [(net, found["recovery"]) for net, found in of.items()])

    return draw


def _relearning(title: str) -> Any:
    reading = "Steeper than the retrained model's is memory that was left."

    def draw(of: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        series = {net: found["curve"] for net, found in of.items() if "curve" in found}
        if not series:  # what the gate saw is kept in the record without it
            return
        yield curves(title, reading, "training steps", "accuracy on what is forgotten", series)

    return draw


def _attacks(title: str) -> Any:
    reading = "On the diagonal is chance: the attacker cannot tell. Above or below, rows are told apart."

    def draw(of: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        series = {net: found["curve"] for net, found in of.items() if isinstance(found, Mapping) and "curve" in found}
        if series:
            yield curves(title, reading, "false positive rate", "true positive rate", series, diagonal=True)

    return draw


def _triggered(of: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    reading = "Share of other rows that the trigger turns into its target."
    yield shares("Planted trigger", reading, [(net, found["stamped"]) for net, found in of.items()])


_DRAWN = {
    "accuracy": _accuracies,
    "probe": _probes("Linear probe: what is forgotten, recovered"),
    "prototypes": _probes("Class means: what is forgotten, recovered"),
    "relearn_retained": _relearning("Relearning on rows that all stay"),
    "relearn_shots": _relearning("Relearning on a few rows of each class"),
    "ulira": _attacks("Membership attack, per example"),
    "ulira_from_retrained": _attacks("Membership attack against models that never saw the rows"),
    "backdoor": _triggered,
}
