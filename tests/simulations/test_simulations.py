"""Every simulation runs at test size, and every number in a document is in a result file."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
    assert {r["layers"] for r in rows} == {"all", "last"}
    assert {r["name"] for r in rows} == {"shared", "parallel", "eastern", "merged", "triage"}


def test_bench_importance(tmp_path: Path) -> None:
    rows = run("bench_importance.py", tmp_path)["rows"]
    able = {(r["net"], r["method"]): r for r in rows if "failed" not in r}
    for net in ("mlp", "lenet"):
        assert {"ours", "loop", "torch.func"} <= {m for n, m in able if n == net}
        assert able[net, "ours"]["error"] < 1e-5
        assert able[net, "ours"]["ratio"] > 0
        assert able[net, "ours"]["peak_mb"] > 0


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
