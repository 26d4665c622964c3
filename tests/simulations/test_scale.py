"""What is measured of many heirs is measured of the same work."""

from pathlib import Path

from tests.simulations.test_simulations import run


def test_bench_apply(tmp_path: Path) -> None:
    """The script itself fails where library and loop make different weights; who is faster is for a quiet machine to say."""
    found = run("bench_apply.py", tmp_path)
    assert [r["layers"] for r in found["rows"]] == ["all", "last"]
    assert not list(tmp_path.iterdir())


def test_scale(tmp_path: Path) -> None:
    found = run("scale.py", tmp_path)
    kinds = [("root", 5), ("root", 10), ("half", 5), ("half", 10), ("root, steer", 5)]
    assert [(row["sources"], row["models"]) for row in found["rows"]] == kinds
    for row in found["rows"]:
        assert row["heirs"] == row["models"]  # a request reaches every model
        assert 0 <= row["left"] <= 100
        assert (row["accepted"] == 100) <= (row["left"] <= 5)
        assert 0 < row["away_s"] < row["seconds"]
        assert min(row["store_bytes"], row["report_bytes"], row["peak_mb"], row["plan_s"]) > 0
    for small, large in (found["rows"][:2], found["rows"][2:4]):
        assert large["ledger_bytes"] > small["ledger_bytes"] > 0
    assert found["rows"][0]["points"] == found["rows"][1]["points"]  # those of the root, however many heirs it has
    assert found["rows"][2]["points"] < found["rows"][3]["points"]
    assert found["together"][0]["ratio"] > 0
    assert run("scale.py", tmp_path)["rows"] == found["rows"]  # it goes on where it was; nobody measures the same times twice
