"""A comparison as files: CSV for machines and spreadsheets, Markdown for people, JSON with everything."""

import csv
import io
import json
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from fedunlearn.compare.table import details, notes, overview
from fedunlearn.errors import InputError
from fedunlearn.store import write_atomically

FIELDS = (
    "topology", "seed", "method", "simulation", "request", "class", "heir", "home", "born", "depth", "holds_class", "target",
    "status", "why", "forgotten_before", "forgotten_after", "retrained_forgotten", "rows_forgotten", "retained_before",
    "retained_after", "mask_retained", "retrained_retained", "rows_retained", "strength", "rule", "passes", "tow",
    "probe_above_retrained", "relearned", "membership_auc", "not_measured", "seconds", "evaluation_seconds",
    "train_seconds", "retrain_seconds", "commit",
)  # fmt: skip
LATER = (
    "measure_seconds",
    "rows_read",
    "rows_calibrated",
    "bytes_up",
    "relearned_retrained",
    "membership_auc_retrained",
)  # files from before there were these lack them

TEXT = ("topology", "method", "request", "class", "heir", "home", "born", "target", "status", "why", "not_measured", "commit")


def as_csv(result: Mapping[str, Any]) -> str:
    """One line for every topology, seed, request, method, heir and class; accuracies as fractions, empty where not tested."""
    text = io.StringIO()
    sheet = csv.DictWriter(text, FIELDS + LATER, lineterminator="\n")
    sheet.writeheader()
    for row in result["rows"]:
        sheet.writerow({**row, "strength": "" if row["strength"] is None else json.dumps(row["strength"])})
    return text.getvalue()


def rows_of(text: str) -> list[dict[str, Any]]:
    """The inverse of `as_csv`: rows as `compare` gives them.

    Raises:
        InputError: it is not one of its files.
    """
    sheet = csv.DictReader(io.StringIO(text))
    if lacking := set(FIELDS) - set(sheet.fieldnames or ()):
        raise InputError(f"not rows of a comparison: columns {', '.join(sorted(lacking))} are missing")
    return [dict.fromkeys(LATER) | {k: _plain(k, v) for k, v in row.items()} for row in sheet]


def _plain(field: str, text: str) -> Any:
    if field in TEXT:
        return text
    if not text:
        return None
    return text if field == "rule" else json.loads(text.lower() if text in ("True", "False") else text)


def as_markdown(result: Mapping[str, Any]) -> str:
    """The table, what must be said with it, and every cell."""
    said = "\n".join(f"- {note}" for note in notes(result))
    return f"# Comparison\n\n{overview(result).markdown()}\n\n{said}\n\n## Every cell\n\n{details(result).markdown()}\n"


def write(result: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    """Write `rows.csv`, `table.md`, `result.json` into a folder; others that lie there are moved to `earlier-1` and so on."""
    texts = {"table.md": as_markdown(result), "rows.csv": as_csv(result), "result.json": json.dumps(result, indent=1) + "\n"}
    files = {folder / name: text.encode() for name, text in texts.items()}
    if there := [file for file, text in files.items() if file.exists() and file.read_bytes() != text]:
        aside = next(to for n in count(1) if not (to := folder / f"earlier-{n}").exists())
        aside.mkdir()
        for file in there:
            file.rename(aside / file.name)
    for file, text in files.items():
        write_atomically(file, text)
    return tuple(files)
