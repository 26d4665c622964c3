"""Boxes stand for all kept models, point forward in time, and do not cover one another."""

from itertools import pairwise

from hypothesis import given, strategies as st

from fedunlearn.lineage import Lineage
from fedunlearn.report.drawing import HEIGHT, MOST, WIDTH, drawing
from fedunlearn.report.plots import plots
from tests.lineage.families import lineages
from tests.report.conftest import many


def check(lineage: Lineage, marks: dict[str, str]) -> None:
    kept = [m.name for m in lineage.models if m.kept]
    if not kept:
        return
    drawn = drawing(lineage, marks)
    boxes = drawn["boxes"]
    assert sorted(n for b in boxes for n in b["models"]) == sorted(kept)
    assert all(len({marks[n] for n in b["models"]}) == 1 for b in boxes)
    assert all(boxes[a]["x"] < boxes[b]["x"] for a, b in drawn["lines"])
    for b in boxes:
        assert 0 <= b["x"] <= drawn["width"] - WIDTH
        assert 0 <= b["y"] <= drawn["height"] - HEIGHT
    columns: dict[float, list[float]] = {}
    for b in boxes:
        columns.setdefault(b["x"], []).append(b["y"])
    for heights in columns.values():
        heights.sort()
        assert all(b - a >= HEIGHT for a, b in pairwise(heights))
    if drawn["within"] == 0:
        at = {n: i for i, b in enumerate(boxes) for n in b["models"]}
        wanted = {(at[p], at[c]) for c in kept for p in lineage.kept_parents(c)}
        assert {tuple(line) for line in drawn["lines"]} == {(a, b) for a, b in wanted if a != b}


@given(lineages(), st.data())
def test_any_family(lineage: Lineage, draw: st.DataObject) -> None:
    check(lineage, {m.name: draw.draw(st.sampled_from(("open", "low"))) for m in lineage.models})


def test_a_big_family_is_few_boxes_and_its_beginning_stays_by_itself() -> None:
    lineage = Lineage(tuple(many(1000)))
    marks = {m.name: "none" if m.name.startswith("stranger") else "unknown" for m in lineage.models}
    check(lineage, marks)
    drawn = drawing(lineage, marks)
    assert len(drawn["boxes"]) <= MOST
    first = [b["models"] for b in drawn["boxes"] if b["x"] == min(x["x"] for x in drawn["boxes"])]
    assert ["shared"] in first
    assert any(drawn["boxes"][a]["models"] == ["shared"] for a, _ in drawn["lines"])


def test_what_a_gate_saw_is_drawn_without_the_curves_that_the_record_leaves_out() -> None:
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6}
    relearnt = {"relearn_retained": {"after": {"best": 0.5}}, "probe": {"after": {"recovery": estimate}}}
    whole = {"relearn_retained": {"after": {"best": 0.5, "curve": [[0, 0.1], [10, 0.5]]}}}
    assert [p["kind"] for p in plots({"full": {"metrics": relearnt}})] == ["shares"]
    assert [p["kind"] for p in plots({"full": {"metrics": whole}})] == ["curves"]
