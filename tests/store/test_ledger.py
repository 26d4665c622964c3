"""Who wrote a line, and with what; that a second operator waits; that a full disk leaves the ledger as it was."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fedunlearn.errors import BusyError, StoreError
from fedunlearn.store import Ledger, Line, ledger
from tests.store.forging import filled, rewritten


def test_a_line_says_who_and_with_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ledger.BY, "ada")
    line = Ledger(tmp_path / "ledger.jsonl").append("trained", {"heads": {}})
    other = Ledger(tmp_path / "ledger.jsonl", by="grace").append("trained", {"heads": {}})
    assert (line.by, other.by) == ("ada", "grace")
    assert {"fedunlearn", "torch"} <= set(line.code)
    assert Ledger(tmp_path / "ledger.jsonl").lines == [line, other]


@pytest.mark.parametrize("what", ["by", "torch", "key", "signature"])
def test_whatever_a_line_says_cannot_be_changed(what: str, key: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    line = filled(path).lines[1]
    assert Ledger(path).verify([key]) == []
    said = {"by": line.by, "torch": line.code["torch"], "key": line.key, "signature": line.signature}[what]
    one, two, three, _ = path.read_bytes().split(b"\n")
    two = two.replace(f'"{what}":"{said}"'.encode(), f'"{what}":"{said[:-1]}{chr(ord(said[-1]) ^ 1)}"'.encode())
    path.write_bytes(b"\n".join([one, two, three, b""]))
    if what == "signature":
        assert re.search("ledger line 1: its signature is not of this line", Ledger(path).verify()[0])
    else:
        with pytest.raises(StoreError, match="line 2: its content does not hash to what it says"):
            Ledger(path)


HOLDS = "import sys; from filelock import FileLock\nwith FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A ledger that another process is at work on."""
    path = tmp_path / "ledger.jsonl"
    filled(path)
    command = [sys.executable, "-c", HOLDS, f"{path}.lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield path
        other.communicate("")


def test_a_second_operator_is_told(held: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "LOCK_SECONDS", 0.1)
    before = held.read_bytes()
    with pytest.raises(BusyError, match="another command is at work on this family; wait until it is done"):
        Ledger(held).append("trained", {"heads": {}})
    with pytest.raises(BusyError, match="another command is at work"), Ledger(held).alone():
        pass
    assert held.read_bytes() == before


@pytest.mark.parametrize("after", [0, 5])
def test_a_full_disk_leaves_the_ledger_as_it_was(after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    mine = filled(path)
    before = path.read_bytes()

    def full(line: Line) -> bytes:
        with path.open("ab") as file:  # so much got there
            file.write(b"{" * after)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: full(mine.lines[-1]))
        with pytest.raises(OSError, match="No space left on device") as said:
            mine.append("trained", {"heads": {}})
    assert said.value.filename == str(path)
    assert path.read_bytes() == before
    assert mine.append("trained", {"heads": {}}).number == 3
    assert len(Ledger(path).lines) == 4


@pytest.mark.parametrize("time", ["soon", "2026-11-28T12:00:00", ""])
def test_a_time_that_is_none_is_refused_whoever_hashed_the_line(time: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    filled(path)
    rewritten(path, lambda line: replace(line, time=time) if line.number == 1 else line)
    with pytest.raises(StoreError, match="line 2"):
        Ledger(path)
