"""Registers of the rows that models are trained on, kept beside the models from the first training on."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from fedunlearn.data import Rows
from fedunlearn.data.register import FOLDER, Recalled, Register
from fedunlearn.errors import InputError
from fedunlearn.store import write_atomically


@dataclass(frozen=True)
class Registers:
    """Of the sets that are opened for one family, or at one site.

    Args:
        folder: the family's, or the site's store.
    """

    folder: Path
    _found: dict[str, Recalled] = field(default_factory=dict)

    def recall(self, name: str, rows: Rows) -> Rows:
        """A set's rows as they were when models were first trained on them, stand-ins for those that are gone among them.

        Args:
            name: of the set.
            rows: as they are now.

        Raises:
            InputError: they cannot be the same set's.
            StoreError: the register is damaged.
        """
        path = self._path(name)
        self._found[name] = Register.read(path).recall(rows, f"set {name!r}") if path.exists() else Recalled(rows)
        return self._found[name].rows

    def gone(self, name: str) -> Collection[str]:
        """Keys of a set's rows that are not there any more."""
        return self._found[name].gone

    @property
    def names(self) -> Collection[str]:
        """Of the sets that were opened."""
        return self._found

    def stand_ins(self, name: str) -> Rows:
        """What stands for a set's rows that are gone."""
        found = self._found[name]
        return found.rows.take([i for i, key in enumerate(found.rows.keys) if key in found.gone])

    def present(self, name: str, part: Rows) -> Rows:
        """Some of a set's rows without those that are gone."""
        gone = self.gone(name)
        return part.take([i for i, key in enumerate(part.keys) if key not in gone]) if gone else part

    def check(self) -> None:
        """Before training: refuse rows that it would leave out, because they have come since.

        Raises:
            InputError: says how many, and of which set.
        """
        for name, found in self._found.items():
            if found.new:
                raise InputError(
                    f"set {name!r}: {found.new} rows have come since models were first trained on it, and would be left out; "
                    f"new rows belong into a set of their own (`more:`). If none of these models is in use, delete "
                    f"{self._path(name)}"
                )

    def hold(self) -> None:
        """Write what is not registered yet."""
        for name, found in self._found.items():
            if not (path := self._path(name)).exists():
                write_atomically(path, Register.of(found.rows).to_bytes())

    def erase(self, name: str, keys: Collection[str]) -> None:
        """Let nothing be known any more of some of a set's rows but their class and their place in its order."""
        if keys and (path := self._path(name)).exists():
            write_atomically(path, Register.read(path).without(keys).to_bytes())

    def _path(self, name: str) -> Path:
        return self.folder / FOLDER / f"{name}.json"
