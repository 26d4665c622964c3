"""A family on disk, as its coordinator sees it: names, the ledger, and where the homes are. No weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from blake3 import blake3
from typing_extensions import TypedDict

from fedunlearn.data.register import register_file, register_hash
from fedunlearn.errors import InputError, StoreError
from fedunlearn.lineage import Lineage
from fedunlearn.plain import digest, loads, shaped
from fedunlearn.runtime.books.line_bodies import checked
from fedunlearn.store import Ledger, Line, Store, write_atomically

LEDGER = "ledger.jsonl"
LINEAGE = "lineage.json"
POINTER = "deployed.json"  # of a copy: in which Flower federation the family lives
NOTE = "acknowledged.json"  # which ledger line each place has acknowledged
TOPOLOGY = "scenario.yaml"
NEXT = "scenario.next.yaml"  # of an extension, until its ledger line is written
ERASED = "erased.json"  # which "sealed" line each place has carried out
ID = "family.id"  # by which sites that are elsewhere tell families apart


def hash_of(lineage: Lineage) -> str:
    """A hash of all that a lineage says."""
    return digest(lineage.to_json())


class _Named(TypedDict):
    models: list[dict[str, Any]]
    tests: dict[str, Any]


@dataclass(frozen=True)
class Family:
    """A family of models in a folder (see `store/FORMAT.md`).

    Args:
        folder: where it is.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))

    @classmethod
    def open(cls, folder: Path | str) -> "Family":
        """A family that was trained to the end.

        Raises:
            InputError: there is none, or its training was cut off.
            StoreError: its ledger or lineage is damaged.
        """
        family = cls(folder)  # type: ignore[arg-type]  # becomes one
        if not family.ledger.lines:
            inside = sorted(p.parent.name for p in family.folder.glob(f"*/{LEDGER}"))
            if inside:
                raise InputError(
                    f"{folder}: holds families, {', '.join(inside[:5])}; name one, for example {folder}/{inside[0]}"
                )
            if (family.folder / LINEAGE).exists() and (family.folder / "homes").exists():  # the line is written right after
                raise InputError(f"{folder}: has no {LEDGER}; if models were trained to the end, restore it from a backup, or "
                                 f"train again")  # fmt: skip
            if (family.folder / TOPOLOGY).exists() or (family.folder / f"{LEDGER}.lock").exists():
                raise InputError(f"{folder}: its training was cut off; run `fedunlearn train` again")
            raise InputError(f"{folder}: no family here; make one with `fedunlearn train topologies/<name>.yaml`")
        _ = family.lineage
        return family

    @property
    def elsewhere(self) -> bool:
        """Whether the folder is a copy without weights of a family that lives in a Flower federation."""
        return (self.folder / POINTER).exists()

    @cached_property
    def ledger(self) -> Ledger:
        """What was done."""
        return checked(Ledger(self.folder / LEDGER))

    @cached_property
    def lineage(self) -> Lineage:
        """Who descends from whom, as far as the ledger says that it was trained, and without places that have departed.

        Raises:
            StoreError: as `whole_lineage`.
        """
        return self.whole_lineage.without(self.departed)

    def lineage_at(self, line: Line) -> Lineage:
        """The lineage as it was when a ledger line was written."""
        whole, known = self.whole_lineage, self.models_before(line.number)
        then = whole if known in (None, len(whole.models)) else Lineage(whole.models[:known], whole.tests)
        return then.without({place for place, gone in self.departed.items() if gone.number < line.number})

    def reread(self) -> None:
        """A line was added that says of other models, or of other places, than the lineage that was read."""
        for name in ("lineage", "whole_lineage", "lost"):
            self.__dict__.pop(name, None)

    @property
    def departed(self) -> dict[str, Line]:
        """Places that are gone for good -> the ledger line that says so."""
        return {line.body["place"]: line for line in self.ledger.lines if line.kind == "departed"}

    @cached_property
    def lost(self) -> frozenset[str]:
        """Models that are gone with their homes."""
        gone = self.departed
        return frozenset(m.name for m in self.whole_lineage.models if m.kept and m.home in gone) if gone else frozenset()

    @cached_property
    def whole_lineage(self) -> Lineage:
        """The lineage as its file says it, with what has been lost since: a line of the ledger takes nothing out of the file.

        Raises:
            StoreError: the file is missing or damaged.
        """
        path = self.folder / LINEAGE
        try:
            plain = shaped(loads(path.read_bytes()), _Named)
            known = self.models_before(None)
            if known is not None and known > len(plain["models"]):
                raise ValueError(f"{len(plain['models'])} models, the ledger knows {known}")
            found = Lineage.from_json({**plain, "models": plain["models"][:known]})
            if len(found.models) < len(plain["models"]):  # an extension was cut off; its places may be new
                found = replace(found, tests={p: t for p, t in found.tests.items() if p in _places(found)})
        except (OSError, ValueError, InputError) as error:
            raise StoreError(f"{path}: not a lineage ({error}); restore it from a backup") from error
        if self.trained("lineage") not in (None, hash_of(found)):  # it decides whom a request reaches
            raise StoreError(f"{path}: is not what the ledger recorded; it was changed or damaged: restore it from a backup")
        return found

    def models_before(self, line: int | None) -> int | None:
        """How many models the ledger knew just before a line, or knows now; None where no line says."""
        return next((x.body["models"] for x in reversed(self.ledger.lines[:line]) if "models" in x.body), None)

    @property
    def id(self) -> str:
        """By which sites with stores of their own tell it from other families; empty where all stores are in its folder."""
        path = self.folder / ID
        return self.trained("family") or (path.read_text(errors="replace") if path.exists() else "")

    def identify(self, name: str) -> None:
        """Give it an `id`, unless it has one: before any site is asked to keep anything for it."""
        if not self.id:
            write_atomically(self.folder / ID, name.encode())

    @property
    def heads(self) -> dict[str, str]:
        """The current version of every kept model, from the ledger."""
        return {model: version for model, version in self.ledger.heads().items() if model not in self.lost}

    @property
    def places(self) -> tuple[str, ...]:
        """Every place that is still there: homes of kept models, and sites."""
        return tuple(sorted(_places(self.lineage)))

    def store(self, place: str) -> Store:
        """The store of one place, on this machine: the same for all who ask, as it remembers what it holds."""
        return self._stores.setdefault(place, Store(self.folder / "homes" / place))

    @cached_property
    def _stores(self) -> dict[str, Store]:
        return {}

    def homed(self, heads: Mapping[str, str], place: str) -> dict[str, str]:
        """Of some models' versions those whose home is a place."""
        return {model: version for model, version in heads.items() if self.lineage[model].home == place}

    @property
    def acknowledged(self) -> dict[str, str]:
        """Place -> hash of the ledger line that it last acknowledged to the coordinator; a note, the ledger decides."""
        return self._noted(NOTE)

    def note_acknowledged(self, lines: Mapping[str, str | None]) -> None:
        """Note what places have acknowledged, beside what others had before; None takes back what was noted of one."""
        self._note(NOTE, lines)

    @property
    def erased(self) -> dict[str, str]:
        """Place -> hash of the "sealed" line that it last said to have carried out; a note, as `acknowledged`."""
        return self._noted(ERASED)

    def note_erased(self, lines: Mapping[str, str | None]) -> None:
        """Note which places have erased, beside what others had before; None takes back what was noted of one."""
        self._note(ERASED, lines)

    def _noted(self, name: str) -> dict[str, str]:
        try:
            return shaped(loads((self.folder / name).read_bytes()), dict[str, str])
        except (OSError, ValueError):
            return {}  # as good as never: settling asks again

    def _note(self, name: str, lines: Mapping[str, str | None]) -> None:
        before = self._noted(name)
        noted = {place: line for place, line in {**before, **lines}.items() if line is not None}
        if noted != before:
            write_atomically(self.folder / name, json.dumps(dict(sorted(noted.items())), indent=1).encode())

    def write_lineage(self, lineage: Lineage) -> str:
        """Keep the lineage beside the ledger; its hash, for the ledger to say."""
        write_atomically(self.folder / LINEAGE, json.dumps(lineage.to_json(), indent=1).encode())
        return hash_of(lineage)

    @property
    def topology(self) -> Path:
        """The scenario that the ledger says it was trained from: after an extension, the new one as soon as it is committed."""
        told, new = self.trained("topology"), self.folder / NEXT
        grown = told is not None and new.exists() and blake3(new.read_bytes()).hexdigest() == told
        return new if grown else self.folder / TOPOLOGY

    @property
    def unregistered(self) -> tuple[str, ...]:
        """Sets whose register is lost: it told which rows models were trained on, and nobody can tell any more."""
        return tuple(name for name in self.registered if not register_file(self.folder, name).exists())

    @property
    def registered(self) -> dict[str, str]:
        """Name of each register that the ledger tells of -> hash of its file; empty where only an older line names it."""
        found: dict[str, str] = {}
        for told in (line.body.get("registers", {}) for line in self.ledger.lines if line.kind == "trained"):
            found = {**dict.fromkeys(told, ""), **found, **(told if isinstance(told, dict) else {})}
        return found

    @property
    def altered(self) -> tuple[str, ...]:
        """What to say of each register that is there and is not what the ledger recorded."""
        told = {name: hashed for name, hashed in self.registered.items() if hashed}
        return tuple(
            f"{register_file(self.folder, name)}: is not what the ledger recorded, so that models would be tested on other "
            f"rows, or rows be called otherwise; it was changed or damaged: restore it from a backup"
            for name, hashed in told.items()
            if register_hash(self.folder, name) not in ("", hashed)
        )

    def check_registers(self) -> None:
        """Before rows are opened.

        Raises:
            StoreError: a register is not what the ledger recorded.
        """
        if self.altered:
            raise StoreError(self.altered[0])

    def trained(self, what: str) -> Any:
        """What the newest line about training says; None where it says nothing of that."""
        return next((x.body[what] for x in reversed(self.ledger.lines) if x.kind == "trained" and what in x.body), None)


def _places(lineage: Lineage) -> set[str]:
    return ({m.home for m in lineage.models if m.kept} | set(lineage.sites)) - lineage.departed
