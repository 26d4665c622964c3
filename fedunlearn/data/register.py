"""The rows of a set as they were when models were first trained on them.

A file or a loader gives rows anew at every start. By then some are gone (of those that were forgotten this is to be hoped),
some have come, and a query may give them in another order. Positions are no names then: a request would mean other rows, and
some that were trained on would be held out. By a register all that are still there keep their keys and where they were dealt.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Self

import torch
from blake3 import blake3
from pydantic import NonNegativeInt
from typing_extensions import TypedDict

from fedunlearn.data.rows import Rows
from fedunlearn.errors import InputError, StoreError
from fedunlearn.plain import shaped, stamped, unstamped

FOLDER = "registers"  # beside the models: a file a set
ERASED = ""  # the key and the mark of a row of which nothing is to be known any more


class _Plain(TypedDict):
    named: bool
    classes: list[str]
    keys: list[str]
    labels: list[NonNegativeInt]
    marks: list[str]


@dataclass(frozen=True)
class Recalled:
    """A set as it was.

    Args:
        rows: all of them as they stood then; those that are gone have inputs of zeros.
        gone: keys of these.
        new: how many rows there are now that are not among them.
    """

    rows: Rows
    gone: frozenset[str] = frozenset()
    new: int = 0


@dataclass(frozen=True)
class Register:
    """What each row of a set was, in order.

    Args:
        named: rows have names of their own. Numbers that ascend are taken for positions, which name nothing.
        classes: names of the classes.
        keys: of the rows.
        labels: indices into `classes`.
        marks: hashes by which rows are known again: of the class and, where rows have names, the name, otherwise the input.
    """

    named: bool
    classes: tuple[str, ...]
    keys: tuple[str, ...]
    labels: tuple[int, ...]
    marks: tuple[str, ...]

    @classmethod
    def of(cls, rows: Rows) -> Self:
        """Of rows as they are."""
        named = _named(rows.keys)
        return cls(named, rows.classes, rows.keys, tuple(rows.y.tolist()), _marks(rows, named))

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file.

        Raises:
            StoreError: it is not what `to_bytes` gives.
        """
        try:
            plain = shaped(unstamped(path.read_bytes()), _Plain)
            found = cls(
                plain["named"], tuple(plain["classes"]), tuple(plain["keys"]), tuple(plain["labels"]), tuple(plain["marks"])
            )
            if not len(found.keys) == len(found.labels) == len(found.marks):
                raise ValueError(f"{len(found.keys)} keys, {len(found.labels)} labels and {len(found.marks)} marks")
            if (greatest := max(found.labels, default=-1)) >= len(found.classes):
                raise ValueError(f"a label {greatest} of {len(found.classes)} classes")
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{path}: not a register of rows ({error}); take it from a backup. Without it (delete it) rows are called as "
                f"they stand now, which is right only if none has come, gone or moved since models were trained"
            ) from error
        return found

    def to_bytes(self) -> bytes:
        """As it is written."""
        lists = {k: list(v) for k, v in vars(self).items() if k != "named"}
        return stamped({"named": self.named, **lists})

    def recall(self, rows: Rows, what: str) -> Recalled:
        """The set as it was, out of the rows that there are now.

        Args:
            rows: as a file or a loader gives them now.
            what: where they came from, to say in an error.

        Raises:
            InputError: none of them was there, or rows had names of their own and have none now, or the other way round.
        """
        if len(rows) and _named(rows.keys) != self.named:
            then, now = ("names", "none")[:: 1 if self.named else -1]
            raise InputError(f"{what}: rows had {then} when models were trained on them, and have {now} now; give them as then")
        marks = _marks(rows, self.named)
        if (rows.classes, rows.keys, marks) == (self.classes, self.keys, self.marks):
            return Recalled(rows)
        spare: dict[str, list[int]] = {}
        for at in reversed(range(len(marks))):
            spare.setdefault(marks[at], []).append(at)
        found = [spare[m].pop() if spare.get(m) else None for m in self.marks]
        here = [i for i, at in enumerate(found) if at is not None]
        if not here and len(rows) and any(m != ERASED for m in self.marks):
            raise InputError(
                f"{what}: none of its {len(rows)} rows is one of the {len(self.keys)} that models were trained on; was another "
                f"set put in its place, or are inputs made in another way (scale, size, tokens)? Give the rows as then"
            )
        x = torch.zeros((len(self.keys), *rows.x.shape[1:]), dtype=rows.x.dtype)
        x[here] = rows.x[[at for at in found if at is not None]]
        keys = tuple(key if key != ERASED else f"erased {i}" for i, key in enumerate(self.keys))
        before = Rows(x, torch.tensor(self.labels, dtype=torch.int64), keys, self.classes)
        gone = frozenset(keys[i] for i, at in enumerate(found) if at is None)
        return Recalled(before, gone, len(rows) - len(here))

    def without(self, keys: Collection[str]) -> Self:
        """The same, with nothing known of some rows but their class and their place in the order."""
        keep = [key not in keys for key in self.keys]
        return replace(self, keys=_blank(self.keys, keep), marks=_blank(self.marks, keep))


def _blank(texts: Sequence[str], keep: Sequence[bool]) -> tuple[str, ...]:
    return tuple(text if kept else ERASED for text, kept in zip(texts, keep, strict=True))


def _named(keys: Sequence[str]) -> bool:
    if not all(key.isdecimal() for key in keys):
        return True
    numbers = [int(key) for key in keys]
    return any(a >= b for a, b in pairwise(numbers))


def _marks(rows: Rows, named: bool) -> tuple[str, ...]:
    inputs = (key.encode() for key in rows.keys) if named else (x.tobytes() for x in rows.x.contiguous().numpy())
    return tuple(blake3(label.encode() + b"\0" + of).hexdigest(16) for label, of in zip(rows.labels, inputs, strict=True))
