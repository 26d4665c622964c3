"""What the operator keeps of a family that lives elsewhere: names, the ledger, where it is. No weights, no rows."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from typing_extensions import TypedDict

from fedunlearn.data import MIRROR
from fedunlearn.errors import InputError, SiteError, StoreError
from fedunlearn.plain import loads, shaped
from fedunlearn.runtime import Family
from fedunlearn.runtime.books.family import ERASED, LEDGER, LINEAGE, NEXT, NOTE, POINTER, TOPOLOGY
from fedunlearn.runtime.books.records import is_content, named, read
from fedunlearn.store import write_atomically

PLAIN = (TOPOLOGY, LINEAGE)


def plain_files(family: Family, has: int = 0) -> dict[str, str]:
    """Files of a family that hold no tensors: scenario, lineage, ledger and its records, who acknowledged it, mirrors here.

    Args:
        family: the family.
        has: leave out the records of so many lines, from the first: they are there already.
    """
    homes = family.folder / "homes"
    mirrors = [f"homes/{p}/{MIRROR}" for p in family.places if (homes / p / MIRROR).is_file()]
    noted = [name for name in (NOTE, ERASED) if (family.folder / name).is_file()]
    plain = {name: (family.folder / name).read_text() for name in (LINEAGE, LEDGER, *noted, *mirrors)}
    for path in (path for path, line in named(family).items() if line.number >= has):
        with suppress(OSError, ValueError):  # one that is damaged here is told by fsck, and keeps nothing else from coming home
            plain[str(path.relative_to(family.folder))] = read(path).decode()
    return {TOPOLOGY: family.topology.read_text(), **plain}


class _Pointer(TypedDict):
    federation: str
    family: str


@dataclass(frozen=True)
class Copy:
    """A family's plain files, brought home, and where it lives. `show` and `plan` read them as they read any family.

    Args:
        folder: of the copy.
        federation: the name of the SuperLink connection, as Flower's config.toml has it.
        family: its name there.
    """

    folder: Path
    federation: str
    family: str

    @classmethod
    def of(cls, folder: Path, federation: str | None = None) -> "Copy":
        """Where the family of a folder lives.

        Args:
            folder: of the copy.
            federation: another connection than the one that it came home by.

        Raises:
            InputError: the folder does not say, and neither does `federation`.
            StoreError: what it says is damaged.
        """
        path = folder / POINTER
        if not path.exists():
            if federation is None or (folder / LEDGER).exists():
                raise InputError(
                    f"{folder}: does not say in which Flower federation its family lives; train it there "
                    f"(fedunlearn train TOPOLOGY --backend flower --federation NAME --out {folder}), or name another folder"
                )
            return cls(folder, federation, folder.resolve().name)
        try:
            told = shaped(loads(path.read_bytes()), _Pointer)
            return cls(folder, federation or told["federation"], told["family"])
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: does not say where the family lives ({error}); name it with --federation") from error

    @property
    def has(self) -> int:
        """How many ledger lines are here, from the first, of which no record is missing; 0 where the ledger cannot be read."""
        family = Family(self.folder)
        try:
            lacking = [line.number for path, line in named(family).items() if not path.is_file()]
            return min(lacking, default=len(family.ledger.lines))
        except StoreError:
            return 0

    def keep(self, files: Mapping[str, Any]) -> Family:
        """Put what came home in place of what came before.

        Args:
            files: as `plain_files` gives them; untrusted.

        Raises:
            SiteError: it is no family, or its ledger does not continue the one that came home before.
        """
        self._check(files)
        self.folder.mkdir(parents=True, exist_ok=True)
        pointer = {"federation": self.federation, "family": self.family}
        write_atomically(self.folder / POINTER, json.dumps(pointer, indent=1).encode())
        for name in (n for n in files if n not in (LEDGER, TOPOLOGY)):
            write_atomically(self.folder / name, files[name].encode())
        write_atomically(self.folder / NEXT, files[TOPOLOGY].encode())
        write_atomically(self.folder / LEDGER, files[LEDGER].encode())  # from here on the others count
        (self.folder / NEXT).replace(self.folder / TOPOLOGY)
        return Family.open(self.folder)

    def _check(self, files: Mapping[str, Any]) -> None:
        if not (
            isinstance(files, Mapping) and {*PLAIN, LEDGER} <= set(files) and all(isinstance(t, str) for t in files.values())
        ):
            raise SiteError(
                f"{self.federation}: what came home is no family; do both sides run the same version of fedunlearn?"
            )
        with TemporaryDirectory() as there:
            try:
                raw = {name: text.encode() for name, text in files.items()}
                for name in (*PLAIN, LEDGER):
                    (Path(there) / name).write_bytes(raw[name])
                family = Family.open(Path(there))
            except (InputError, UnicodeEncodeError) as error:
                raise SiteError(f"{self.federation}: the family that came home is damaged: {error}") from error
        records = {str(path.relative_to(family.folder)): path for path in named(family)}
        allowed = {f"homes/{place}/{MIRROR}" for place in family.places} | {*PLAIN, LEDGER, NOTE, ERASED, *records}
        if strange := sorted(set(files) - allowed):
            raise SiteError(f"{self.federation}: sent a file {strange[0][:80]!r} that belongs to no family; nothing was kept")
        if wrong := [n for n in sorted(records.keys() & files) if not is_content(records[n], raw[n])]:
            raise SiteError(f"{self.federation}: sent {wrong[0]}, which is not what the ledger names; nothing was kept")
        path = self.folder / LEDGER
        before = path.read_text() if path.exists() else ""
        if not files[LEDGER].startswith(before):
            raise SiteError(
                f"{self.federation}: the ledger of {self.family} does not continue the one in {self.folder}: it was changed "
                f"there, or it is another family; keep both, and find out why"
            )
