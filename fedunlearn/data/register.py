"""The rows of a set as they were when models were first trained on them.

A file or a loader gives rows anew at every start. By then some are gone (of those that were forgotten this is to be hoped),
some have come, and a query may give them in another order. Positions are no names then: a request would mean other rows, and
some that were trained on would be held out. By a register all that are still there keep their keys and where they were dealt.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
from blake3 import blake3
from pydantic import NonNegativeInt
from typing_extensions import TypedDict

from fedunlearn.data.rows import Rows
from fedunlearn.errors import InputError, StoreError
from fedunlearn.plain import shaped, stamped, unstamped

FOLDER = "registers"  # beside the models: a file a set
LIST = "registered.json"  # in a site's store, which has no ledger to tell which registers there must be
ERASED = ""  # the key and the mark of a row of which nothing is to be known any more


class _Plain(TypedDict):
    named: bool
    classes: list[str]
    keys: list[str]
    labels: list[NonNegativeInt]
    marks: list[str]


class _Listed(TypedDict):
    sets: list[str]


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
        named: rows have names of their own, by which they are known even where their inputs have changed. Numbers that ascend
            are taken for positions, which name nothing; then a row that has changed counts as another.
        classes: names of the classes.
        keys: of the rows.
        labels: indices into `classes`.
        marks: hashes of class and input.
    """

    named: bool
    classes: tuple[str, ...]
    keys: tuple[str, ...]
    labels: tuple[int, ...]
    marks: tuple[str, ...]

    @classmethod
    def of(cls, rows: Rows) -> Self:
        """Of rows as they are."""
        return cls(_named(rows.keys), rows.classes, rows.keys, tuple(rows.y.tolist()), _marks(rows))

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

        A row is one that has its class and input, of several such the one that has its key; then, where rows have names, one
        that has its class and name.

        Args:
            rows: as a file or a loader gives them now.
            what: where they came from and what to do otherwise, to say in an error.

        Raises:
            InputError: none of them was there.
        """
        marks = _marks(rows)
        if (rows.classes, rows.keys, marks) == (self.classes, self.keys, self.marks):
            return Recalled(rows)
        mine = [self.classes[label] for label in self.labels]
        left, found = dict.fromkeys(range(len(rows))), dict[int, int]()
        ways: list[tuple[list[Any], list[Any]]] = [
            (list(zip(self.keys, self.marks, strict=True)), list(zip(rows.keys, marks, strict=True))),
            (list(self.marks), list(marks)),
        ]
        if self.named:
            ways.append((list(zip(self.keys, mine, strict=True)), list(zip(rows.keys, rows.labels, strict=True))))
        for was, now in ways:
            spare: dict[Any, list[int]] = {}
            for at in reversed(left):
                spare.setdefault(now[at], []).append(at)
            for i, one in enumerate(was):
                if i not in found and self.marks[i] != ERASED and spare.get(one):
                    found[i] = spare[one].pop()
                    del left[found[i]]
        if not found and len(rows) and any(m != ERASED for m in self.marks):
            raise InputError(
                f"{what}: none of the {len(rows)} rows is one of the {len(self.keys)} that models were trained on; was another "
                f"set put in its place, or are inputs made in another way (scale, size, tokens)? Give the rows as then"
            )
        x = torch.zeros((len(self.keys), *rows.x.shape[1:]), dtype=rows.x.dtype)
        x[list(found)] = rows.x[list(found.values())]
        keys = tuple(key if key != ERASED else f"erased {i}" for i, key in enumerate(self.keys))
        before = Rows(x, torch.tensor(self.labels, dtype=torch.int64), keys, self.classes)
        return Recalled(before, frozenset(key for i, key in enumerate(keys) if i not in found), len(left))

    def without(self, keys: Collection[str]) -> Self:
        """The same, with nothing known of some rows but their class and their place in the order."""
        keep = [key not in keys for key in self.keys]
        return replace(self, keys=_blank(self.keys, keep), marks=_blank(self.marks, keep))


def register_file(folder: Path, name: str) -> Path:
    """Where the register of a set is, in the folder of a family or a site's store."""
    return folder / FOLDER / f"{name}.json"


def register_hash(folder: Path, name: str) -> str:
    """A hash of the register's file; empty where there is none."""
    path = register_file(folder, name)
    return blake3(path.read_bytes()).hexdigest() if path.exists() else ""


def listed(store: Path) -> tuple[str, ...]:
    """Sets that a site has registered, by its own list; it must have a register of each.

    Raises:
        StoreError: the list is damaged.
    """
    path = store / LIST
    if not path.exists():
        return ()
    try:
        return tuple(shaped(unstamped(path.read_bytes()), _Listed)["sets"])
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: not a list of registers ({error}); take it from a backup") from error


def list_of(names: Collection[str]) -> bytes:
    """A site's list of its registers, as it is written."""
    return stamped({"sets": sorted(names)})


def lost(store: Path) -> list[str]:
    """What to say of each register that a site's list names and that is not there.

    Raises:
        StoreError: the list is damaged.
    """
    paths = {name: register_file(store, name) for name in listed(store)}
    return [
        f"{path}: is lost; it told which rows of set {name!r} models were trained on: restore it from a backup, or delete "
        f"{store / LIST} if no such model is in use, or no row has come, gone or moved since"
        for name, path in paths.items()
        if not path.exists()
    ]


def _blank(texts: Sequence[str], keep: Sequence[bool]) -> tuple[str, ...]:
    return tuple(text if kept else ERASED for text, kept in zip(texts, keep, strict=True))


def _named(keys: Sequence[str]) -> bool:
    if not all(key.isdecimal() for key in keys):
        return True
    numbers = [int(key) for key in keys]
    return any(a >= b for a, b in pairwise(numbers))


def _marks(rows: Rows) -> tuple[str, ...]:
    pairs = zip(rows.labels, rows.x.contiguous().numpy(), strict=True)
    return tuple(blake3(label.encode() + b"\0" + x.tobytes()).hexdigest(16) for label, x in pairs)
