"""The simulations of methods run at test size and tell what was asked."""

from pathlib import Path

import pytest

from fedunlearn.methods import METHODS
from tests.simulations.test_simulations import run


def test_steer_ablation(tmp_path: Path) -> None:
    rows = run("steer_ablation.py", tmp_path)["rows"]
    assert {r["name"] for r in rows} == {"shared", "parallel", "eastern", "merged"}
    settings = {r["setting"]: [s for s in rows if s["setting"] == r["setting"]] for r in rows}
    assert set(settings) == {"factor 2.0", "factor 2.0, and the drop", "the drop alone", "rewrite"}
    step, both, drop = (settings[s] for s in ("factor 2.0", "factor 2.0, and the drop", "the drop alone"))
    assert [r["raised"] for r in step] == pytest.approx([r["raised"] for r in both])  # a drop is what a raise takes back
    assert all(d["raised"] >= d["forgotten_before"] > b["raised"] for d, b in zip(drop, both, strict=True))
    assert all(b["forgotten_after"] <= s["forgotten_after"] for b, s in zip(both, step, strict=True))
    before = {r["name"]: r["forgotten_before"] for r in settings["rewrite"]}
    for of in settings.values():  # copies of one family
        assert {r["name"]: r["forgotten_before"] for r in of} == before
        assert all(r["strength"] in ({"factor": 2.0}, {}) for r in of)


def test_depth_probe(tmp_path: Path) -> None:
    rows = {r["edit"]: r for r in run("depth_probe.py", tmp_path)["rows"]}
    closed = {"rewrite", "R1", "half of R1", "erase"}
    others = {name.replace("_", " ") for name in METHODS} - {"steer", "pour", "random mask", "fine tune"}
    assert set(rows) == {"before", "retrained", "steer, last", "steer, last two", "steer, all"} | closed | others
    assert rows["before"]["back"] == 0
    assert rows["retrained"]["forgotten"] == rows["logit mask"]["forgotten"] == 0
    for same in ("logit mask", "steer, last", "rewrite"):  # the features of the last layer are as they were
        assert rows[same]["probe"] == rows["before"]["probe"]
        assert rows[same]["probe_rest"] == rows["before"]["probe_rest"]
    assert rows["R1"]["probe"] != rows["before"]["probe"]
