"""Accuracies on what is forgotten and on the rest: what a strength is chosen by, and what the gate judges."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedunlearn.errors import ShapeError

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

    Raises:
        ShapeError: an accuracy is no fraction, or a number of rows is negative.
    """

    forgotten: float | None
    retained: float | None
    rows_forgotten: int
    rows_retained: int
    by_class: Mapping[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        said = [v for v in (self.forgotten, self.retained, *self.by_class.values()) if v is not None]
        if not all(0 <= v <= 1 for v in said) or self.rows_forgotten < 0 or self.rows_retained < 0:
            raise ShapeError(f"scores {self.to_json()}: expected fractions, of no less than no rows")

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**vars(self), "by_class": dict(self.by_class)}
