"""Accuracies on what is forgotten and on the rest: what a strength is chosen by, and what the gate judges."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KNOWN = 0.5  # of what is to be forgotten: a model that names less of it before has little to forget


@dataclass(frozen=True)
class Scores:
    """Accuracies as fractions, with the numbers of rows; None means not tested.

    Args:
        forgotten: on what is forgotten, all classes together.
        retained: on the rest.
        rows_forgotten: how many rows.
        rows_retained: how many rows.
        by_class: for class requests, on each forgotten class that the model can name.
    """

    forgotten: float | None
    retained: float | None
    rows_forgotten: int
    rows_retained: int
    by_class: Mapping[str, float | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**vars(self), "by_class": dict(self.by_class)}
