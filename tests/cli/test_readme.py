"""What the README shows is what runs."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.conftest import ROOT


def readme_commands() -> list[str]:
    """Lines of the blocks without a language; what needs a deployment stands in blocks of `sh`."""
    fence, found = None, []
    for line in (ROOT / "README.md").read_text().splitlines():
        if line.startswith("```"):
            fence = line if fence is None else None
        elif fence == "```" and line.startswith("fedunlearn "):
            found.append(line.split("#")[0].strip())
    return found


def test_every_command_in_the_readme_runs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "topologies").symlink_to(ROOT / "topologies")
    for name, text in re.findall(r"```yaml\n# (\S+)\n(.*?)```", (ROOT / "README.md").read_text(), re.S):
        (tmp_path / name).write_text(text)
    commands = readme_commands()
    assert len(commands) >= 6
    for command in commands:
        assert run(*shlex.split(command)[1:])[0] in (0, 1), command


def test_the_python_of_the_readme_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    names: dict[str, Any] = {}
    monkeypatch.chdir(folder.parent)
    exec(code.replace("runs/hospitals", str(folder)), names)
    assert names["record"].accepted
    assert "case 12" in (folder.parent / "report.html").read_text()
    assert names["line"].number in names["family"].ledger.undone
