"""A place whose owner is asked before it computes on its rows, changes a model or gives something away.

Survey (rows a class), Score (accuracies on held-out rows, or on all rows of a class) and Commit (the mirror of the ledger:
current versions, and what must not be trained on) are answered without asking, and so is a quick evaluation of versions that
are here: it gives accuracies and distances of outputs. For everything else the owner is asked; also for a score or a quick
evaluation of a model that comes along, as what a model made for it says to few rows may tell them, and for whatever names
samples: how many rows there are without them tells who is here, and what a model says to a single row may tell whether it was
trained on it. A Commit is free while it lifts nothing and excludes no samples more: what tells of single rows, or lets
forgotten ones be trained on again, is asked about; that a class or a whole site is not trained on any more holds at once. A
training is allowed for what is excluded when it is asked for.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NotRequired

import torch
from blake3 import blake3
from typing_extensions import TypedDict

from fedunlearn.data import Exclusions, Selection
from fedunlearn.errors import SiteError, StoreError, unknown
from fedunlearn.plain import Hash, loads, shaped
from fedunlearn.runtime.codec import pack
from fedunlearn.runtime.place.mirror import UNBOUND, Excluded
from fedunlearn.runtime.place.wording import words
from fedunlearn.runtime.tasks import (
    Commit,
    Deposit,
    Evaluate,
    Measure,
    Score,
    Seal,
    Survey,
    Task,
    Train,
)
from fedunlearn.store import write_atomically

MOST_WAITING = 1000  # of a coordinator that asks without end, no more is written down
ID = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True)
class Wish:
    """A task that the owner is asked about.

    Args:
        id: the beginning of a hash of all that the task says, tensors included.
        what: the same, in words.
        asked: when it came first, UTC.
        approved: when the owner allowed it; empty before.
        whole: all of the hash: two tasks of one id can be sought, and found.
    """

    id: str
    what: str
    asked: str
    approved: str = ""
    whole: str = ""


class _Wish(TypedDict):
    id: str
    what: str
    asked: str
    approved: str
    whole: NotRequired[Hash]  # older files have none, and allow nothing


@dataclass(frozen=True)
class Consent:
    """What was asked for at a place, and what its owner has allowed; one small file each.

    What is allowed is one task, by content: the same version, rows, settings and tensors. It stays allowed, so that a training
    of several rounds can be taken up again once its next round is allowed too; but for a change of what is excluded, which is
    allowed once.

    Args:
        folder: where the files are.
    """

    folder: Path

    def wishes(self) -> list[Wish]:
        """All that was asked for, in order of time.

        Raises:
            StoreError: a file is not ours.
        """
        return sorted(map(self.read, self.files()), key=lambda w: (w.asked, w.id))

    def files(self) -> list[Path]:
        """One a wish."""
        return sorted(self.folder.glob("*.json"))

    def read(self, file: Path) -> Wish:
        """What one file says.

        Raises:
            StoreError: it is not ours.
        """
        try:
            wish = Wish(**shaped(loads(file.read_bytes()), _Wish))
            if not ID.fullmatch(wish.id) or wish.id != file.stem or not wish.whole.startswith(wish.id * bool(wish.whole)):
                raise ValueError(f"its id is {wish.id[:80]!r}, not the file's name")
        except (OSError, ValueError) as error:
            raise StoreError(f"{file}: not a task that waits for its owner ({error}); delete it") from error
        return wish

    def approve(self, wish: str) -> Wish:
        """Allow one task.

        Args:
            wish: its id, or as much of the beginning as tells it from others.

        Raises:
            InputError: nothing of that id waits here, or several do.
        """
        fits = [w for w in self.wishes() if w.id.startswith(wish)]
        if len(fits) != 1:
            raise unknown("task", wish, (w.id for w in (fits or self.wishes())), where=str(self.folder))
        allowed = replace(fits[0], approved=fits[0].approved or _now())
        self._write(allowed)
        return allowed

    def check(self, task: Task, excluded: Excluded, how: Callable[[str], str]) -> None:
        """Refuse what the owner is asked about and has not allowed, and write down that it was asked for.

        Args:
            task: what is asked for.
            excluded: what is excluded at the place.
            how: from its id to the words that say how the owner allows it.

        Raises:
            SiteError: it is not allowed yet.
        """
        if free(task, excluded):
            return
        whole = identity(task, excluded)
        wish = Wish(whole[:16], words(task, excluded), _now(), "", whole)
        file = self._path(whole)
        known = self.read(file) if file.exists() else None
        if known and known.whole not in ("", whole):
            raise SiteError(f"another task has the id {wish.id} already ({known.what}); this one cannot be asked for")
        if known and known.whole:
            wish = known
        elif known is None and self._waiting() >= MOST_WAITING:
            raise SiteError(
                f"{MOST_WAITING} tasks wait for this site's owner already; nothing more is taken until they are seen to"
            )
        else:
            self._write(wish)
        if not wish.approved:
            raise SiteError(f"this site's owner is asked first, and has not allowed it yet: {wish.what}; {how(wish.id)}")

    def spend(self, task: Task, excluded: Excluded) -> None:
        """What is excluded has been changed as it was allowed: to change it so again, the owner is asked again."""
        if not free(task, excluded):
            self._path(identity(task, excluded)).unlink(missing_ok=True)

    def _path(self, whole: str) -> Path:
        return self.folder / f"{whole[:16]}.json"

    def _waiting(self) -> int:
        """How many tasks wait; what cannot be read waits, too."""
        files, allowed = self.files(), 0
        for file in files if len(files) >= MOST_WAITING else ():
            with suppress(StoreError):
                allowed += bool(self.read(file).approved)
        return len(files) - allowed

    def _write(self, wish: Wish) -> None:
        write_atomically(self.folder / f"{wish.id}.json", json.dumps(vars(wish), indent=1).encode())


def free(task: Task, excluded: Excluded = UNBOUND) -> bool:
    """Whether a task is done without asking."""
    match task:
        case Survey():
            return not any(chosen.samples for chosen in task.without.values())
        case Score() | Evaluate():
            named = any(chosen.samples for chosen in task.question.selections.values())
            if isinstance(task, Score):  # rows that are counted without some by name tell whether these are there
                return not (task.sent or named or any(left_out for *_, left_out in task.own_shards))
            return not (task.sent or named) and task.tier == "quick"
        case Commit():
            return excluded.own is not None and _lifts_nothing(task.exclusions, excluded.own)
        case _:
            return False


def _lifts_nothing(told: Mapping[str, Selection], before: Mapping[str, Selection]) -> bool:
    """Whether what was excluded is, and no sample that was not."""
    kept = all(told.get(name) == chosen for name, chosen in before.items())
    return kept and not any(chosen.samples for name, chosen in told.items() if name not in before)


def identity(task: Task, excluded: Excluded = UNBOUND) -> str:
    """A hash of all that a task says, tensors included, and of what it depends on besides; 64 hexadecimal digits.

    A training is one on the rows that are not excluded now. Of a Commit, it is what is excluded before and after it: the ledger
    may grow while the owner sleeps.
    """
    said: object = ""
    match task:
        case Commit():
            said = "unknown" if excluded.own is None else Exclusions(excluded.own).to_json()
            task = replace(task, heads={}, lines=())
        case Seal():
            task = replace(task, lines=())
        case Train() | Deposit() | Measure():
            said = Exclusions(excluded.all).to_json()
    packed = pack(task)
    found = blake3(f"{packed.kind}\n{packed.plain}\n{json.dumps(said, sort_keys=True)}\n".encode())
    for name, tensor in packed.tensors.items():
        found.update(f"{name} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
