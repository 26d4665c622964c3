"""What every figure shows, out of the rows of its results and nothing else; `figures` draws it."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from statistics import mean, stdev

from compare_methods import STUDIES
from figures import Dots, Lines, Panel, Span
from grouped import Row, by_method, each, grouped, mean_of, over, said, where
from open_questions_answers import masked
from panels_of_costs import applied, carried, plans, rivals, scale, stored
from reproduced import RETRAINED, Rows, again, counted, left, lost, rest

PERCENT, POINTS = "still recognised, %", "lost on the rest, points"
BOTH = (PERCENT, left), (POINTS, lost)
DEEP = 4  # generations, of an inheritance that is drawn


def _pair(rows: Rows, cell: str, x: str, retrained: bool, log: str = "") -> list[Panel]:
    """What is left, and what that cost."""
    return [Lines(cell, x, y, by_method(rows, cell, m, retrained), log) for y, m in BOTH]


def _rows_of(rows: Rows, title: str, at: str, retrained: bool, by: str = "method") -> list[Panel]:
    """The same, a row for each value of a key."""
    return [Dots(title, x, grouped(rows, m, at, retrained, by)) for x, m in BOTH]


def _repeated(rows: Rows) -> list[Panel]:
    panels: list[Panel] = []
    for cell in each(rows, "cell"):
        of = where(rows, cell=cell)
        some = where(of, method=of[0]["method"])
        some = where(some, at=max(r["at"] for r in some))  # it lacks all of it from the start
        dropped = grouped(of, partial(mean_of, _dropped), "at")
        dropped[RETRAINED] = over(some, partial(mean_of, lambda r: _dropped(r, "rest_retrained")), "at")
        known = grouped(of, said("forgotten"), "at")
        known[RETRAINED] = over(some, said("retrained"), "at")
        panels += [Lines(cell, "requests so far", y, lines) for y, lines in ((PERCENT, known), (POINTS, dropped))]
    return panels


def _dropped(row: Row, after: str = "rest") -> float:
    return 100 * float(row["rest_before"] - row[after])


def _size(rows: Rows) -> list[Panel]:
    return _pair(rows, "classes", "classes forgotten, %", True) + _pair(rows, "rows", "training rows forgotten, %", True, "x")


def _cells(title: str, retrained: bool) -> Callable[[Rows], list[Panel]]:
    """A row a cell, in the order of their places."""

    def panels(rows: Rows) -> list[Panel]:
        return _rows_of(counted(sorted(rows, key=lambda r: r["at"])), title, "cell", retrained)

    return panels


def _drift(rows: Rows) -> list[Panel]:
    panels: list[Panel] = []
    for cell in each(rows, "cell"):
        alike = [r | {"whose": f"{r['evidence']}, {r['part']}"} for r in where(rows, cell=cell) if "cosine" in r]
        lines = grouped(alike, partial(mean_of, lambda r: float(r["cosine"])), "at", by="whose")
        panels += [
            Lines(cell, "generations below the root", "cosine with own evidence", lines),
            *(Lines(cell, "generations below the root", y, by_method(rows, cell, m, True)) for y, m in BOTH),
        ]
    return panels


def _labels(rows: Rows) -> list[Panel]:
    return _pair(rows, "wrong labels", "wrong labels, %", True)


def _unequal(rows: Rows) -> list[Panel]:
    return _pair(rows, "unequal classes", "rows, % of another class's", True, "x")


def _whole(rows: Rows) -> list[Panel]:
    of = [r | {"masked": masked(r)} for r in rows]
    return _rows_of(of, "single weights", "masked", True)


def _parts(rows: Rows) -> list[Panel]:
    given = [r for r in rows if r["at"]]
    return [
        Lines(cell, "units masked, %", y, by_method(given, cell, metric, True))
        for cell in each(given, "cell")
        for y, metric in ((PERCENT, left), ("accuracy on the rest, %", rest))
    ]


def _strength(rows: Rows) -> list[Panel]:
    given = [r for r in rows if r["at"]]
    return [p for cell in each(given, "cell") for p in _pair(given, cell, "alpha", False, "x")]


def _ratios(rows: Rows) -> list[Panel]:
    """FisherMask's ratios: a line a way, its ratio taken off its name; then epochs of its schedule, a line a ratio."""
    ways, scheduled = [], []
    for row in rows:
        if found := re.fullmatch(r"mask ([\d.]+)%(, .*)?", row["method"]):
            ratio, way = float(found[1]), found[2] or ""
            after = re.fullmatch(r", then (\d+) epochs?", way)
            if row["cell"].startswith("ratio"):
                ways.append(row | {"cell": "a class", "at": ratio, "method": f"mask{way}"})
            if after or not way:
                scheduled.append(row | {"cell": "a class", "at": int(after[1]) if after else 0, "method": f"mask {ratio:g}%"})
    tried = {r["method"] for r in scheduled if r["at"] == 1}
    some = [r for r in scheduled if r["method"] in tried]
    epochs = _pair(some, "a class", "epochs of the schedule", True) if some else []
    return _pair(ways, "a class", "units masked, %", True) + epochs


def _inherited(rows: Rows) -> list[Panel]:
    """Families that are deep enough to see it."""
    named = {"request": "", "class": ""}
    some = [r | named | {"cell": r["family"], "at": r["depth"], "heir": r["name"]} for r in rows]
    deep = [f for f in each(some, "cell") if max(r["at"] for r in some if r["cell"] == f) > DEEP]
    return [p for f in deep for p in _pair(some, f, "models below the last trained on it", True)]


def _poisoned(rows: Rows) -> list[Panel]:
    """What each merge bears of each lie, all heirs together."""
    return [p for m in each(rows, "method") for p in _rows_of(where(rows, method=m), m, "poison", False, "merging")]


def _factors(rows: Rows) -> list[Panel]:
    """FIUn's cells: a row each."""
    return _rows_of(counted(rows), "all heirs that knew it", "cell", True)


def _asked(rows: Rows) -> list[Panel]:
    """A pair a cell, a row a method."""
    panels: list[Panel] = []
    for cell in each(rows, "cell"):
        of = counted(where(rows, cell=cell))
        first = where(of, method=of[0]["method"])
        both = [r | {"who": "edited"} for r in of] + [r | {"who": "edited", "method": RETRAINED} for r in again(first)]
        panels += _rows_of(both, cell, "method", False, "who")
    return panels


def _compared(lines: Rows) -> list[Panel]:
    """Of each topology's summary a pair, a row a method; where retraining is the aim, one: how far from it."""
    panels: list[Panel] = []
    for topology in each(lines, "topology"):
        of = where(lines, topology=topology)
        for x, whole, worst in (
            (PERCENT, "left", "worst"),
            (POINTS, "lost", "worst_lost"),
            ("away from retrained, points", "gap", "worst_gap"),
        ):
            dots = {"all cells": _spans(of, whole), "the worst of them": _spans(of, worst)}
            panels += [Dots(topology, x, dots)] * any(dots.values())
    return panels


def _spans(lines: Rows, key: str) -> dict[str, Span]:
    found = {line["method"]: line[key] for line in lines if line.get(key) is not None}
    return {m: Span(*(100 * (s["value"] if s.get(k) is None else s[k]) for k in Span._fields)) for m, s in found.items()}


def _classes(rows: Rows) -> list[Panel]:
    """A row a class, all heirs that are to forget it together."""
    named = [r | {"class": f"class {r['class']}"} for r in where(rows, target="absent")]
    return _rows_of(named, "all heirs", "class", True)


def _settings(rows: Rows) -> list[Panel]:
    of = [r | {"classes": f"class{'es' * (',' in r['classes'])} {r['classes']}"} for r in rows]
    metrics = (*BOTH, ("brought back by one number, %", said("raised")))
    return [Dots("all heirs", x, grouped(of, m, "setting", by="classes")) for x, m in metrics]


def _probed(rows: Rows) -> list[Panel]:
    before = {(r["net"], r["seed"], r["model"]): r["retained"] for r in where(rows, edit="before")}
    panels: list[Panel] = []
    for net in each(rows, "net"):
        of = [r | {"drop": before[net, r["seed"], r["model"]] - r["retained"]} for r in where(rows, net=net)]
        for x, key in (("recognised by a linear probe, %", "probe"), (POINTS, "drop")):
            panels.append(Dots(net, x, grouped(of, said(key), "edit", by="model")))
    return panels


def _apart(rows: Rows) -> list[Panel]:
    """How far from retrained models' mean, in their standard deviations; a panel a measure."""
    known = [r for r in rows if "failed" not in r]
    untouched = [r | {"method": "untouched", "after": r["before"]} for r in known if r["before"] is not None]
    x, far = "standard deviations from retrained models", partial(mean_of, _deviations)
    both = known + untouched
    return [Dots(m, x, grouped(where(both, measure=m), far, "method", by="request")) for m in each(known, "measure")]


def _deviations(row: Row) -> float:
    return float(abs(row["after"] - mean(row["retrained"])) / stdev(row["retrained"]))


def _leaks(rows: Rows) -> list[Panel]:
    """What the best attack tells of members and labels under each guard, and what the guard costs."""
    kinds: tuple[tuple[str, str, Callable[[Row], str], Callable[[Row], Span]], ...] = (
        ("member", "AUC of the best attack on membership",
         lambda r: f"{r['statistic']}, {r['layers']}, {r['n'] or 'all'} rows", lambda r: _span(r["auc"])),
        ("labels", "error of guessed labels",
         lambda r: f"{r['statistic']}, {r['part']}, {r['n']} rows", lambda r: _span(r["error"])),
        ("cost", POINTS, lambda r: f"{r['method']}, {r['heir']}", lambda r: Span.of([100 * r["lost"]])),
    )  # fmt: skip
    panels: list[Panel] = []
    for what, x, name, span in kinds:
        for net in each(rows, "net"):
            dots: dict[str, dict[str, Span]] = {}
            for row in (r for r in where(rows, what=what, net=net) if r.get("attack") != "pool"):
                of = dots.setdefault(_guard(row), {})
                of[name(row)] = max(of.get(name(row), span(row)), span(row))
            panels.append(Dots(net, x, dots))
    return panels


def _guard(row: Row) -> str:
    return "as it is" if row["clip"] is None else f"clip {row['clip']:g}, noise {row['noise']:g}"


def _span(value: Mapping[str, float]) -> Span:
    return Span(value["value"], value["low"], value["high"])


PANELS: dict[str, Callable[[Rows], list[Panel]]] = {
    "open_repeated": _repeated, "open_size": _size, "open_shift": _cells("evidence measured on other rows", False),
    "open_drift": _drift, "open_labels": _labels, "open_unequal": _unequal, "open_parts": _parts, "open_whole": _whole,
    "open_strength": _strength, "open_place": _strength,
    "open_nets": _cells("one class, one model", True),
    "reproduce_fiun": _factors, "reproduce_fiun_gpu": _factors, "reproduce_ssd": _asked, "reproduce_lfssd": _asked,
    "reproduce_fishermask": _ratios, "inherited": _inherited, "poisoned_evidence": _poisoned,
    "hospitals_classes": _classes, "steer_ablation": _settings, "depth_probe": _probed, "rows_and_sites": _apart,
    "evidence_leaks": _leaks, **{f"compare_{study}": _compared for study in STUDIES},
    "bench_importance": rivals, "bench_plan": plans, "bench_store_2": stored, "bench_store_16": stored,
    "bench_runtime": carried, "bench_apply": applied, "scale": scale,
}  # fmt: skip
