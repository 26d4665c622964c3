"""Results of `fedunlearn.evaluation.evaluate` that are kept beside a family, one file a ledger line."""

import json
from typing import Any

from fedunlearn.errors import StoreError
from fedunlearn.runtime import Family
from fedunlearn.store import Line

Evaluations = dict[str, dict[str, dict[str, Any]]]  # model -> tier -> result


def evaluations_of(family: Family, line: Line) -> Evaluations:
    """What was measured for a ledger line; nothing where nothing was.

    Raises:
        StoreError: the file is damaged, or of another line.
    """
    path = family.folder / "evaluations" / f"{line.hash[:16]}.json"
    if not path.exists():
        return {}
    try:
        plain = json.loads(path.read_text())
        if plain["line"] != line.hash:
            raise ValueError(f"is of ledger line {plain['line']!r}, expected {line.hash}")
        return {model: dict(tiers.items()) for model, tiers in plain["models"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: not a file of evaluations ({error}); delete it and measure again") from error
