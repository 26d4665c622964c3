"""Rows of a result as series that can be drawn: by the value of one key, over those of another."""

from collections.abc import Callable
from functools import partial
from statistics import mean
from typing import Any

from figures import Span
from reproduced import RETRAINED, Rows, again, counted

Metric = Callable[[Rows], float | None]
Row = dict[str, Any]


def by_method(rows: Rows, cell: str, metric: Metric, retrained: bool = False) -> dict[str, dict[float, Span]]:
    """A line a method over the values of a cell, seed by seed, of heirs that knew what they were to forget."""
    of = [r for r in counted([r for r in rows if "method" in r]) if r["cell"] == cell]
    return grouped(of, metric, "at", retrained)


def grouped(rows: Rows, metric: Metric, at: str, retrained: bool = False, by: str = "method") -> dict[str, dict[Any, Span]]:
    """A series for each value of a key, over the values of another, seed by seed; and the retrained models', if asked for."""
    found = {m: over(where(rows, **{by: m}), metric, at) for m in each(rows, by)}
    return {**found, RETRAINED: over(again(rows), metric, at)} if retrained else found


def over(rows: Rows, metric: Metric, at: str) -> dict[Any, Span]:
    """A metric over the values of a key, numbers in their order, where a seed has it."""
    places = each(rows, at)
    numbers = all(isinstance(place, int | float) for place in places)
    spans = {place: _seeds(where(rows, **{at: place}), metric) for place in (sorted(places) if numbers else places)}
    return {place: span for place, span in spans.items() if span is not None}


def _seeds(rows: Rows, metric: Metric) -> Span | None:
    found = [metric(where(rows, seed=seed)) for seed in each(rows, "seed")]
    known = [value for value in found if value is not None]
    return Span.of(known) if known else None


def each(rows: Rows, key: str) -> list[Any]:
    """Values of a key, in the order in which they come."""
    return list(dict.fromkeys(row[key] for row in rows))


def where(rows: Rows, **values: Any) -> list[Row]:
    """Rows that have these values."""
    return [row for row in rows if all(row[key] == value for key, value in values.items())]


def mean_of(of: Callable[[Row], float | None], rows: Rows) -> float | None:
    """The mean of what is known of rows."""
    known = [value for value in map(of, rows) if value is not None]
    return mean(known) if known else None


def said(key: str) -> Metric:
    """The mean of what rows say, in %."""
    return partial(mean_of, lambda row: None if row[key] is None else 100 * float(row[key]))
