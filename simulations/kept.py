"""Results of comparisons as they are kept: what was asked as JSON, its rows beside it as CSV; all else is made of the rows."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import RESULTS, keep

from fedunlearn.compare import as_csv, rows_of
from fedunlearn.compare.cells import cells_of, summary_of
from fedunlearn.compare.origin import joined
from fedunlearn.errors import InputError
from fedunlearn.evaluation import Gate

Result = dict[str, Any]
CELL = ("topology", "seed", "request", "heir", "class", "method")
FAMILY = ("forgotten_before", "retained_before", "retrained_forgotten", "retrained_retained")  # where they are known
MADE = ("cells", "summary")  # of rows


def read(path: Path) -> Result:
    """A result; of a comparison with its rows, its cells and its summary."""
    result: Result = json.loads(path.read_text())
    sheet = path.with_suffix(".csv")
    return summed(result | {"rows": rows_of(sheet.read_text())}) if sheet.exists() else result


def write(name: str, result: Result) -> None:
    """Keep a comparison under `results/`."""
    path = keep(name, {k: v for k, v in result.items() if k not in ("rows", *MADE)})
    path.with_suffix(".csv").write_text(as_csv(result))


def summed(result: Mapping[str, Any]) -> Result:
    """A comparison with its cells and its summary."""
    limits = {name: Gate(**of) for name, of in result["limits"].items()}
    return {**result, "summary": summary_of(result["rows"], limits), "cells": cells_of(result["rows"], limits)}


def beside(name: str, result: Result) -> Result:
    """A result of some methods or seeds in place of their rows of the one that is kept; every row says of which commit it is.

    Raises:
        InputError: the families are not the same, so that rows cannot be compared.
    """
    if not (path := RESULTS / f"{name}.json").exists():
        return result
    earlier = read(path)
    old, fresh = ({tuple(row[k] for k in CELL): row for row in of["rows"]} for of in (earlier, result))
    same = {cell[:-1]: row for cell, row in fresh.items()}
    for cell, row in ((c, r) for c, r in old.items() if c not in fresh):
        now = same.get(cell[:-1], row)
        if other := [k for k in FAMILY if None not in (now[k], row[k]) and now[k] != row[k]]:
            where = ", ".join(map(str, cell[:-1]))
            raise InputError(f"{where}: {other[0]} was {row[other[0]]}, is {now[other[0]]}: another family; run all methods")
    methods = {m["label"]: m for m in (*earlier["methods"], *result["methods"])}
    return summed({
        **earlier, **joined([earlier, result]), "seeds": sorted({*earlier["seeds"], *result["seeds"]}),
        **{k: earlier[k] | result[k] for k in ("topologies", "limits")}, "methods": list(methods.values()),
        "rows": [fresh.get(cell, row) for cell, row in old.items()] + [row for cell, row in fresh.items() if cell not in old],
    })  # fmt: skip
