"""The story of a family: append-only JSON lines, each with the hash of the one before. What is true follows from it."""

import gc
import getpass
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fedunlearn.errors import BusyError, InputError, StoreError
from fedunlearn.store.code import code
from fedunlearn.store.files import sync_folder, write_atomically
from fedunlearn.store.line import Line, check, decoded, encoded, hash_of, holds
from fedunlearn.store.signatures import Signed, signed, verify
from fedunlearn.store.signing import KEY, VOUCH, Signer, vouched

START = "0" * 64
LOCK_SECONDS = 10.0
BY = "FEDUNLEARN_BY"


class Ledger:
    """A ledger file, read whole and checked when opened. A torn last line was never committed and is passed over.

    Args:
        path: the file; it need not exist yet.
        by: who writes; by default whom FEDUNLEARN_BY names, or who is logged in.

    Raises:
        StoreError: a line other than a torn last one is damaged, out of order, or does not follow from the one before.
    """

    def __init__(self, path: Path, by: str = "") -> None:
        self.path, self.by = path, by
        self.lines: list[Line] = []
        self._good = 0  # bytes up to the end of the last whole line
        self.torn = b""  # what a crash left behind the last whole line
        self.reader: Callable[[Line], None] = check  # raises ValueError of a line that it could not read again
        self._read()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else writes to the family meanwhile. May be nested.

        Raises:
            BusyError: another process does, or has added to the ledger since it was read.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{self.path}.lock", timeout=LOCK_SECONDS, is_singleton=True)
        try:
            lock.acquire()
        except Timeout:
            raise BusyError(
                f"{self.path}: another command is at work on this family; wait until it is done and try again"
            ) from None
        try:
            size = self.path.stat().st_size if self.path.exists() else 0
            if size != self._good + len(self.torn):
                raise BusyError(
                    f"{self.path}: another command wrote to it meanwhile; look at what it did (fedunlearn show), then try again"
                )
            yield
        finally:
            lock.release()

    def append(self, kind: str, body: Mapping[str, Any]) -> Line:
        """Add one line, durably. This is the commit point of whatever it says.

        A torn tail is moved aside to `<ledger>.torn` first.

        Raises:
            BusyError: as `alone`.
            StoreError: as `signer`; or the line is one that could not be read again, which would lock the family: nothing is
                written.
            InputError: as `signer`.
            OSError: it could not be written; it is as it was.
        """
        with self.alone():
            line = self._next(kind, body)
            raw = encoded(line) + b"\n"
            try:
                self.reader(decoded(raw))
            except (ValueError, InputError) as error:
                raise StoreError(
                    f"{self.path}: a {kind!r} line could not be read again ({error}); nothing was written or changed"
                ) from error
            if self.torn:
                write_atomically(self.path.with_name(self.path.name + ".torn"), self.torn)
                os.truncate(self.path, self._good)
                self.torn = b""
            try:
                with self.path.open("ab") as file:
                    file.write(raw)
                    file.flush()
                    os.fsync(file.fileno())
                sync_folder(self.path.parent)
            except OSError as error:
                with suppress(OSError):
                    os.truncate(self.path, self._good)
                raise OSError(error.errno, error.strerror, str(self.path)) from error
            self.lines.append(line)
            self._good += len(raw)
        return line

    def heads(self, upto: int | None = None) -> dict[str, str]:
        """The current version of every kept model, or as of before line `upto`."""
        return _heads(self.lines[:upto])

    def heads_in_force(self, upto: int) -> dict[str, str]:
        """As `heads`, but for what has been rolled back since, by whatever line."""
        undone = self.undone
        return _heads(x for x in self.lines[:upto] if x.number not in undone and x.kind != "rolled back")

    @property
    def hashes(self) -> tuple[str, ...]:
        """Of all lines, in their order; places are sent them, so that they can tell whether it continues what they know."""
        return tuple(line.hash for line in self.lines)

    @property
    def undone(self) -> frozenset[int]:
        """Numbers of the lines that have been rolled back."""
        return frozenset(line.body["undoes"] for line in self.lines if line.kind == "rolled back")

    @property
    def sealed(self) -> dict[int, Line]:
        """Numbers of the lines that cannot be rolled back any more -> the line that says so."""
        return {number: line for line in self.lines if line.kind == "sealed" for number in line.body["seals"]}

    @property
    def unsigned(self) -> int:
        """How many lines stand before the first that is signed; 0 where none is."""
        return next((line.number for line in self.lines if line.key), 0)

    @property
    def set_back(self) -> tuple[int, ...]:
        """Numbers of the lines whose time is before that of the line before; all times are UTC, in one form."""
        return tuple(after.number for before, after in pairwise(self.lines) if after.time < before.time)

    def last_undoable(self) -> Line:
        """The newest unlearning that has not been rolled back.

        Raises:
            InputError: there is none, or it is sealed.
        """
        undone, sealed = self.undone, self.sealed
        for line in reversed(self.lines):
            in_force = line.kind == "unlearned" and line.number not in undone
            if in_force and (line.body["heads"] or line.body["exclusions"]):  # what nobody held is excluded all the same
                if line.number in sealed:
                    by = sealed[line.number]
                    raise InputError(
                        f"{self.path.parent}: request {line.body['request']} was sealed on {by.time[:10]} (ledger line "
                        f"{by.number}): the versions from before it are erased, so it cannot be rolled back"
                    )
                return line
        raise InputError(f"{self.path.parent}: nothing to roll back; no unlearning is in force")

    def _next(self, kind: str, body: Mapping[str, Any]) -> Line:
        previous, signer = self.lines[-1].hash if self.lines else START, self.signer()
        time = datetime.now(UTC).isoformat(timespec="seconds")
        plain, key = json.loads(json.dumps(body)), signer.public if signer else ""
        bare = Line(len(self.lines), time, kind, plain, previous, "", self.by or somebody(), code(), key)
        name = hash_of(bare)
        return replace(bare, hash=name, signature=signer.sign(name) if signer else "")

    def verify(self, keys: Sequence[str] = (), since: int | None = None) -> list[str]:
        """What is wrong with the lines' signatures (see `signatures.verify`)."""
        return verify(self.path, self.lines, keys, since)

    def signed(self, line: Line) -> Signed:
        """Whether one of its lines is signed, and rightly (see `signatures.signed`)."""
        return signed(line, self.lines[: line.number])

    def check_signatures(self) -> None:
        """Refuse to go on from lines that somebody else wrote.

        Raises:
            StoreError: a signature is not of its line and the key that it names, or a line behind a signed one has none.
            InputError: there are signatures, and the extra to check them is missing.
        """
        if wrong := self.verify():
            more = f" (and {len(wrong) - 1} more; fedunlearn log lists them)" if wrong[1:] else ""
            raise StoreError(f"{wrong[0]}{more}: nothing was done; find out who wrote it, and restore the ledger from a backup")

    def signer(self) -> Signer | None:
        """Who signs the next line; None where nobody does.

        Raises:
            StoreError: as `check_signatures`.
            InputError: the ledger is signed, and no usable key is configured; or one is that did not sign the line before, and
                nobody vouches for that: whoever takes signatures off a ledger must not get an honest one for what is left.
        """
        self.check_signatures()
        signer, last = Signer.configured(), self.lines[-1] if self.lines else None
        if signer is None and last and last.key:
            raise InputError(
                f"{self.path}: its lines are signed, and no key is configured for the next; "
                f"set {KEY} to the file with the private key"
            )
        if signer and last and last.key != signer.public and not vouched(last.hash):
            told = f"the last is signed with key {last.key[:16]}" if last.key else f"its {len(self.lines)} lines are not signed"
            raise InputError(
                f"{self.path}: {told}, and {KEY} names key {signer.public[:16]}; nothing was done. If this key signed lines "
                f"before, somebody wrote the ledger anew: restore it from a backup. If it is to begin now, and all lines are "
                f"as they were written (fedunlearn log), vouch for them: set {VOUCH}={last.hash[:16]}, the last line's hash"
            )
        return signer

    def _read(self) -> None:
        if not self.path.exists():
            return
        raw = self.path.read_bytes()
        *whole, self.torn = raw.split(b"\n")
        with _uncollected():
            self._take(whole)

    def _take(self, whole: Sequence[bytes]) -> None:
        for number, text in enumerate(whole):
            where = f"{self.path}, line {number + 1}"
            try:
                line = decoded(text)
            except ValueError as error:
                raise StoreError(f"{where}: not a ledger line ({error}); restore the file from a backup") from error
            if line.number != number or line.previous != (self.lines[-1].hash if self.lines else START):
                raise StoreError(f"{where}: does not follow from the line before; lines were removed or moved")
            if not holds(line, text):
                raise StoreError(f"{where}: its content does not hash to what it says; it was changed")
            try:
                check(line)
            except ValueError as error:
                raise StoreError(
                    f"{where}: says what no {line.kind!r} line says ({error}); it was not written by us"
                ) from error
            self.lines.append(line)
            self._good += len(text) + 1


@contextmanager
def _uncollected() -> Iterator[None]:
    """To look for garbage among millions of objects, none of which goes, takes as long as to make them."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _heads(lines: Iterable[Line]) -> dict[str, str]:
    return {model: version for line in lines for model, version in line.body.get("heads", {}).items()}


def somebody() -> str:
    """Who is at work: whom FEDUNLEARN_BY names, or who is logged in."""
    try:
        return os.environ.get(BY) or getpass.getuser()
    except (OSError, KeyError):
        return f"user {os.getuid()}"
