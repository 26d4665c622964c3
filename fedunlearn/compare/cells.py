"""From rows of single seeds to cells (seeds pooled), and from those to a line a topology and method, each with its interval.

What is judged: heirs that must not know the class afterwards and knew at least half of it before. A cell of fewer than 300 test
rows is shown with its interval and not judged.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedunlearn.compare.deeper import NOTHING, means_of, words_of
from fedunlearn.evaluation import Gate
from fedunlearn.evaluation.intervals import over_seeds, proportion
from fedunlearn.lineage.plan import ABSENT, AS_RETRAINED
from fedunlearn.methods.calibration import AT_ROOTS
from fedunlearn.runtime.books.record import COMMITTED, PENDING
from fedunlearn.scores import KNOWN

JUDGED = 300  # test rows, seeds pooled
RETRAINED = "retrained"  # not a method, but a line of every table: the families trained without the data
EDITED = (COMMITTED, PENDING, RETRAINED)  # rows of these say what an edit, or retraining, did

Rows = Sequence[Mapping[str, Any]]
Plain = dict[str, Any]


def cells_of(rows: Rows, limits: Mapping[str, Gate]) -> list[Plain]:
    """Seeds pooled: one cell for every topology, method, request, class and heir, in the order of the rows.

    Args:
        rows: of `compare`.
        limits: of each topology; a cell keeps within them or does not, by its point estimates.
    """
    return [_cell(of, limits[str(key[0])]) for key, of in _by(rows, "topology", "method", "request", "class", "heir").items()]


def summary_of(rows: Rows, limits: Mapping[str, Gate]) -> list[Plain]:
    """One line for every topology and method; the retrained families last."""
    lines = [_line(of, limits[str(topology)]) for (topology, _), of in _by(rows, "topology", "method").items()]
    for (topology,), of in _by(rows, "topology").items():
        again: dict[tuple[object, ...], Plain] = {}
        for r in (r for r in of if r["retrained_retained"] is not None):  # whatever method it stands beside
            again.setdefault((r["seed"], r["request"], r["class"], r["heir"]), _again(r))
        if again:
            lines.append(_line(list(again.values()), limits[str(topology)]))
    return sorted(lines, key=lambda line: list(limits).index(line["topology"]))


def pooled(rows: Rows, what: str, weight: str) -> float | None:
    """Mean weighted by rows, of those that have a value; None where none has."""
    known = [r for r in rows if r[what] is not None and r[weight]]
    return sum(r[what] * r[weight] for r in known) / sum(r[weight] for r in known) if known else None


def share(rows: Rows) -> Plain | None:
    """Forgotten rows that are recognised; None where nothing was tested.

    The interval is the wider of two: Wilson's, over rows, and Student's, over seeds, which often differ by more than chance
    among rows would have them differ. Heirs are tested on the same rows, and so are requests that name one class: however many
    there are, a row of a seed counts once, and as seeds draw theirs from one test set, Wilson's is of as many rows as the seed
    with the most has.
    """
    value = pooled(rows, "forgotten_after", "rows_forgotten")
    if value is None:
        return None
    tests: dict[tuple[object, ...], int] = {}  # rows of a class; of samples and sites, which name none, those of the request
    for r in (r for r in rows if r["forgotten_after"] is not None):
        key = r["seed"], r["class"], "" if r["class"] else r["request"]
        tests[key] = max(tests.get(key, 0), r["rows_forgotten"])
    distinct = Counter[object]()
    for (seed, *_), tested in tests.items():
        distinct[seed] += tested
    n, of_one = distinct.total(), max(distinct.values())
    each = [v for of in _by(rows, "seed").values() if (v := pooled(of, "forgotten_after", "rows_forgotten")) is not None]
    found = [proportion(round(value * of_one), of_one), *([over_seeds(each)] if len(each) > 1 else [])]
    low, high = min(value, *(e.low for e in found)), max(value, *(e.high for e in found))
    return {"value": value, "low": max(0.0, low), "high": min(1.0, high), "n": n}


def lost(rows: Rows, what: str) -> Plain | None:
    """Accuracy lost on the rest, with Student's interval over seeds (None for a single one); None where nothing was tested.

    Of two seeds the interval is wide; it ends where accuracy does.
    """

    def of(some: Rows) -> float | None:
        both = [r for r in some if r["retained_before"] is not None and r[what] is not None]
        before, after = (pooled(both, w, "rows_retained") for w in ("retained_before", what))
        return None if before is None or after is None else before - after

    return _with_interval(rows, of, -1.0)


def _with_interval(rows: Rows, of: Callable[[Rows], float | None], least: float) -> Plain | None:
    """A mean that is at least `least` and at most 1, with Student's interval over seeds; None where it is not known."""
    value, each = of(rows), [v for some in _by(rows, "seed").values() if (v := of(some)) is not None]
    if value is None:
        return None
    half = (e := over_seeds(each)).high - e.value if len(each) > 1 else None
    ends = (None, None) if half is None else (max(least, value - half), min(1.0, value + half))
    return {"value": value, "low": ends[0], "high": ends[1]}


def _cell(rows: Rows, gate: Gate) -> Plain:
    """All seeds of one heir and class."""
    first, left, dropped = rows[0], share(rows), lost(rows, "retained_after")
    before, again = (pooled(rows, w, "rows_forgotten") for w in ("forgotten_before", "retrained_forgotten"))
    targets = dict.fromkeys(r["target"] for r in rows)
    counts = list(targets) == [ABSENT] and before is not None and before >= KNOWN and left is not None and dropped is not None
    judged = left is not None and counts and left["n"] >= JUDGED
    within = None
    if judged and left and dropped:
        within = left["value"] <= gate.forgotten_at_most and dropped["value"] <= gate.retained_drop_at_most
    return {
        **{k: first[k] for k in ("topology", "method", "simulation", "request", "class", "heir", "born", "depth")},
        "target": " / ".join(targets),
        "seeds": len(rows),
        "outcomes": dict(Counter(r["status"] for r in rows)),
        "before": before,
        "left": left,
        "retrained_left": again,
        "rest_before": pooled(rows, "retained_before", "rows_retained"),
        "lost": dropped,
        "mask_lost": lost(rows, "mask_retained"),
        "retrained_lost": lost(rows, "retrained_retained"),
        "counts": counts,
        "judged": judged,
        "within": within,
        "deeper": means_of(rows),
    }


def _line(rows: Rows, gate: Gate) -> Plain:
    """All cells of one topology and method."""
    cells = cells_of(rows, {rows[0]["topology"]: gate})
    counted = [c for c in cells if c["counts"]]
    keys = {_key(c) for c in counted}
    among = [r for r in rows if _key(r) in keys]
    tried = {(r["seed"], r["request"], r["heir"]): (r["status"], r["why"].removeprefix("untouched: ")) for r in rows}
    alike: dict[tuple[str, str], list[str]] = {}
    for status, why in tried.values():
        if why:
            alike.setdefault((status, _kind(why)), []).append(why)
    spent = {(r["seed"], r["request"]): r["seconds"] for r in rows if r["seconds"] is not None}
    inherited = [c for c in counted if c["depth"]]
    gaps, gaps_before = _gaps(rows, "forgotten_after", edited=True), _gaps(rows, "forgotten_before")
    return {
        **{k: rows[0][k] for k in ("topology", "method", "simulation")},
        "outcomes": dict(Counter(status for status, _ in tried.values())),
        "reasons": [[len(of), status, of[0]] for (status, _), of in sorted(alike.items(), key=lambda one: -len(one[1]))],
        "cells": len(cells),
        "counted": len(counted),
        "judged": sum(c["judged"] for c in counted),
        "within": sum(c["within"] is True for c in counted),
        "left": share(among),
        "worst_heir": _worst(among, lambda r: str(r["heir"])),
        "worst_class": _worst(among, class_of),
        "worst": _worst(among, lambda r: f"{r['heir']}, {class_of(r)}"),
        "lost": lost(among, "retained_after"),
        "worst_lost": _most_lost(counted),
        "mask_lost": lost(among, "mask_retained"),
        "inherited": {
            "judged": sum(c["judged"] for c in inherited),
            "within": sum(c["within"] is True for c in inherited),
            "worst": _worst([r for r in among if r["depth"]], lambda r: f"{r['heir']}, {class_of(r)}"),
            "worst_lost": _most_lost(inherited),
        },
        "gap": _gap(gaps),
        "worst_gap": _worst_gap(gaps),
        "gap_lost": lost(gaps, "retained_after"),
        "gap_before": _gap(gaps_before),
        "worst_gap_before": _worst_gap(gaps_before),
        "travelled": _travelled(among),
        "deeper": means_of(rows),
        "not_measured": words_of(rows),
        "seconds": sum(spent.values()) / len(spent) if spent else None,
    }


def class_of(row: Mapping[str, Any]) -> str:
    """The class of a row or cell, and of which request where that is more than the class."""
    of, request = row["class"], row["request"]
    return str(of or request) if of in ("", request) else f"{of} ({request})"


def _worst(rows: Rows, name: Callable[[Mapping[str, Any]], str]) -> Plain | None:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for r in rows:
        groups.setdefault(name(r), []).append(r)
    found = [{"name": n, **s} for n, of in groups.items() if (s := share(of))]
    return max(found, key=lambda f: f["value"], default=None)


def _most_lost(cells: Rows) -> Plain | None:
    found = [{"name": f"{c['heir']}, {class_of(c)}", **c["lost"]} for c in cells]
    return max(found, key=lambda f: f["value"], default=None)


def _gaps(rows: Rows, what: str, *, edited: bool = False) -> list[Plain]:
    """Rows whose aim is what the retrained model recognises, each with how far it is from that.

    Where it is asked of edits, heirs that were edited at some seed count with all: at the others they are as they were.
    """
    return [
        {**r, "gap": abs(r[what] - r["retrained_forgotten"])}  # row by row, so that they do not cancel
        for of in _by(rows, "request", "class", "heir").values()
        if not edited or any(r["status"] in EDITED for r in of)
        for r in of
        if r["target"] == AS_RETRAINED and r[what] is not None and r["retrained_forgotten"] is not None
    ]


def _gap(gaps: Rows) -> Plain | None:
    """Their mean, and of how many rows; None where there is none."""
    found = _with_interval(gaps, lambda some: pooled(some, "gap", "rows_forgotten"), 0.0)
    return found and {**found, "n": sum(r["rows_forgotten"] for r in gaps)}


def _worst_gap(gaps: Rows) -> Plain | None:
    """The heir and request that are farthest from the retrained model, seeds pooled; None if nobody knows."""
    found = [
        {"name": f"{of[0]['heir']}, {class_of(of[0])}", "value": value, "n": sum(r["rows_forgotten"] for r in of)}
        for of in _by(gaps, "request", "class", "heir").values()
        if (value := pooled(of, "gap", "rows_forgotten")) is not None
    ]
    enough = [g for g in found if g["n"] >= JUDGED]  # a few rows that somebody gets wrong are no worst of anything
    return max(enough or found, key=lambda g: g["value"], default=None)


def _travelled(rows: Rows) -> list[int] | None:
    """How many strengths were calibrated at the roots, and of how many; None for a method of which none are."""
    rules = [r["rule"] for r in {(r["seed"], r["request"], r["heir"]): r for r in rows if r.get("rule")}.values()]
    found = sum(rule.startswith(AT_ROOTS) for rule in rules)
    return [found, len(rules)] if found else None


def _kind(why: str) -> str:
    """A reason without its numbers, so that many alike are one."""
    return re.sub(r"\d+(\.\d+)?", "n", why)


def _again(row: Mapping[str, Any]) -> Plain:
    """A row of the retrained family, as if retraining were a method."""
    said = {"method": RETRAINED, "simulation": False, "status": RETRAINED, "why": "", "mask_retained": None, "rule": None}
    after = {"forgotten_after": row["retrained_forgotten"], "retained_after": row["retrained_retained"]}
    return {**row, **said, **NOTHING, **after, "seconds": row["retrain_seconds"]}


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["request"], row["class"], row["heir"]


def _by(rows: Rows, *keys: str) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[k] for k in keys), []).append(row)
    return found
