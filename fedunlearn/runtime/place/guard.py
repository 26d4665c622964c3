"""What a site does to sums before it sends them: none over few rows, none that one row dominates, and noise.

It holds for every `Measure`, of what is to be forgotten and of what an heir is weighed on alike, as either can be asked about
any class. What a site measures for its own use is exact. Not covered: that the count is sent, the number that `steer` sends
along with its evidence, scores, and a coordinator that asks about ever other models or rows.
"""

import os
import secrets
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import torch
from blake3 import blake3

from fedunlearn.data import Rows
from fedunlearn.errors import InputError, SiteError, StoreError
from fedunlearn.importance import Importance
from fedunlearn.importance.clipping import clipped, noisy, power
from fedunlearn.importance.forward import FORWARD
from fedunlearn.runtime.plausible import BOUNDED
from fedunlearn.runtime.tasks import Fetched, Measure
from fedunlearn.store import Version
from fedunlearn.store.files import TEMPORARY, sync_folder
from fedunlearn.tensors import Head, Tensors

KEY = "noise.key"  # in a place's folder: what makes its noise its own


@dataclass(frozen=True)
class Guard:
    """A site's own choice.

    Args:
        at_least: sums over fewer rows are refused.
        clip: C, the most that a row's gradient counts for, as an L2 norm over all parameters that are measured; None for all.
        noise: S; on the sum goes normal noise with a standard deviation of S C, or S C^2 for squares.

    Raises:
        InputError: a number is out of range, or there is noise without a clip to scale it.
    """

    at_least: int = 0
    clip: float | None = None
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.at_least < 0:
            raise InputError(f"evidence: at_least is {self.at_least}, expected a number of rows from 0 up")
        if self.clip is not None and not (isfinite(self.clip) and self.clip > 0):
            raise InputError(f"evidence: clip is {self.clip}, expected a number above 0")
        if not (isfinite(self.noise) and self.noise >= 0):
            raise InputError(f"evidence: noise is {self.noise}, expected a number from 0 up")
        if self.noise and self.clip is None:
            raise InputError(f"evidence: noise is {self.noise} of nothing: it is a multiple of clip, give that as well")

    def admit(self, rows: int) -> None:
        """Refuse what is about too few rows; about none there is nothing to tell.

        Raises:
            SiteError: it is.
        """
        if 0 < rows < self.at_least:
            raise SiteError(
                f"evidence over fewer than {self.at_least} rows is not sent: this site's owner says so (evidence: at_least)"
            )

    def measured(
        self, task: Measure, found: Fetched | Version, rows: Rows, of: Callable[[slice], Importance], folder: Path
    ) -> Importance:
        """What a task asks for, as far as it may leave.

        Args:
            task: what is asked for.
            found: the version that is measured.
            rows: on which rows.
            of: measures a slice of them.
            folder: the place's, where its key is.

        Raises:
            SiteError: there are too few rows.
        """
        self.admit(len(rows))
        if self.clip is None:
            return of(slice(None))
        exact = clipped(of, len(rows), self.clip)
        if not (self.noise and len(rows)):
            return exact
        about = identity(task, found, rows, (*exact.sums[task.statistic], repr((self.clip, self.noise))))
        sent = noisy(exact, self.noise * self.clip ** power(task.statistic), key_of(folder), about)
        return _plausible(sent, task, found.head)


OPEN = Guard()  # everything, as it is


def identity(task: Measure, found: Fetched | Version, rows: Rows, more: Collection[str]) -> bytes:
    """A hash of what is measured, as it is and not as a task calls it; `more` is what else must not share its noise.

    The same question gets the same noise, so that it is no use to ask it again in other words. Another one gets other noise:
    the difference of two sums with the same one would be exact.
    """
    loss = "" if task.statistic in FORWARD else task.loss
    masked = sorted({found.head.classes.index(c) for c in task.masked}) if loss == "masked" else []
    said = blake3("\n".join((task.statistic, loss, *map(str, masked), "", found.net, *more)).encode())
    ordered = rows.take(sorted(range(len(rows)), key=rows.keys.__getitem__))
    for tensor in (ordered.x, ordered.y, *(t for _, t in sorted(found.weights.items()))):
        said.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        said.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return said.digest()


def key_of(folder: Path) -> bytes:
    """A place's secret, made out of the system's randomness when it is first needed; no seed of a run has a part in it.

    Raises:
        StoreError: the file is damaged.
    """
    path = folder / KEY
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{KEY}.{secrets.token_hex(8)}{TEMPORARY}"
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was first: its key holds
            os.link(temporary, path)
        temporary.unlink()
        sync_folder(folder)
    key = path.read_bytes()
    if len(key) != blake3.key_size:
        raise StoreError(f"{path}: has {len(key)} bytes, expected {blake3.key_size}; delete it, and noise is drawn anew")
    return key


def _plausible(of: Importance, task: Measure, head: Head) -> Importance:
    """Noise may take a head's bias out of the bounds that an honest sum keeps (see `plausible`); back to the nearest within."""
    sums: Tensors = of.sums[task.statistic]
    name = head.names[1]
    if name not in sums or task.statistic not in ("squares", "sum") or task.loss not in BOUNDED:
        return of
    bias = sums[name].clamp(-of.count, of.count)
    classes = task.selection.classes if task.selection and not task.selection.samples else ()
    if task.statistic == "squares" and task.loss == "labels" and classes:
        inside = torch.tensor([c in classes for c in head.classes])
        mine, others = float(bias[inside].sum()), float(bias[~inside].sum())
        bias = torch.where(inside, bias, bias * (min(1.0, mine / others) if others else 1.0))
    return Importance({task.statistic: {**sums, name: bias}}, of.count)
