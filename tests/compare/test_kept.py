"""What is kept is used for what it is of, and nothing else: other rows, other nets and other code are noticed."""

import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedunlearn.compare import Subject, choices_of, compare, older, origin
from fedunlearn.compare.work import Nest
from fedunlearn.errors import InputError
from fedunlearn.scenario import Scenario, load
from tests.compare.conftest import CHOICES, REQUESTS, SEEDS

commits: Any = importlib.import_module("fedunlearn.compare.origin")  # a function of that name hides the module
MODELS = """
models:
  first:  {born: incremental, site: north, epochs: 2}
  second: {born: incremental, from: [first], site: east, epochs: 1}
requests:
  leave: {classes: ["0"]}
"""
FACTORIES = f"""
name: factories
data: {{factory: "rows_of_kept:site", test: "tests_of_kept:load"}}
net: {{factory: "net_of_kept:net"}}
{MODELS}"""
FILE = f"""
name: file
data: {{set: rows.npz, test: test.npz}}
net: {{name: mlp, hidden: 8}}
{MODELS}"""
CODE = {
    "rows_of_kept.py": "from part_of_kept import rows\n\ndef site(name):\n    return rows(dict(north=0, east=1)[name])\n",
    "tests_of_kept.py": "from part_of_kept import rows\n\ndef load(part):\n    return rows(2)\n",
    "part_of_kept.py": "def rows(seed):\n    raise NotImplementedError\n",
    "net_of_kept.py": "def net(shape, outputs):\n    raise NotImplementedError\n",
}


@pytest.mark.parametrize("changed", CODE)
def test_a_family_belongs_to_the_text_of_its_factories(changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {**CODE, "other_of_kept.py": "", "factories.yaml": FACTORIES}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "path", list(sys.path))
    scenario = load(tmp_path / "factories.yaml")
    before = Nest.of(tmp_path, scenario, 0)
    (tmp_path / "other_of_kept.py").write_text("# changed\n")
    assert Nest.of(tmp_path, scenario, 0) == before
    (tmp_path / changed).write_text(f"{CODE[changed]}# changed\n")
    assert Nest.of(tmp_path, scenario, 0) != before


def rows(path: Path, seed: int) -> None:
    """A file of rows in three clouds; of another seed they are others."""
    y = np.arange(300) % 3
    np.savez(path, x=(np.eye(3)[y] + np.random.default_rng(seed).normal(size=(300, 3))).astype(np.float32), y=y)


def test_a_method_is_not_put_beside_heirs_that_were_tested_on_other_rows(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text(FILE)
    subject, work = Subject.of(load(tmp_path / "file.yaml")), tmp_path / "work"
    mask, fiun = choices_of("logit_mask"), choices_of("fiun")
    rows(tmp_path / "rows.npz", 0)
    rows(tmp_path / "test.npz", 1)
    compare([subject], mask, (0,), work, False)
    kept = compare([subject], fiun, (0,), work, False)  # the same rows: both are in one table
    assert {row["method"] for row in kept["rows"]} == {"fiun", "logit_mask"}
    rows(tmp_path / "test.npz", 2)
    with pytest.raises(InputError, match=r"retained_before is .*, and .* is kept in .*before.*: that is of other rows, or of"):
        compare([subject], choices_of("rewrite"), (0,), work, False)


@pytest.fixture
def copied(result: dict[str, Any], work: Path, tmp_path: Path) -> Path:
    """What a comparison kept, without its families."""
    del result
    return Path(shutil.copytree(work, tmp_path / "work", ignore=shutil.ignore_patterns("family", "copy")))


def made_by(commit: str, path: Path) -> None:
    plain = json.loads(path.read_text())
    path.write_text(json.dumps({**plain, "origin": {**plain["origin"], "commit": commit}}))


def test_what_another_commit_has_made_is_said(copied: Path, tiny: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, nest = ([Subject(tiny, REQUESTS)], CHOICES, SEEDS, copied), Nest.of(copied, tiny, 0)
    files = [nest.trained, nest.before(REQUESTS[0], True)]
    for path in copied.rglob("*.json"):
        made_by("1234567", path)
    monkeypatch.setattr(commits, "_commit", lambda: "1234567")
    assert older(*asked) == ""
    made_by("89abcde", files[0])
    assert older(*asked).startswith("1 step is kept from commit 89abcde; this is 1234567")
    made_by("fedcba9", files[1])
    assert older(*asked).startswith("2 steps are kept from commit ")
    made_by("unknown", files[0])
    made_by("unknown", files[1])
    assert older(*asked) == ""
    monkeypatch.setattr(commits, "_commit", lambda: "unknown")
    assert older(*asked) == ""
    assert origin()["commit"] == "unknown"
