"""The story of a family: append-only JSON lines, each with the hash of the one before. What is true follows from it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blake3 import blake3
from filelock import FileLock, Timeout

from fedunlearn.errors import InputError, StoreError
from fedunlearn.store.files import sync_folder, write_atomically

START = "0" * 64
LOCK_SECONDS = 10.0


@dataclass(frozen=True)
class Line:
    """One thing that was done.

    Args:
        number: from 0.
        time: UTC, ISO 8601.
        kind: "trained", "unlearned" or "rolled back".
        body: what, as plain data.
        previous: hash of the line before.
        hash: of this line's other fields.
    """

    number: int
    time: str
    kind: str
    body: Mapping[str, Any]
    previous: str
    hash: str


class Ledger:
    """A ledger file, read whole and checked when opened. A torn last line was never committed and is passed over.

    Args:
        path: the file; it need not exist yet.

    Raises:
        StoreError: a line other than a torn last one is damaged, out of order, or does not follow from the one before.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[Line] = []
        self._good = 0  # bytes up to the end of the last whole line
        self.torn = b""  # what a crash left behind the last whole line
        self._read()

    def append(self, kind: str, body: Mapping[str, Any]) -> Line:
        """Add one line, durably. This is the commit point of whatever it says.

        A torn tail is moved aside to `<ledger>.torn` first.

        Raises:
            StoreError: another process holds the ledger, or has added to it since it was read.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{self.path}.lock", timeout=LOCK_SECONDS):
                size = self.path.stat().st_size if self.path.exists() else 0
                if size != self._good + len(self.torn):
                    raise StoreError(
                        f"{self.path}: another command wrote to it meanwhile; look at what it did "
                        f"(fedunlearn show), then try again"
                    )
                if self.torn:
                    write_atomically(self.path.with_name(self.path.name + ".torn"), self.torn)
                    os.truncate(self.path, self._good)
                    self.torn = b""
                line = self._next(kind, body)
                raw = _encode(line) + b"\n"
                with self.path.open("ab") as file:
                    file.write(raw)
                    file.flush()
                    os.fsync(file.fileno())
                sync_folder(self.path.parent)
        except Timeout:
            raise StoreError(f"{self.path}: another command is writing to it; wait for it and try again") from None
        self.lines.append(line)
        self._good += len(raw)
        return line

    def heads(self, upto: int | None = None) -> dict[str, str]:
        """The current version of every kept model, or as of before line `upto`."""
        found: dict[str, str] = {}
        for line in self.lines[:upto]:
            found.update(line.body.get("heads", {}))
        return found

    @property
    def undone(self) -> frozenset[int]:
        """Numbers of the lines that have been rolled back."""
        return frozenset(line.body["undoes"] for line in self.lines if line.kind == "rolled back")

    def last_undoable(self) -> Line:
        """The newest unlearning that has not been rolled back.

        Raises:
            InputError: there is none.
        """
        undone = self.undone
        for line in reversed(self.lines):
            if line.kind == "unlearned" and line.body["heads"] and line.number not in undone:
                return line
        raise InputError(f"{self.path.parent}: nothing to roll back; no unlearning is in force")

    def _next(self, kind: str, body: Mapping[str, Any]) -> Line:
        previous = self.lines[-1].hash if self.lines else START
        time = datetime.now(UTC).isoformat(timespec="seconds")
        plain = json.loads(json.dumps(body))
        bare = Line(len(self.lines), time, kind, plain, previous, "")
        return Line(len(self.lines), time, kind, plain, previous, _hash(bare))

    def _read(self) -> None:
        if not self.path.exists():
            return
        raw = self.path.read_bytes()
        *whole, self.torn = raw.split(b"\n")
        for number, text in enumerate(whole):
            where = f"{self.path}, line {number + 1}"
            try:
                line = Line(**json.loads(text))
            except (ValueError, TypeError) as error:
                raise StoreError(f"{where}: not a ledger line ({error}); restore the file from a backup") from error
            if line.number != number or line.previous != (self.lines[-1].hash if self.lines else START):
                raise StoreError(f"{where}: does not follow from the line before; lines were removed or moved")
            if _hash(line) != line.hash:
                raise StoreError(f"{where}: its content does not hash to what it says; it was changed")
            self.lines.append(line)
            self._good += len(text) + 1


def _plain(line: Line) -> dict[str, Any]:
    return {"number": line.number, "time": line.time, "kind": line.kind, "body": line.body, "previous": line.previous}


def _hash(line: Line) -> str:
    return blake3(json.dumps(_plain(line), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _encode(line: Line) -> bytes:
    return json.dumps({**_plain(line), "hash": line.hash}, sort_keys=True, separators=(",", ":")).encode()
