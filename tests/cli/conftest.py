"""Commands as they are typed, in this process."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedunlearn.cli import main
from fedunlearn.store.ledger import BY

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedunlearn", *map(str, words)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return call


@pytest.fixture
def leaving(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A family that has forgotten what its scenario asks for."""
    shutil.rmtree(folder / "reference")
    monkeypatch.setenv(BY, "somebody")  # put back at the end, whatever --by sets
    words = ("leave", "--no-reference", "--due", "2001-01-31", "--by", "ada", "--reason", "case 12")
    assert run("unlearn", folder, *words)[0] == 0
    return folder
