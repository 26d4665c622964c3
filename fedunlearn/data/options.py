"""How a set is opened, as the user wrote it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Any

from fedunlearn.data.rows import Rows
from fedunlearn.errors import InputError, unknown

PARTS = ("train", "test")


@dataclass(frozen=True)
class Options:
    """Settings of a set; each applies to some kinds of sets.

    Args:
        download: let torchvision fetch what is not in the data folder.
        size: side that images of a folder are resized to.
        tokens: how many tokens of a text are read; shorter texts are padded.
        vocabulary: token ids run from 0 to below this.
        scale: inputs are divided by it.
        limit: only so many rows of each class, the first ones; 0 for all.
    """

    download: bool = False
    size: int = 32
    tokens: int = 64
    vocabulary: int = 4096
    scale: float = 1.0
    limit: int = 0

    @classmethod
    def read(cls, given: Mapping[str, Any], applies: Collection[str], what: str) -> "Options":
        """From what the user wrote.

        Args:
            given: options by name.
            applies: those that this kind of set has.
            what: the set, to say in an error.

        Raises:
            InputError: an option that there is not, that does not apply here, or whose value is wrong.
        """
        known = {f.name: f.default for f in fields(cls)}
        for name, value in given.items():
            if name not in known:
                raise unknown("data option", name, known, where=what)
            if name not in applies:
                raise InputError(
                    f"{what}: option {name!r} does not apply to this kind of set, which takes "
                    f"{', '.join(sorted(applies))}; leave it out"
                )
            _check(name, value, known[name], what)
        return replace(cls(), **given)

    def finish(self, rows: Rows) -> Rows:
        """Rows limited and scaled."""
        some = rows.first(self.limit) if self.limit else rows
        return replace(some, x=some.x / self.scale) if self.scale != 1.0 else some


def part_of(name: str, part: str) -> str:
    """The file that a name with `{part}` means; a name without is the same file for either part.

    Raises:
        InputError: the part is neither train nor test.
    """
    if part not in PARTS:
        raise unknown("part", part, PARTS, where=f"data set {name!r}")
    return name.replace("{part}", part)


def _check(name: str, value: Any, like: Any, what: str) -> None:
    if isinstance(like, bool):
        if not isinstance(value, bool):
            raise InputError(f"{what}: option {name!r} is {value!r}, expected true or false")
    elif isinstance(like, float):
        if isinstance(value, bool) or not isinstance(value, int | float) or not (isfinite(value) and value > 0):
            raise InputError(f"{what}: option {name!r} is {value!r}, expected a number above 0")
    else:
        least = 2 if name == "vocabulary" else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{what}: option {name!r} is {value!r}, expected a whole number of {least} or more")
