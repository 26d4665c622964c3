"""Pooling, intervals and what is judged; text that says what the numbers say."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.compare import about, as_csv, details, notes, overview, rows_of, write
from fedunlearn.compare.cells import cells_of, lost, share, summary_of
from fedunlearn.compare.clock import Clock
from fedunlearn.compare.origin import HERE, joined, origin
from fedunlearn.compare.table import percent
from fedunlearn.evaluation import Gate
from fedunlearn.evaluation.intervals import over_seeds, proportion
from tests.cli.conftest import (
    Run,
    run as run,  # the fixture
)
from tests.compare.conftest import CHOICES, SEEDS

GATE = {"t": Gate()}


def row(**more: Any) -> dict[str, Any]:
    plain = {
        "topology": "t", "seed": 0, "method": "m", "simulation": False, "request": "0", "class": "0", "heir": "a", "born": "x",
        "depth": 0, "target": "absent", "status": "committed", "why": "", "forgotten_before": 0.9, "forgotten_after": 0.1,
        "retrained_forgotten": None, "rows_forgotten": 200, "retained_before": 0.9, "retained_after": 0.9,
        "mask_retained": 0.9, "retrained_retained": None, "rows_retained": 100, "seconds": 1.0, "retrain_seconds": None,
    }  # fmt: skip
    return plain | more


def read(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The CSV, numbers as numbers."""
    rows = list(csv.DictReader(io.StringIO(as_csv(result))))

    def value(text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            return text or None

    text = ("class", "request", "heir", "method")
    return [{k: v if k in text else value(v) for k, v in r.items()} for r in rows]


def weighted(rows: Sequence[dict[str, Any]], what: str, weight: str) -> float:
    return float(sum(r[what] * r[weight] for r in rows) / sum(r[weight] for r in rows))


def test_cells_are_the_means_of_the_csv_weighted_by_rows(result: dict[str, Any]) -> None:
    rows, seen = read(result), 0
    for cell in result["cells"]:
        of = [r for r in rows if all(r[k] == cell[k] for k in ("method", "request", "class", "heir"))]
        assert len(of) == cell["seeds"] == 2
        before, after = (weighted(of, f"retained_{w}", "rows_retained") for w in ("before", "after"))
        assert cell["lost"]["value"] == pytest.approx(before - after)
        if cell["left"] is None:
            assert all(r["forgotten_after"] is None for r in of)
            continue
        seen += 1
        assert cell["left"]["value"] == pytest.approx(weighted(of, "forgotten_after", "rows_forgotten"))
        most = max(int(r["rows_forgotten"]) for r in of)  # of a seed: others draw from the same rows
        rows_say, seeds_say = (
            proportion(round(cell["left"]["value"] * most), most),
            over_seeds([r["forgotten_after"] for r in of]),
        )
        low, high = min(rows_say.low, seeds_say.low), max(rows_say.high, seeds_say.high)
        assert (cell["left"]["low"], cell["left"]["high"]) == pytest.approx((max(0, low), min(1, high)))
    assert seen == 4 * 2 * 3  # methods, heirs with an output, classes of both requests


def test_the_worst_is_the_worst_and_the_mean_is_the_mean(result: dict[str, Any]) -> None:
    rows = read(result)
    for line in (s for s in result["summary"] if s["method"] != "retrained"):
        counted = [c for c in result["cells"] if c["method"] == line["method"] and c["counts"]]
        keys = {(c["request"], c["class"], c["heir"]) for c in counted}
        of = [r for r in rows if r["method"] == line["method"] and (r["request"], r["class"], r["heir"]) in keys]
        assert line["counted"] == len(counted) > 0
        assert line["left"]["value"] == pytest.approx(weighted(of, "forgotten_after", "rows_forgotten"))
        assert line["worst"]["value"] == max(c["left"]["value"] for c in counted)
        assert line["worst_lost"]["value"] == max(c["lost"]["value"] for c in counted)
        for what, key in (("worst_heir", lambda r: r["heir"]), ("worst_class", lambda r: (r["request"], r["class"]))):
            groups = {key(r): [q for q in of if key(q) == key(r)] for r in of}
            worst = max(weighted(g, "forgotten_after", "rows_forgotten") for g in groups.values())
            assert line[what]["value"] == pytest.approx(worst)
    left = {s["method"]: s["left"]["value"] for s in result["summary"]}
    assert left["logit_mask"] == left["retrained"] == 0
    assert left["failing"] > 0.5
    assert {s["method"]: s["outcomes"] for s in result["summary"]}["failing"] == {"failed": 12}


def test_counted_are_heirs_that_must_not_know_it_and_knew_it_and_few_rows_are_not_judged() -> None:
    def cell(**more: Any) -> dict[str, Any]:
        return cells_of([row(**more), row(seed=1, **more)], GATE)[0]

    assert (cell()["counts"], cell()["judged"], cell()["within"]) == (True, True, False)
    assert cell(forgotten_after=0.05)["within"]
    assert not cell(forgotten_after=0.05, retained_after=0.84)["within"]
    for other in ({"forgotten_before": 0.49}, {"target": "as_retrained"}, {"forgotten_after": None}):
        assert (cell(**other)["counts"], cell(**other)["within"]) == (False, None)
    few = cell(rows_forgotten=149)
    assert (few["counts"], few["judged"], few["within"]) == (True, False, None)
    assert few["left"]["low"] < few["left"]["value"] < few["left"]["high"]


def test_heirs_that_are_tested_on_the_same_rows_do_not_make_it_surer() -> None:
    one, two = (share([row(heir=h) for h in heirs]) for heirs in ("a", "ab"))
    assert one == two
    assert one is not None
    assert one["n"] == 200
    assert (one["low"], one["high"]) == pytest.approx((proportion(20, 200).low, proportion(20, 200).high))
    more = share([row(), row(seed=1), row(**{"class": "1"})])
    assert more is not None
    assert more["n"] == 600


def test_a_class_that_several_requests_name_is_tested_on_the_same_rows_and_does_not_make_it_surer() -> None:
    apart = [row(seed=i, request=c, **{"class": c}) for i in range(2) for c in "56"]
    twice = [row(seed=i, request=r, **{"class": c}) for i in range(2) for r, c in (("5", "5"), ("5+6", "5"), ("5+6", "6"))]
    assert share(twice) == share(apart)
    assert summary_of(twice, GATE)[0]["left"] == summary_of(apart, GATE)[0]["left"]
    unnamed = [row(request=r, **{"class": ""}) for r in ("a", "b")]  # samples or sites: rows of a request are its own
    found = share(unnamed)
    assert found is not None
    assert found["n"] == 400


def test_seeds_that_differ_by_more_than_chance_among_rows_make_it_less_sure() -> None:
    far, near = (
        share([row(seed=i, forgotten_after=v) for i, v in enumerate(values)]) for values in ((1, 0, 0), (0.3, 0.3, 0.3))
    )
    assert far is not None
    assert near is not None
    assert (far["low"], far["high"]) == (0, 1)
    assert (near["low"], near["high"]) == pytest.approx((proportion(60, 200).low, proportion(60, 200).high))


def test_what_was_trained_on_it_is_told_from_what_inherits_it() -> None:
    rows = [row(seed=i, heir=h, depth=d, forgotten_after=left, rule="calibrated at the roots" if d else "closest")
            for i in range(2) for h, d, left in (("root", 0, 0.4), ("a", 1, 0.02), ("b", 2, 0.06))]  # fmt: skip
    (line,) = summary_of(rows, GATE)
    assert line["worst"]["name"] == "root, 0"
    assert (line["within"], line["judged"]) == (1, 3)
    assert line["inherited"]["worst"]["name"] == "b, 0"
    assert (line["inherited"]["within"], line["inherited"]["judged"]) == (1, 2)
    assert line["travelled"] == [4, 6]
    (alone,) = summary_of([row(), row(seed=1)], GATE)
    assert alone["inherited"] == {"judged": 0, "within": 0, "worst": None, "worst_lost": None}
    assert alone["travelled"] is None


def test_what_is_lost_has_an_interval_over_seeds_or_none() -> None:
    assert lost([row(retained_after=0.8)], "retained_after") == pytest.approx({"value": 0.1, "low": None, "high": None})
    found = lost([row(retained_after=0.8), row(seed=1, retained_after=0.9)], "retained_after")
    expected = over_seeds([0.1, 0.0])
    assert found == pytest.approx({"value": 0.05, "low": expected.low, "high": expected.high})


def test_reasons_that_differ_in_numbers_only_are_one() -> None:
    why = [f"{left}% of the forgotten rows are still recognised (at most 5.0%)" for left in ("12.5", "7", "100.0")]
    rows = [row(seed=i, status="pending", why=text) for i, text in enumerate(why)]
    (line,) = summary_of([*rows, row(seed=3), row(seed=4, status="untouched", why="untouched: needs deeper layers")], GATE)
    assert line["outcomes"] == {"pending": 3, "committed": 1, "untouched": 1}
    assert line["reasons"] == [
        [3, "pending", "12.5% of the forgotten rows are still recognised (at most 5.0%)"],
        [1, "untouched", "needs deeper layers"],
    ]


def test_what_was_not_edited_is_as_near_to_retrained_models_as_it_was_before() -> None:
    of = {"target": "as_retrained", "retrained_forgotten": 0.4, "forgotten_before": 0.9, "forgotten_after": 0.9}
    for status in ("failed", "untouched"):
        line = summary_of([row(status=status, **of)], GATE)[0]
        assert line["gap"] is None
        assert line["gap_before"]["value"] == pytest.approx(0.5)
    line = summary_of([row(status="pending", **of)], GATE)[0]
    assert line["gap"] == line["gap_before"]


def test_as_retrained_is_told_by_its_distance() -> None:
    aim = {"target": "as_retrained", "retrained_forgotten": 0.4, "retrained_retained": 0.9}
    rows = [row(**aim, heir=h, forgotten_after=v, retained_after=k)
            for h, v, k in (("a", 0.5, 0.9), ("b", 0.2, 0.7))]  # fmt: skip
    line, again = summary_of(rows, GATE)
    assert line["counted"] == 0
    assert line["left"] is line["worst"] is None
    assert (line["worst_gap"]["name"], line["worst_gap"]["value"]) == ("b, 0", pytest.approx(0.2))
    assert line["gap"]["value"] == pytest.approx(0.15)
    assert line["gap_lost"]["value"] == pytest.approx(0.1)
    few = row(target="as_retrained", heir="c", rows_forgotten=6, retrained_forgotten=1.0, forgotten_after=0.0)
    both = [few, *(r | {"rows_forgotten": 300} for r in rows)]
    assert summary_of(both, GATE)[0]["worst_gap"]["name"] == "b, 0"  # six rows are no worst of anything where there are more
    seeds = [row(target="as_retrained", seed=i, retrained_forgotten=0.5, forgotten_after=v) for i, v in enumerate((0.3, 0.7))]
    assert summary_of(seeds, GATE)[0]["gap"]["value"] == pytest.approx(0.2)  # and do not cancel
    assert again["method"] == "retrained"
    assert again["gap"]["value"] == 0
    some = [
        r | {"forgotten_after": v, "status": s} for r, v, s in zip(seeds, (0.9, 0.5), ("untouched", "pending"), strict=True)
    ]
    assert summary_of(some, GATE)[0]["gap"]["value"] == pytest.approx(0.2)  # as it was, at a seed where it was not edited


def test_markdown_csv_and_json_agree(result: dict[str, Any], tmp_path: Path) -> None:
    files = {f.name: f.read_text() for f in write(result, tmp_path)}
    assert json.loads(files["result.json"]) == json.loads(json.dumps(result))
    assert rows_of(files["rows.csv"]) == result["rows"]
    rows = list(csv.DictReader(io.StringIO(files["rows.csv"])))
    for text, plain in zip(rows, result["rows"], strict=True):
        assert {k: v for k, v in text.items() if k != "strength"} == {
            k: "" if v is None else str(v) for k, v in plain.items() if k != "strength"
        }
        assert json.loads(text["strength"] or "null") == plain["strength"]
    table = overview(result)
    for line, s in zip(table.lines, result["summary"], strict=True):
        said = dict(zip(table.header, line, strict=True))
        assert said["method"] == s["method"] + ": simulation only" * (s["method"] == "ssd")
        assert said["left"].startswith(f"{100 * s['left']['value']:.1f}*")
        assert said["worst of all"].startswith(f"{s['worst']['name']}: {100 * s['worst']['value']:.1f}*")
        assert f"| {' | '.join(line)} |" in files["table.md"]
    every = details(result)
    assert len(every.lines) == len(result["cells"])
    for line, c in zip(every.lines, result["cells"], strict=True):
        assert dict(zip(every.header, line, strict=True))["before"] == percent(c["before"])
        assert f"| {' | '.join(line)} |" in files["table.md"]
    for note in notes(result):
        assert f"- {note}\n" in files["table.md"]
    assert "failing (tests.compare.conftest:Failing)" in next(
        note for note in notes(result) if note.startswith("settings: fiun:")
    )
    assert any("failing: 12 failed" in note and "ZeroDivisionError" in note for note in notes(result))


def test_time_is_what_steps_of_the_same_kind_took_or_unknown() -> None:
    clock = Clock.of([(("t", "training"), None), (("t", "training"), None), (("t", "fiun"), None)])
    assert clock.words() == "3 steps left; time: unknown for 3, until the first of their kind is done"
    clock.done(("t", "training"), 120.0)
    assert (clock.known, clock.unknown) == (120.0, 1)
    assert clock.words() == "2 steps left; time: about 2.0 minutes and unknown for 1, until the first of its kind is done"
    again = Clock.of([(("t", "fiun"), 7200.0), (("t", "fiun"), 3600.0), (("t", "fiun"), None)])
    assert again.words() == "1 step left, 2 kept from before; time: about 1.5 hours"
    again.done(("t", "fiun"), 1.0)
    assert again.words() == "0 steps left, 2 kept from before"


def test_a_result_says_where_it_comes_from(result: dict[str, Any]) -> None:
    assert set(origin("typer")["versions"]) >= {"fedunlearn", "torch", "typer"}
    assert result["versions"] == origin()["versions"]
    assert result["host"] == origin()["host"]
    assert all(r["commit"] for r in result["rows"])
    one, two = ({"versions": {"torch": v}, "commit": c, "host": "h"} for v, c in (("2", "a"), ("3", "b")))
    assert joined([one, two, one]) == {"versions": {"torch": "2 / 3"}, "commit": "a, b", "host": "h"}
    assert (HERE / "compare").is_dir()


def test_a_method_that_was_not_run_at_every_seed_is_named(result: dict[str, Any]) -> None:
    assert not any("alone: " in text for text in about(result))
    label, (first, last) = CHOICES[0].label, SEEDS
    fewer = {**result, "rows": [r for r in result["rows"] if (r["method"], r["seed"]) != (label, last)]}
    assert [text for text in about(fewer) if "alone: " in text] == [f"seed {first} alone: {label}."]


def test_the_command(run: Run, topology: Path, work: Path, result: dict[str, Any], tmp_path: Path) -> None:
    out = work.parent  # families are there already
    words = ("compare", topology, "--methods", "fiun", "--set", "fiun.layers=last", "--classes", "0,0+7", "--seeds", "2")
    status, text, said = run(*words, "--out", out, "--json")
    assert status == 0
    assert "planned: 0 steps left, 14 kept from before" in said
    found = json.loads(text)
    assert found["rows"] == [r for r in result["rows"] if r["method"] in ("fiun", "logit_mask")]
    status, text, _ = run(*words, "--out", out)
    assert status == 0
    for expected in (
        "logit_mask",
        "retrained",
        "accepted",
        "fewer than 300 rows",
        "settings: fiun: alpha=auto",
        "rows.csv",
    ):
        assert expected in text
    assert json.loads((out / "result.json").read_text()) == found
    status, _, said = run("compare", topology, "--set", "alpha=1", "--out", tmp_path / "none")
    assert status == 2
    assert "expected method.key=value" in said
    assert not (tmp_path / "none").exists()


def test_results_of_another_comparison_are_moved_aside_not_replaced(result: dict[str, Any], tmp_path: Path) -> None:
    first = {f.name: f.read_text() for f in write(result, tmp_path)}
    write(result, tmp_path)
    assert not list(tmp_path.glob("earlier-*"))
    for more in (1, 2):
        write(result | {"seeds": [more]}, tmp_path)
    assert (tmp_path / "earlier-1" / "result.json").read_text() == first["result.json"]
    assert json.loads((tmp_path / "earlier-2" / "result.json").read_text())["seeds"] == [1]
    assert json.loads((tmp_path / "result.json").read_text())["seeds"] == [2]


def test_the_retrained_line_has_every_seed_once() -> None:
    """Whatever methods had it, and however many of them."""
    rows = [
        row(method=method, seed=seed, retrained_forgotten=0.1 * seed, retrained_retained=0.9)
        for method, seed in (("a", 0), ("b", 0), ("b", 1))
    ]
    line = summary_of(rows, GATE)[-1]
    assert (line["method"], line["left"]["n"], line["left"]["value"]) == ("retrained", 400, pytest.approx(0.05))
