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
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NotRequired, Self

import torch
from blake3 import blake3
from typing_extensions import TypedDict

from fedunlearn.data import Exclusions, Selection
from fedunlearn.errors import SiteError, StoreError, unknown
from fedunlearn.plain import Hash, loads, shaped
from fedunlearn.runtime.codec import pack
from fedunlearn.runtime.mirror import Mirror, excluded_by_others, part, path
from fedunlearn.runtime.tasks import (
    Apply,
    Commit,
    Deposit,
    Evaluate,
    Fetch,
    Fetched,
    Measure,
    Score,
    Seal,
    Survey,
    Task,
    Train,
)
from fedunlearn.store import Store, write_atomically

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
class Standing:
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

    def check(self, task: Task, standing: Standing, how: Callable[[str], str]) -> None:
        """Refuse what the owner is asked about and has not allowed, and write down that it was asked for.

        Args:
            task: what is asked for.
            standing: what is excluded at the place.
            how: from its id to the words that say how the owner allows it.

        Raises:
            SiteError: it is not allowed yet.
        """
        if free(task, standing):
            return
        whole = identity(task, standing)
        wish = Wish(whole[:16], words(task, standing), _now(), "", whole)
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

    def spend(self, task: Task, standing: Standing) -> None:
        """What is excluded has been changed as it was allowed: to change it so again, the owner is asked again."""
        if not free(task, standing):
            self._path(identity(task, standing)).unlink(missing_ok=True)

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


def free(task: Task, standing: Standing = Standing()) -> bool:
    """Whether a task is done without asking."""
    match task:
        case Survey():
            return not any(chosen.samples for chosen in task.without.values())
        case Score() | Evaluate():
            named = any(chosen.samples for chosen in task.question.selections.values())
            return not (task.sent or named) and (isinstance(task, Score) or task.tier == "quick")
        case Commit():
            return standing.own is not None and _lifts_nothing(task.exclusions, standing.own)
        case _:
            return False


def _lifts_nothing(told: Mapping[str, Selection], before: Mapping[str, Selection]) -> bool:
    """Whether what was excluded is, and no sample that was not."""
    kept = all(told.get(name) == chosen for name, chosen in before.items())
    return kept and not any(chosen.samples for name, chosen in told.items() if name not in before)


def identity(task: Task, standing: Standing = Standing()) -> str:
    """A hash of all that a task says, tensors included, and of what it depends on besides; 64 hexadecimal digits.

    A training is one on the rows that are not excluded now. Of a Commit, it is what is excluded before and after it: the ledger
    may grow while the owner sleeps.
    """
    said: object = ""
    match task:
        case Commit():
            said = "unknown" if standing.own is None else Exclusions(standing.own).to_json()
            task = replace(task, heads={}, lines=())
        case Seal():
            task = replace(task, lines=())
        case Train() | Deposit() | Measure():
            said = Exclusions(standing.all).to_json()
    packed = pack(task)
    found = blake3(f"{packed.kind}\n{packed.plain}\n{json.dumps(said, sort_keys=True)}\n".encode())
    for name, tensor in packed.tensors.items():
        found.update(f"{name} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def words(task: Task, standing: Standing = Standing()) -> str:
    """What a task would do, for the owner to read. Names in it are the coordinator's and are shown as they came, quoted."""
    does = _excludes(task, standing) if isinstance(task, Commit) else _does(task)
    return f"for family {task.family[:12]!r}: {does}" if task.family else does


def _excludes(task: Commit, standing: Standing) -> str:
    """What a Commit changes."""
    before = standing.own
    if before is None:
        return f"from now on train on all rows but {_named(task.exclusions)} (what was excluded before cannot be read)"
    new = {name: chosen for name, chosen in task.exclusions.items() if before.get(name) != chosen}
    lifted = {name: chosen for name, chosen in before.items() if task.exclusions.get(name) != chosen}
    told = (f"train no more on {_named(new)}" if new else "", f"train again on {_named(lifted)}" if lifted else "")
    return " and ".join(filter(None, told))


def _named(exclusions: Mapping[str, Selection]) -> str:
    shown = [f"{_chosen(chosen)} (request {name[:40]!r})" for name, chosen in sorted(exclusions.items())]
    return "; ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "") or "none"


def _does(task: Task) -> str:
    match task:
        case Train():
            gives = "; its weights are sent" if task.give else "; its weights stay here, counts of the rows are sent"
            rows = f"rows of {_listed(task.classes)} in {task.shard!r}{_but(task.without.values())}"
            return f"train {task.recipe.name!r} ({task.born!r}, {task.recipe.epochs} epochs) on {rows}{gives}"
        case Measure():
            about = _chosen(task.selection) if task.selection else _listed(task.classes)
            rows = f"{about} in {task.shard!r}" + (f", but {len(task.left_out)} of these rows" if task.left_out else "")
            rows = f"at most {task.most} rows of {rows}" if task.most else rows
            along = ", which is sent along," if task.sent else ""
            return f"measure {task.statistic!r} of {_short(task.version)}{along} on {rows}; a sum a parameter is sent"
        case Deposit():
            return f"measure {task.statistic!r} of {_short(task.version)} on all rows of {task.shard!r}; nothing is sent"
        case Apply():
            about = _listed(task.question.classes) if task.question.classes else "samples"
            return f"edit {_short(task.version)} with {task.method!r} to forget {about}; it stays here, accuracies are sent"
        case Evaluate():
            samples = sum(len(chosen.samples) for chosen in task.question.selections.values())
            rows = f"{samples} samples and other rows here" if samples else "rows here"
            how = f"on {rows}" if task.tier == "quick" else f"with short trainings on {rows}"
            how = f"with {2 * task.audit.shadows} models trained on rows here, which stay here" if task.audit else how
            beside = f", beside {len(task.retrained)} retrained, {len(task.sent)} of them sent along" if task.retrained else ""
            return (
                f"evaluate {_short(task.after)} against {_short(task.before)} ({task.tier!r}, {how}{beside}); numbers are sent"
            )
        case Score(sent=Fetched()):
            about = _listed(task.question.classes) if task.question.classes else "samples"
            return (
                f"score {_short(task.version)}, which is sent along, on held-out rows here and on {about}; accuracies are sent"
            )
        case Score():
            samples = sum(len(chosen.samples) for chosen in task.question.selections.values())
            return f"score {_short(task.version)} on {samples} samples; accuracies are sent"
        case Survey():
            shards = ", ".join(repr(name[:40]) for name in task.shards[:12])
            return f"count rows of each class in {shards}{_but(task.without.values())}; the counts are sent"
        case Seal():
            return f"erase every version but {len(task.keep)} that are still needed, and what was banked of what is forgotten"
        case Fetch():
            return f"send the weights of {_short(task.version)}"
        case _:
            return f"{type(task).__name__} (answered without asking)"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(n[:40]) for n in names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f"classes {shown}" if names else "all classes"


def _chosen(chosen: Selection) -> str:
    if chosen.samples:
        shown = ", ".join(repr(key[:40]) for key in chosen.samples[:3])
        return f"{len(chosen.samples)} samples ({shown}{', ...' if len(chosen.samples) > 3 else ''})"
    return _listed(chosen.classes) if chosen.classes else "all rows"


def _but(without: Iterable[Selection]) -> str:
    """What is left out of rows."""
    told = list(map(_chosen, without))
    more = f" and {len(told) - 12} more" if len(told) > 12 else ""
    return f", but {', '.join(told[:12])}{more}" if told else ""


def _short(version: str) -> str:
    return f"version {version[:12]!r}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
