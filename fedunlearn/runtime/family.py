"""A family on disk, as its coordinator sees it: names, the ledger, and where the homes are. No weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fedunlearn.errors import InputError, StoreError
from fedunlearn.lineage import Lineage
from fedunlearn.store import Ledger, Store, write_atomically

NOTE = "acknowledged.json"  # which ledger line each place has acknowledged


@dataclass(frozen=True)
class Family:
    """A family of models in a folder (see `store/FORMAT.md`).

    Args:
        folder: where it is.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path) -> "Family":
        """A family that was trained to the end.

        Raises:
            InputError: there is none, or its training was cut off.
            StoreError: its ledger or lineage is damaged.
        """
        family = cls(Path(folder))
        if not family.ledger.lines:
            begun = family.folder.is_dir() and any(family.folder.iterdir())
            raise InputError(
                f"{folder}: "
                + (
                    "its training was cut off; run `fedunlearn train` again"
                    if begun
                    else "no family here; make one with `fedunlearn train topologies/<name>.yaml`"
                )
            )
        _ = family.lineage
        return family

    @cached_property
    def ledger(self) -> Ledger:
        """What was done."""
        return Ledger(self.folder / "ledger.jsonl")

    @cached_property
    def lineage(self) -> Lineage:
        """Who descends from whom, as far as the ledger says that it was trained.

        Raises:
            StoreError: the file is missing or damaged.
        """
        path = self.folder / "lineage.json"
        try:
            plain = json.loads(path.read_text())
            counts = [x.body["models"] for x in self.ledger.lines if "models" in x.body]
            if counts and counts[-1] > len(plain["models"]):
                raise ValueError(f"{len(plain['models'])} models, the ledger knows {counts[-1]}")
            return Lineage.from_json({**plain, "models": plain["models"][: counts[-1] if counts else None]})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError) as error:
            raise StoreError(f"{path}: not a lineage ({error}); restore it from a backup") from error

    @property
    def heads(self) -> dict[str, str]:
        """The current version of every kept model, from the ledger."""
        return self.ledger.heads()

    @property
    def places(self) -> tuple[str, ...]:
        """Every place: homes of kept models, and sites."""
        homes = {m.home for m in self.lineage.models if m.kept}
        return tuple(sorted(homes | set(self.lineage.sites)))

    def store(self, place: str) -> Store:
        """The store of one place, on this machine."""
        return Store(self.folder / "homes" / place)

    @property
    def acknowledged(self) -> dict[str, str]:
        """Place -> hash of the ledger line that it last acknowledged to the coordinator; a note, the ledger decides."""
        try:
            plain = json.loads((self.folder / NOTE).read_text())
            return {str(place): str(line) for place, line in plain.items()}
        except (OSError, ValueError, AttributeError):
            return {}  # as good as never: settling asks again

    def note_acknowledged(self, lines: Mapping[str, str]) -> None:
        """Note what places have acknowledged, beside what others had before."""
        before = self.acknowledged
        noted = {**before, **lines}
        if noted != before:
            write_atomically(self.folder / NOTE, json.dumps(dict(sorted(noted.items())), indent=1).encode())

    def write_lineage(self, lineage: Lineage) -> None:
        """Keep the lineage beside the ledger."""
        write_atomically(self.folder / "lineage.json", json.dumps(lineage.to_json(), indent=1).encode())
