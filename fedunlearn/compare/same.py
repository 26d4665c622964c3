"""Are heirs that a method starts from those that were kept? Rows may have changed since, and a net's code."""

from collections.abc import Mapping, Sequence
from math import isclose
from pathlib import Path
from typing import Any

from fedunlearn.errors import InputError

REST = ("retained_before", "rows_retained")
GONE = ("forgotten_before", "rows_forgotten")


def check_same(before: Sequence[Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]], kept: Path) -> None:
    """Refuse to put side by side what is of different rows, or of different nets.

    Args:
        before: heirs as they were kept, a row for each class.
        now: the same heirs as a record says that they were before its edit, by name.
        kept: where the former are.

    Raises:
        InputError: one scores otherwise than before, or on another number of rows.
    """
    several = {one["class"] for one in before}
    for one in before:
        told = len(several) > 1 or one["forgotten_before"] is None  # a record has the score of all classes together
        for what in REST if told else (*REST, *GONE):
            was, is_ = one[what], now[one["heir"]][what]
            if not (was == is_ or (None not in (was, is_) and isclose(was, is_, abs_tol=1e-9))):
                raise InputError(
                    f"{one['heir']}: {what} is {is_}, and {was} is kept in {kept}: that is of other rows, or of another net; "
                    f"take everything anew (another --out)"
                )
