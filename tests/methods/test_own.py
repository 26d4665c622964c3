"""The method of the README's reader: its code stands there, works from the command line, and obeys the laws."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the README's files, where a reader would work."""
    readme = (ROOT / "README.md").read_text()
    folder = tmp_path / "own"
    folder.mkdir()
    for name, text in re.findall(r"```py\n# (\S+)\n(.*?)```", readme, re.S):
        (folder / name).write_text(text)
    assert {p.name for p in folder.iterdir()} == {"gentle.py", "test_gentle.py"}
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "gentle", raising=False)
    return folder


def test_it_is_short_and_obeys_the_laws(own: Path) -> None:
    code = (own / "gentle.py").read_text()
    assert 25 <= sum(bool(line.strip()) for line in code.splitlines()) <= 40
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_gentle.py"]
    path = os.pathsep.join([str(own), str(ROOT)])
    done = subprocess.run(command, cwd=own, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stdout
    assert "14 passed" in done.stdout


def test_it_makes_a_family_forget_from_the_command_line(own: Path, folder: Path) -> None:
    command = "from fedunlearn.cli import main; main()"
    arguments = ["unlearn", str(folder), "--classes", "0", "--method", "gentle:Gentle", "--no-reference", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", command, *arguments], cwd=own, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode in (0, 1), done.stderr  # 1: triage has no output for the class, and the last layer alone is edited
    heirs = [m for m in json.loads(done.stdout)["models"] if m["target"] == "absent"]
    assert len(heirs) == 4
    assert all(m["status"] == "committed" for m in heirs)
    assert all(m["forgotten_before"] >= 0.6 and m["forgotten_after"] <= 0.05 for m in heirs)
