"""Registers of the rows that models are trained on, kept beside the models from the first training on."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import FileLock

from fedunlearn.data import Rows, open_rows
from fedunlearn.data.register import FOLDER, LIST, Recalled, Register, list_of, listed, register_file, register_hash
from fedunlearn.errors import InputError
from fedunlearn.scenario.sources import Opening
from fedunlearn.store import write_atomically

LOCK = "lock"
UNUSED = "if no model that was trained on it is in use, delete {}"


@dataclass(frozen=True)
class Registers:
    """Of the sets that are opened for one family, or at one site.

    Args:
        folder: the family's, or the site's store.
    """

    folder: Path
    _found: dict[str, Recalled] = field(default_factory=dict)

    def open(self, name: str, spec: Opening, beside: str) -> Rows:
        """Recall a set that is opened by its name or from a file.

        Args:
            name: of the set here.
            spec: how it is opened. Once it is registered, whole: a limit would cut off other rows than then.
            beside: the folder in which a relative path is looked up.

        Raises:
            InputError: it cannot be opened, or as `recall`.
            StoreError: as `recall`.
        """
        options = {k: v for k, v in spec.options.items() if k != "limit" or not self._has(name)}
        return self.recall(name, open_rows(spec.set or "", beside=beside, options=options), limited=spec.limit is not None)

    def recall(self, name: str, rows: Rows, limited: bool = False) -> Rows:
        """A set's rows as they were when models were first trained on them, stand-ins for those that are gone among them.

        Args:
            name: of the set.
            rows: as they are now.
            limited: only some of the set's rows were taken, so that others are nothing new.

        Raises:
            InputError: they cannot be the same set's.
            StoreError: the register is damaged.
        """
        found = Recalled(rows)
        if self._has(name):
            path = self._path(name)
            found = Register.read(path).recall(rows, f"set {name!r} ({UNUSED.format(path)})")
        self._found[name] = replace(found, new=0) if limited else found
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
        return found.rows.named(found.gone)

    def present(self, name: str, part: Rows) -> Rows:
        """Some of a set's rows without those that are gone."""
        return part.but(self.gone(name))

    def check(self, names: Collection[str]) -> None:
        """Before training on these sets: refuse rows that it would leave out, because they have come since.

        Raises:
            InputError: says how many, and of which set.
        """
        for name in (n for n in names if n in self._found):
            if new := self._found[name].new:
                raise InputError(
                    f"set {name!r}: {new} rows have come since models were first trained on it, and would be left out; new "
                    f"rows belong into a set of their own (`more:`) ({UNUSED.format(self._path(name))})"
                )

    def hold(self, names: Collection[str]) -> dict[str, str]:
        """Write what these sets are, as far as they are not registered yet; the hash of each one's file, by its name."""
        fresh = [n for n in names if n in self._found and not self._has(n)]
        if fresh:
            with self._alone():
                for name in (n for n in fresh if not self._has(n)):
                    write_atomically(self._path(name), Register.of(self._found[name].rows).to_bytes())
        return {name: register_hash(self.folder, name) for name in sorted(names) if self._has(name)}

    def note(self, names: Collection[str]) -> None:
        """Write beside them that there are registers of these sets: where no ledger tells it, one that is lost is missed so."""
        held = {n for n in names if self._has(n)}
        if held - {*listed(self.folder)}:
            with self._alone():
                write_atomically(self.folder / LIST, list_of(held | {*listed(self.folder)}))

    def erase(self, name: str, keys: Collection[str]) -> None:
        """Let nothing be known any more of some of a set's rows but their class and their place in its order."""
        if keys and self._has(name):
            with self._alone():
                write_atomically(self._path(name), Register.read(self._path(name)).without(keys).to_bytes())

    def _has(self, name: str) -> bool:
        return self._path(name).exists()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A site may be several processes."""
        (self.folder / FOLDER).mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / FOLDER / LOCK):
            yield

    def _path(self, name: str) -> Path:
        return register_file(self.folder, name)
