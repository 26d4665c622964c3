"""Every simulation runs at test size, and every number in a document is in a result file."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.scenario import load
from tests.conftest import ROOT

FOLDER = ROOT / "simulations"


def run(script: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", str(FOLDER / script), "--size", "test", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["versions"]["torch"]
    assert found["host"]
    return found


def test_hospitals_classes(tmp_path: Path) -> None:
    rows = run("hospitals_classes.py", tmp_path)["rows"]
    assert {r["method"] for r in rows} == {"fiun all", "fiun last", "steer"}
    assert {r["name"] for r in rows} == {"shared", "parallel", "eastern", "merged", "triage"}


def test_bench_importance(tmp_path: Path) -> None:
    rows = run("bench_importance.py", tmp_path)["rows"]
    able = {(r["net"], r["method"]): r for r in rows if "failed" not in r}
    for net in ("mlp", "lenet"):
        assert {"ours", "loop", "torch.func"} <= {m for n, m in able if n == net}
        assert able[net, "ours"]["error"] < 1e-5
        assert able[net, "ours"]["ratio"] > 0
        assert able[net, "ours"]["peak_mb"] > 0


def test_inherited(tmp_path: Path) -> None:
    rows = run("inherited.py", tmp_path)["rows"]
    absent = {r["name"]: r for r in rows if r["target"] == "absent"}
    assert set(absent) == {"global/r3", "global", "parallel", "chain-1", "chain-2", "chain-3", "joined"}
    assert {n: r["depth"] for n, r in absent.items()} == {
        "global/r3": 0, "global": 0, "parallel": 1, "chain-1": 1, "chain-2": 2, "chain-3": 3, "joined": 4,
    }  # fmt: skip
    assert all(r["counted"] == (r["depth"] > 0 and r["forgotten_before"] >= 0.5) for r in absent.values())
    assert all(not r["retrained_forgotten"] for r in absent.values())


@pytest.mark.parametrize("path", sorted((FOLDER / "families").glob("*.yaml")), ids=lambda p: p.stem)
def test_families_of_real_size_are_read_and_every_heir_of_theirs_is_planned(path: Path) -> None:
    """What they are, without their data: every request names a class that some site lacks, and every model has a place."""
    scenario = load(path)
    assert scenario.requests
    assert all(s in scenario.places for s in scenario.sites)


def test_tables_in_documents_are_made_from_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    import tables

    before = {d: d.read_text() for d in tables.DOCUMENTS}
    try:
        tables.main()
        assert {d: d.read_text() for d in tables.DOCUMENTS} == before
    finally:
        for document, text in before.items():
            document.write_text(text)
    assert all(f"<!-- {name} -->" in "".join(before.values()) for name in tables.TABLES)
