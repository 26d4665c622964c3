"""What a place keeps of the ledger, and how it follows it: `place.json`, and erasing what the ledger has sealed."""

import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from pydantic import NonNegativeInt
from typing_extensions import TypedDict

from fedunlearn.data import MIRROR, Exclusions, Selection
from fedunlearn.errors import OvertakenError, SiteError, StoreError
from fedunlearn.plain import shaped, stamped, unstamped
from fedunlearn.runtime.place.shadowing import FOLDER as SHADOWS
from fedunlearn.runtime.tasks import Commit, Committed, Seal, Sealed
from fedunlearn.store import Store, sweep, write_atomically

FAMILIES = "families"  # in the store of a site that several families share: a folder a family
FAMILY = re.compile("[0-9a-f]{32}")


class _Acknowledged(TypedDict):
    line: str
    length: NonNegativeInt
    heads: dict[str, str]


@dataclass(frozen=True)
class Mirror:
    """What a place has acknowledged.

    Args:
        line: hash of the ledger line; empty where there is none yet.
        length: how many lines the ledger had up to there; 0 where it was not told.
        heads: current versions of the models whose home this is.
        exclusions: what it must not train on, by request.
    """

    line: str
    length: int
    heads: Mapping[str, str]
    exclusions: Mapping[str, Selection]

    @classmethod
    def of(cls, store: Store) -> Self | None:
        """What a place has acknowledged; None if it never did, or if its mirror is damaged: settling writes it anew."""
        try:
            plain = shaped(unstamped(path(store).read_bytes()), _Acknowledged)
            return cls(plain["line"], plain["length"], plain["heads"], Exclusions.read(path(store)).by_request)
        except (OSError, ValueError, StoreError):
            return None

    def to_bytes(self) -> bytes:
        """As it is written."""
        heads, exclusions = dict(sorted(self.heads.items())), Exclusions(self.exclusions).to_json()
        return stamped({"line": self.line, "length": self.length, "heads": heads, "exclusions": exclusions})


def path(store: Store) -> Path:
    """Where a place's mirror lies."""
    return store.folder / MIRROR


def part(store: Store, family: str) -> Store:
    """What is one family's of a place's store that several families share; nothing in it is another's.

    Raises:
        SiteError: the family's id, which comes in a message, is none.
    """
    if not FAMILY.fullmatch(family):
        raise SiteError(f"family {family[:80]!r}: expected 32 hexadecimal digits, as `Family.id` gives them; nothing was done")
    return Store(store.folder / FAMILIES / family)


def excluded_by_others(store: Store, family: str) -> Exclusions:
    """What requests on all other families that share a place's store have excluded there.

    Raises:
        StoreError: a mirror is damaged.
    """
    others = [store, *(Store(p) for p in sorted((store.folder / FAMILIES).glob("*")) if p.name != family)]
    read = {one.folder.name: Exclusions.read(path(one)).by_request for one in others}
    return Exclusions({f"{r} of family {name}": chosen for name, held in read.items() for r, chosen in held.items()})


@dataclass(frozen=True)
class Excluded:
    """What is excluded at a place when something is asked of it.

    Args:
        own: by requests of the family that asks; None where that cannot be read.
        all: by requests of all families; what it says tells two states apart.
    """

    own: Mapping[str, Selection] | None = field(default_factory=dict)
    all: Mapping[str, Selection] = field(default_factory=dict)

    @classmethod
    def at(cls, store: Store, family: str) -> Self:
        """What it is at a place, for a family; "" where the store is the family's own."""
        held = part(store, family) if family else store
        mirror = Mirror.of(held)
        if mirror is None and path(held).exists():
            return cls(None)
        return cls(mirror.exclusions if mirror else {}, excluded_by_others(store, "").by_request)


UNBOUND = Excluded()  # where nothing is excluded


def follow(task: Commit, store: Store) -> Committed:
    """Take over what the ledger says of this place.

    Raises:
        OvertakenError: the ledger lacks a line that this place has acknowledged.
        SiteError: this place lacks the current version of a model of its own. It has not acknowledged the line then, but keeps
            what must not be trained on, and what is in force.
    """
    known = _continued(task.lines, store) or Mirror("", 0, {}, {})
    now = Mirror(task.lines[-1], len(task.lines), task.heads, task.exclusions)
    try:
        _whole(task.heads, store)
    except SiteError:
        _keep(replace(now, line=known.line, length=known.length), store)
        raise
    _keep(now, store)
    return Committed(now.line, known.line)


def _keep(mirror: Mirror, store: Store) -> None:
    """In one file: what is acknowledged and what is excluded cannot disagree."""
    data = mirror.to_bytes()
    if not path(store).exists() or path(store).read_bytes() != data:
        write_atomically(path(store), data)


def _whole(heads: Mapping[str, str], store: Store) -> None:
    """Refuse to say that all is well where what is in force is not there: on another disk, or gone."""
    held = set(store.versions()) if heads else set()
    if missing := sorted(model for model, version in heads.items() if version not in held):
        raise SiteError(
            f"its store lacks the current version of {', '.join(missing[:5])}: look whether `store:` names the "
            f"right folder, restore that from a backup, or give the place up (fedunlearn depart)"
        )


def _continued(lines: Sequence[str], store: Store) -> Mirror | None:
    """What this place has acknowledged, if a ledger of those lines continues it."""
    if not lines:
        raise SiteError("was sent a ledger without a line; nothing was done")
    known = Mirror.of(store)
    if known and known.length and tuple(lines[known.length - 1 : known.length]) != (known.line,):
        raise OvertakenError(
            f"has acknowledged a ledger of {known.length} lines that ends with {known.line[:12]}; the one that asks has "
            f"{len(lines)} lines, ends with {lines[-1][:12]}, and does not continue it: it was cut or rewritten, restored from "
            f"an older backup, or is another family's. If that is meant, delete {MIRROR} in its store first; it also says "
            f"what must not be trained on"
        )
    return known


def erase(task: Seal, store: Store) -> Sealed:
    """Erase every version that is not needed any more, and what was banked of what is forgotten.

    Raises:
        OvertakenError: the ledger lacks a line that this place has acknowledged.
        SiteError: a version that this place holds to be in force is not among those to be kept.
        StoreError: a version to be kept is damaged. Nothing is erased in any of these cases.
    """
    known = _continued(task.lines, store)
    _whole(known.heads if known else {}, store)
    lost = sorted(m for m, v in known.heads.items() if v not in task.keep) if known else []
    if lost:
        raise SiteError(
            f"would erase the current version of {', '.join(lost)}; nothing was erased: run `fedunlearn settle` first"
        )

    def drop(what: Mapping[str, str], classes: Collection[str]) -> bool:
        return any(_touches(selection, what["shard"], classes) for selection in task.forgotten.values())

    found = sweep(store, frozenset(task.keep), drop)
    if (shadows := store.folder / SHADOWS).exists():
        shutil.rmtree(shadows)  # models of the audit, trained on halves of all rows; they are trained anew when asked for
    return Sealed(task.line, len(found.versions), found.tensors, found.banked, found.bytes)


def _touches(selection: Selection, shard: str, classes: Collection[str]) -> bool:
    if selection.samples:
        return any(sample.startswith(f"{shard}/") for sample in selection.samples)
    return not selection.classes or not set(selection.classes).isdisjoint(classes)
