"""What came out of reproductions: every metric of theirs, and the tables that put it beside what is published."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedunlearn.compare import pooled
from fedunlearn.compare.run import FAILED
from fedunlearn.lineage.plan import NOT_EXPRESSIBLE
from fedunlearn.runtime.books.record import COMMITTED
from fedunlearn.scores import KNOWN

Rows = Sequence[dict[str, Any]]
RETRAINED = "retrained"
TRIED = "to choose strengths"  # rows, forwards only
NOTE = (
    "In %, lost in points; seeds and heirs pooled, the worst heir and class (its seeds pooled) apart. tested: rows of heirs "
    "that knew at least half of what they were to forget; the others are left out. Seconds are of one request, all its "
    "heirs{}; ratio: unlearning over retraining. Rows read: by measuring and editing, and by retraining in all its epochs. "
    "kB: evidence that is sent."
)
ALONE, SHARED = ", on one thread, so that they are compute as well", ", with other programs on the same GPU"


def counted(rows: Rows) -> list[dict[str, Any]]:
    """Rows of heirs that knew at least half of what they are to forget."""
    return [r for r in rows if r["target"] != NOT_EXPRESSIBLE and (r["forgotten_before"] or 0) >= KNOWN]


def pooled_percent(rows: Rows, what: str) -> float:
    """A share of all rows it is about together, in %, whatever heirs they are of; NaN where none was tested."""
    found = _percent(pooled(rows, what, f"rows_{'forgotten' if what.startswith('forgotten') else 'retained'}"))
    return math.nan if found is None else found


def left(rows: Rows) -> float | None:
    """What is still recognised, in %."""
    return _percent(pooled(rows, "forgotten_after", "rows_forgotten"))


def rest(rows: Rows) -> float | None:
    """Accuracy on the rest, in %."""
    return _percent(pooled(rows, "retained_after", "rows_retained"))


def lost(rows: Rows) -> float | None:
    """What that cost, in points."""
    before, after = _percent(pooled(rows, "retained_before", "rows_retained")), rest(rows)
    return None if before is None or after is None else before - after


def saved(rows: Rows) -> float | None:
    """How much less time it takes than retraining, in %."""
    ratio = _ratio(rows)
    return None if ratio is None else 100 * (1 - ratio)


def spread(rows: Rows) -> float | None:
    """Between the seed after which most is left and the one after which least is, in points."""
    each = [left([r for r in rows if r["seed"] == s]) for s in dict.fromkeys(r["seed"] for r in rows)]
    known = [v for v in each if v is not None]
    return max(known) - min(known) if len(known) > 1 else None


def worst(rows: Rows) -> float | None:
    """What is left, in %, of the heir and class of which most is; its seeds are pooled."""
    keys = dict.fromkeys((r["heir"], r["request"], r["class"]) for r in rows)
    each = [left([r for r in rows if (r["heir"], r["request"], r["class"]) == key]) for key in keys]
    return max((v for v in each if v is not None), default=None)


def worst_lost(rows: Rows) -> float | None:
    """What that costs, in points, at the heir and for the request that cost most; their seeds are pooled."""
    keys = dict.fromkeys((r["heir"], r["request"]) for r in rows)
    each = [lost([r for r in rows if (r["heir"], r["request"]) == key]) for key in keys]
    return max((v for v in each if v is not None), default=None)


METRICS = {f.__name__: f for f in (left, worst, rest, lost, worst_lost, saved, spread)}


def table(result: Mapping[str, Any], asked: Sequence[str] = ()) -> str:
    """What is published beside ours, then every cell.

    Args:
        result: of a script.
        asked: names of all its cells; those without a row are said not to have been run.
    """
    switches = "\n".join(f"- {what}: {where}" for what, where in result["switches"].items())
    said = f"Ours: {result['ours']}", f"What the public code does otherwise than the paper or than we do:\n\n{switches}"
    note = NOTE.format(SHARED if result["size"] == "gpu" else ALONE)
    return "\n\n".join([claims(result), *said, details(result["rows"], asked), note])


def claims(result: Mapping[str, Any]) -> str:
    """A line for each published number: theirs, and ours by method."""
    lines = [_line(("published", "value", "measured on", "our cell", "ours, on held-out rows")), "|---" * 5 + "|"]
    for claim in result["published"]:
        of = [r for r in result["rows"] if r["cell"] == claim["cell"]]
        found = {m: METRICS[claim["metric"]](counted(_of(of, m))) for m in _methods(of)}
        ours = "; ".join(f"{m}: {_text(v)}" for m, v in found.items()) or "not run"
        lines.append(_line((claim["says"], claim["value"], claim["theirs"], claim["cell"], f"{claim['metric']}: {ours}")))
    return "\n".join(lines)


def details(rows: Rows, asked: Sequence[str] = ()) -> str:
    """A line for each cell and method, seeds and heirs pooled; the worst is that of an heir and class with its seeds pooled."""
    columns = ("cell", "method", "tested", "before", "left", "worst: left", "rest before", "lost", "mask: lost", "accepted",
               "unlearning, s", "of it evidence", "retraining, s", "ratio", "rows read", TRIED, "by retraining",
               "kB")  # fmt: skip
    lines: list[Sequence[str]] = [columns, ("---",) * len(columns)]
    for cell in dict.fromkeys(r["cell"] for r in rows):
        of = [r for r in rows if r["cell"] == cell]
        for method in _methods(of):
            lines.append((cell, method, *_cells(_of(of, method), method)))
    missing = [cell for cell in asked if cell not in {r["cell"] for r in rows}]
    lines += [(cell, "not run", *("-" for _ in columns[2:])) for cell in missing]
    unknown = {columns.index(TRIED)} if all(r.get("rows_calibrated") is None for r in rows) else set[int]()  # older results
    return "\n".join(_line([text for i, text in enumerate(line) if i not in unknown]) for line in lines)


def _cells(rows: Rows, method: str) -> tuple[str, ...]:
    some = counted(rows)
    before = _percent(pooled(some, "forgotten_before", "rows_forgotten"))
    known = _percent(pooled(some, "retained_before", "rows_retained"))
    mask = _percent(pooled(some, "mask_retained", "rows_retained"))
    tried = {(r["seed"], r["request"], r["heir"]): r["status"] for r in rows}
    failed = sum(s == FAILED for s in tried.values())
    accepted = f"{sum(s == COMMITTED for s in tried.values())} of {len(tried)}" + f", {failed} failed" * bool(failed)
    spent = [_spent(rows, k) for k in ("unlearn_seconds", "measure_seconds", "retrain_seconds")]
    read, calibrated, again, sent = (_spent(rows, k) for k in ("rows_read", "rows_calibrated", "rows_again", "bytes_up"))
    return (
        f"{len(some)} of {len(rows)}",
        *map(_text, (before, left(some), worst(some), known, lost(some))),
        _text(None if mask is None or known is None else known - mask),
        "-" if method == RETRAINED else accepted,
        *("-" if s is None else f"{s:.2f}" for s in spent),
        "-" if (ratio := _ratio(rows)) is None else f"{ratio:.3f}",
        *("-" if n is None else f"{n:.0f}" for n in (read, calibrated, again)),
        "-" if sent is None else f"{sent / 1000:.1f}",
    )


def _methods(rows: Rows) -> list[str]:
    return [*dict.fromkeys(r["method"] for r in rows), *([RETRAINED] if rows else [])]


def again(rows: Rows) -> list[dict[str, Any]]:
    """Rows of the retrained models, as if retraining were a method."""
    return [{**r, "forgotten_after": r["retrained_forgotten"], "retained_after": r["retrained_retained"]} for r in rows]


def _of(rows: Rows, method: str) -> Rows:
    """A method's rows; retraining is read off those of any."""
    if method != RETRAINED:
        return [r for r in rows if r["method"] == method]
    unknown = dict.fromkeys(("unlearn_seconds", "measure_seconds", "rows_read", "rows_calibrated", "bytes_up", "mask_retained"))
    return [r | unknown for r in again(_of(rows, rows[0]["method"]))]


def _spent(rows: Rows, clock: str) -> float | None:
    """Mean of a request of a seed, all its heirs; of rows from before a clock was read, none."""
    each = {(r["seed"], r["request"]): r[clock] for r in rows if r.get(clock) is not None}
    return sum(each.values()) / len(each) if each else None


def _ratio(rows: Rows) -> float | None:
    ours, again = (_spent(rows, k) for k in ("unlearn_seconds", "retrain_seconds"))
    return ours / again if ours is not None and again else None


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _text(number: float | None) -> str:
    return "-" if number is None else f"{number:.1f}"


def _line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"
