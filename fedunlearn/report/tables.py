"""The document as CSV, one text a table, each row complete by itself."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedunlearn.report.measurements import measurements

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet runs what begins like this


def tables(document: Mapping[str, Any]) -> dict[str, str]:
    """Name of a table -> CSV text (RFC 4180, with a header).

    Numbers are as in the record, fractions and no percent; an empty cell is not measured. Text that a spreadsheet would run as
    a formula gets an apostrophe in front.

    Args:
        document: what `document` gives.
    """
    columns = (
        "name", "home", "born", "affected", "target", "status", "risk", "forgotten_before", "forgotten_after",
        "retrained_forgotten", "retained_before", "retained_after", "mask_retained", "retrained_retained", "forgotten_on",
        "rows_forgotten", "rows_retained", "scored", "evidence", "version_before", "version_after", "why", "findings",
        "objections",
    )  # fmt: skip
    measured = [row for model, tiers in document["evaluations"].items() for row in measurements(model, tiers)]
    points = [{"evidence": s["id"], **point} for s in document["evidence"]["sets"] for point in s["points"]]
    missing = [
        {"model": model, "what": what, "why": entry["why"]}
        for entry in document["not_measured"]
        for model in entry["models"]
        for what in entry["what"]
    ]
    return {
        "models": _csv(columns, document["models"]),
        "measurements": _csv(("model", "tier", "metric", "net", "of", "value", "low", "high", "n", "words"), measured),
        "not_measured": _csv(("model", "what", "why"), missing),
        "evidence": _csv(("evidence", "model", "site", "shard"), points),
        "traffic": _csv(("place", "up", "down"), document["cost"]["traffic"]),
        "objections": _csv(("model", "text"), document["objections"]),
    }


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows([_cell(row.get(c)) for c in columns] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
