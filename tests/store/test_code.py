"""Which code a ledger line was written with: that of the files that ran, not what was once installed."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fedunlearn.store import Ledger
from fedunlearn.store.code import FILES, HERE, VERSION, code, hash_of_files
from tests.conftest import ROOT

WRITES = (
    "import sys; from fedunlearn.store import Ledger; from pathlib import Path\n"
    "Ledger(Path(sys.argv[1])).append('trained', {'heads': {}})"
)


def line_of(package: Path, ledger: Path) -> dict[str, str]:
    """What a line says that was written with a copy of the package."""
    command = [sys.executable, "-c", WRITES, str(ledger)]
    subprocess.run(command, check=True, cwd=package.parent, env={"PYTHONPATH": str(package.parent), "PATH": ""})
    found: dict[str, str] = json.loads(ledger.read_bytes().splitlines()[-1])["code"]
    return found


def test_a_gate_that_was_changed_shows_in_the_line(tmp_path: Path) -> None:
    package, ledger = tmp_path / "fedunlearn", tmp_path / "ledger.jsonl"
    shutil.copytree(HERE, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "topologies", package / "topologies")  # as a wheel has them
    before = line_of(package, ledger)
    assert before.keys() == code().keys()
    assert (before[FILES], before["fedunlearn"]) == (hash_of_files(package), VERSION)
    gate = package / "evaluation" / "gate.py"
    gate.write_text(gate.read_text() + "# looser\n")
    after = line_of(package, ledger)
    assert {name for name in before if before[name] != after[name]} == {FILES}
    assert len(Ledger(ledger).lines) == 2


@pytest.mark.parametrize("what", ["content", "name", "one more", "one less", "moved from one to the other"])
def test_whatever_changes_in_the_files_changes_the_hash(what: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    one, two = tmp_path / "a" / "one.py", tmp_path / "two.py"
    one.write_text("first")
    two.write_text("second")
    before = hash_of_files(tmp_path)
    (tmp_path / "notes.txt").write_text("no code")
    assert hash_of_files(tmp_path) == before
    if what == "content":
        one.write_text("other")
    elif what == "name":
        one.rename(tmp_path / "one.py")
    elif what == "one more":
        (tmp_path / "three.py").write_text("")
    elif what == "one less":
        two.unlink()
    else:
        one.write_text("firsts")
        two.write_text("econd")
    assert hash_of_files(tmp_path) != before


def test_a_line_from_before_there_was_a_hash_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    monkeypatch.setattr("fedunlearn.store.ledger.code", lambda: {"fedunlearn": "0.0.9"})
    line = Ledger(path).append("trained", {"heads": {}})
    assert Ledger(path).lines == [line]
    assert line.code == {"fedunlearn": "0.0.9"}


def test_the_package_and_its_project_name_one_version() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
