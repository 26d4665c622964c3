"""Every simulation runs at test size, and every number in a document is in a result file."""

import json
import subprocess
import sys
from math import isfinite
from pathlib import Path
from struct import pack
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


def test_compare_methods(tmp_path: Path) -> None:
    found = run("compare_methods.py", tmp_path)
    assert {r["method"] for r in found["rows"]} == {"steer", "logit_mask"}
    assert {s["method"] for s in found["summary"]} == {"steer", "logit_mask", "retrained"}


def test_bench_importance(tmp_path: Path) -> None:
    rows = run("bench_importance.py", tmp_path)["rows"]
    able = {(r["net"], r["method"]): r for r in rows if "failed" not in r}
    for net in ("mlp", "lenet"):
        assert {"ours", "expectation", "loop", "torch.func"} <= {m for n, m in able if n == net}
        assert max(able[net, m]["error"] for m in ("ours", "expectation")) < 1e-5
        assert able[net, "ours"]["ratio"] > 0
        assert able[net, "ours"]["peak_mb"] > 0


def test_bench_plan(tmp_path: Path) -> None:
    """Both find the same heirs; who is faster is for a quiet machine to say."""
    rows = {(r["roots"], r["who"]): r for r in run("bench_plan.py", tmp_path)["rows"]}
    for roots in (1, 16):
        ours, bare = rows[roots, "fedunlearn"], rows[roots, "networkx"]
        assert ours["heirs"] == bare["heirs"] == ours["models"]
        assert min(ours["seconds"], bare["seconds"], ours["peak_mb"], bare["peak_mb"]) > 0


def test_bench_runtime(tmp_path: Path) -> None:
    """What Ray costs takes longer; it must say so."""
    found = run("bench_runtime.py", tmp_path)
    rows = {(r["heirs"], r["places"], r["backend"]): r for r in found["rows"]}
    assert set(rows) == {(h, p, b) for h, p in ((1, 1), (6, 2)) for b in ("in-process", "flower", "ray")}
    for (heirs, _, backend), row in rows.items():
        if backend == "ray":
            assert row["skipped"]
            continue
        assert all(isfinite(row[k]) and row[k] >= 0 for k in ("extra_ms", "start_s", "first_s"))
        assert row["own_ms"] > 0
        assert (row["own_ms"] + row["extra_ms"]) * heirs == pytest.approx(1000 * row["wall_s"], rel=0.5)
    assert found["two_against_one"]["skipped"]


def test_what_carrying_costs_is_the_time_in_which_nobody_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    from bench_runtime import SPAN, Star, busy, spans

    of = Star(tmp_path, "mlp", ("a", "b"), (), ())
    (tmp_path / "a.spans").write_bytes(b"".join(pack(SPAN, *span) for span in ((1.0, 2.0), (11.0, 13.0), (14.0, 15.0))))
    (tmp_path / "b.spans").write_bytes(b"".join(pack(SPAN, *span) for span in ((11.5, 12.5), (14.5, 16.5))))
    assert busy(of, since=10.0) == 2.0 + 2.5
    assert [began for began, _ in spans(of, since=10.0)] == [11.0, 11.5, 14.0, 14.5]


def test_inherited(tmp_path: Path) -> None:
    rows = run("inherited.py", tmp_path)["rows"]
    absent = {r["name"]: r for r in rows if r["target"] == "absent"}
    assert set(absent) == {"global/r3", "global", "parallel", "chain-1", "chain-2", "chain-3", "joined"}
    assert {n: r["depth"] for n, r in absent.items()} == {
        "global/r3": 0, "global": 0, "parallel": 1, "chain-1": 1, "chain-2": 2, "chain-3": 3, "joined": 4,
    }  # fmt: skip
    assert all(r["counted"] == (r["depth"] > 0 and r["forgotten_before"] >= 0.5) for r in absent.values())
    assert all(r["retrained_forgotten"] == 0 for r in absent.values())
    assert {r["method"] for r in rows} == {"fiun", "steer"}


@pytest.mark.parametrize("path", sorted((FOLDER / "families").glob("*.yaml")), ids=lambda p: p.stem)
def test_families_of_real_size_ask_for_what_some_of_their_sites_lack(path: Path) -> None:
    """Without their data: there are heirs that have a class by inheritance alone, unless all are new heads, which learn it."""
    scenario = load(path)
    lacking = {c for classes in scenario.data.without.values() for c in classes}
    heads = all(model.born == "transfer" for model in scenario.models.values() if model.source)
    assert scenario.requests
    assert heads or all(set(request.classes) <= lacking for request in scenario.requests.values())


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


def test_bench_store(tmp_path: Path) -> None:
    (row,) = run("bench_store.py", tmp_path)["rows"]
    assert row["star"]["heirs"] == 5
    assert 1 < row["star"]["bytes_ratio"] < 1.1  # the backbone is kept once: six whole models would be above 5
    assert row["write"] > 0
    assert row["read"] > 0
    assert not list(tmp_path.iterdir())


def test_poisoned_evidence(tmp_path: Path) -> None:
    every = {(r["method"], r["poison"], r["merging"], r["name"]): r for r in run("poisoned_evidence.py", tmp_path)["rows"]}
    found = {key[1:]: row for key, row in every.items() if key[0] == "fiun"}
    heirs = ("global", "child", "joined")
    assert set(found) == {(p, m, h) for p in ("none", "another class") for m in ("max", "median") for h in heirs}
    for (poison, _, _), row in found.items():
        assert row["forgotten_before"] >= 0.5
        assert ("a/main: its evidence is not of 0" in row["refused"]) == (poison == "another class")
    lies = {h: (found["none", "max", h]["strength"], found["another class", "max", h]["strength"]) for h in heirs}
    assert any(honest != lie for honest, lie in lies.values())  # what was refused was then taken: the table is about that
    told = {merging: every["steer", "another class", merging, "joined"] for merging in ("apart", "median")}
    assert told["apart"]["retained_after"] < told["median"]["retained_after"]  # the models' constraints, one of them a lie


def test_rows_and_sites(tmp_path: Path) -> None:
    """Every measure is there, U-LiRA by shadow models that were steered, and five retrained models each time."""
    rows = {r["measure"]: r for r in run("rows_and_sites.py", tmp_path)["rows"]}
    assert set(rows) == {"forgotten", "test", "U-LiRA", "own game"}
    for row in rows.values():
        assert len(row["retrained"]) == 5
        assert all(0 <= v <= 1 for v in (row["after"], *row["retrained"]))


def test_evidence_leaks(tmp_path: Path) -> None:
    """What must come out whoever is busy: one row's exact evidence is that row's, and noise hides most of that."""
    rows = run("evidence_leaks.py", tmp_path)["rows"]
    found = {
        (r["statistic"], r["layers"], r["noise"], r["attack"]): r["auc"]["value"]
        for r in rows
        if r["what"] == "member" and r["n"] == 1
    }
    for statistic in ("squares", "sum"):
        for layers in ("last", "all"):
            assert found[statistic, layers, 0.0, "pool"] > 0.95 > found[statistic, layers, 0.3, "pool"]
    assert {r["part"] for r in rows if r["what"] == "labels"} == {"bias", "last"}
    costs = {(r["noise"], r["heir"]): r for r in rows if r["what"] == "cost"}
    assert set(costs) == {(s, h) for s in (0.0, 0.3) for h in ("shared", "child")}
    assert all(r["before"] >= 0.5 for r in costs.values())
