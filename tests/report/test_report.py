"""The page tells what the record says: all of it, and nothing else."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.evaluation.tiers import METRICS
from fedunlearn.lineage import Model, Request
from fedunlearn.report import tables
from fedunlearn.runtime import Family
from fedunlearn.store import Line
from tests.report.conftest import CLASSES, data, invented, result
from tests.report.reading import A, told


def test_every_kept_model_is_in_the_page_with_the_numbers_of_the_record(tmp_path: Path) -> None:
    numbers = {"forgotten_before": 0.876, "forgotten_after": 0.123, "retained_before": 0.951, "retained_after": 0.937}
    more = {"retrained_forgotten": 0.045, "mask_retained": 0.949, "retrained_retained": 0.962}
    models = [Model(f"m{i}", "north", "incremental", CLASSES, (f"m{i - 1}",) * (i > 0), data("a")) for i in range(9)]
    models.append(Model("stranger", "west", "incremental", CLASSES, (), data("b", site="west")))
    plain, read = told(*invented(tmp_path, models, A, lambda r: numbers | more))
    assert {m["name"] for m in plain["models"]} == {m.name for m in models}
    for model in models[:9]:
        cells = read.of(model.name)[0][2:9]
        assert cells == ["87.6%", "12.3%", "4.5%", "95.1%", "93.7%", "94.9%", "96.2%"]
    (row,) = read.of("stranger")
    assert "Neither it nor any ancestor was trained on class a" in row[1]


def test_what_is_none_is_said_not_to_be_measured_with_a_reason_and_is_never_zero(chain: tuple[Family, Line]) -> None:
    family, line = chain
    for row in line.body["record"]["facts"]["models"]:
        row.update(dict.fromkeys(("forgotten_after", "retrained_forgotten", "retrained_retained", "mask_retained")))
    plain, read = told(family, line)
    cells = read.of("root")[0]
    assert [cells[i] for i in (3, 4, 7, 8)] == ["not measured"] * 4
    assert "0.0%" not in cells
    reasons = {(w, m): e["why"] for e in plain["not_measured"] for w in e["what"] for m in e["models"]}
    assert "can be scored at its home north" in reasons["accuracy on what is forgotten", "root"]
    assert "no model was retrained" in reasons["the retrained model's accuracy", "heir"]
    for why in set(reasons.values()):
        assert why in "".join(read.text)


@pytest.mark.parametrize(
    ("rows", "left", "says"), [(40, 0.0, "up to 8.8%"), (40, 0.025, "up to 12.9%"), (400, 0.0, ""), (40, 0.2, "")]
)
def test_how_much_few_rows_leave_open_is_said(chain: tuple[Family, Line], rows: int, left: float, says: str) -> None:
    """Wilson's interval of 0 of 40 ends at 8.8 %, of 1 of 40 at 12.9 %, of 0 of 400 at 1 %."""
    family, line = chain
    for row in line.body["record"]["facts"]["models"]:
        row.update({"rows_forgotten": rows, "forgotten_after": left, "target": "absent", "status": "committed"})
    plain, _ = told(family, line)
    (root,) = (m for m in plain["models"] if m["name"] == "root")
    found = [text for text in root["findings"] if "as far as so few can tell" in text]
    assert [says in text for text in found] == [True] * bool(says)


@pytest.mark.parametrize("evaluated", [(), ("root",), ("root", "heir")])
def test_each_metric_of_each_heir_has_a_result_or_a_reason(chain: tuple[Family, Line], evaluated: tuple[str, ...]) -> None:
    family, line = chain
    versions = {r["name"]: (r["version_before"], r["version_after"]) for r in line.body["record"]["facts"]["models"]}
    plain, read = told(family, line, {name: {"full": result(*versions[name])} for name in evaluated})
    missing = [(w, m) for e in plain["not_measured"] for w in e["what"] for m in e["models"] if w in METRICS]
    taken = [(w, m) for m, tiers in plain["evaluations"].items() for r in tiers.values() for w in r["metrics"]]
    assert sorted(missing + taken) == sorted((w, m) for w in METRICS for m in versions)
    risks = {m["name"]: m["risk"] for m in plain["models"]}
    assert {n: r for n, r in risks.items() if n in evaluated} == dict.fromkeys(evaluated, "doubtful")
    assert all(r == "unknown" for n, r in risks.items() if n not in (*evaluated, "stranger"))
    assert ("80.0% (retrained 80.0%)" in "".join(read.text)) == bool(evaluated)


def test_results_of_another_version_are_not_used_and_said_to_be_so(chain: tuple[Family, Line]) -> None:
    plain, read = told(*chain, {"root": {"full": result("0" * 64, "f" * 64)}})
    assert plain["evaluations"] == {}
    assert next(m for m in plain["models"] if m["name"] == "root")["risk"] == "unknown"
    assert "the full tier was run on another version (ffffffffffff)" in "".join(read.text)


@pytest.mark.parametrize(("known", "doubted"), [(0.5, []), (0.49, ["heir"]), (None, [])])
def test_a_model_that_hardly_knew_it_before_is_named(tmp_path: Path, known: float | None, doubted: list[str]) -> None:
    models = [Model("root", "north", "incremental", CLASSES, (), data("a"))]
    models.append(Model("heir", "north", "incremental", CLASSES, ("root",), data("b")))
    plain, read = told(*invented(tmp_path, models, A, lambda r: {"forgotten_before": known} if r["name"] == "heir" else {}))
    found = [e["text"] for e in plain["limits"] if e["about"] == "Little was known"]
    assert [text.split()[0] for text in found] == doubted
    assert all(text in "".join(read.text) for text in found)


def clean(row: dict[str, Any]) -> dict[str, Any]:
    """A full tier that found nothing of what was to be forgotten."""
    found = result(row["version_before"], row["version_after"])
    found["metrics"]["probe"]["after"]["above_retrained"] = {"value": 0.0, "low": -0.1, "high": 0.1, "n": 50}
    found["metrics"]["relearn_shots"]["after"]["steps"] = "never reached in 200 steps"
    return found


def test_low_risk_takes_a_deep_test_beside_a_retrained_model(chain: tuple[Family, Line]) -> None:
    family, line = chain
    row = line.body["record"]["facts"]["models"][0]
    found = clean(row)

    def risk(nets: list[str], **changed: Any) -> str:
        plain, _ = told(family, line, {row["name"]: {"full": {**found, "nets": nets, **changed}}})
        return str(next(m for m in plain["models"] if m["name"] == row["name"])["risk"])

    assert risk(["before", "after", "retrained"]) == "low"
    assert risk(["before", "after"]) == "unknown"
    assert risk(["before", "after", "retrained"], metrics={}) == "unknown"


def test_what_was_committed_untested_is_in_doubt_whatever_deeper_tests_found(chain: tuple[Family, Line]) -> None:
    """Also where it is a class of several, some of the rows, or a limit on a metric: the record names it."""
    family, line = chain
    row = line.body["record"]["facts"]["models"][0]
    found = clean(row)
    evaluations = {row["name"]: {"full": {**found, "nets": ["before", "after", "retrained"]}}}

    def root() -> dict[str, Any]:
        return next(m for m in told(family, line, evaluations)[0]["models"] if m["name"] == row["name"])

    row["untested"] = ["not tested: no row of class b can be scored at its home"]
    assert root()["risk"] == "low"  # nothing was accepted: what is committed was tested
    line.body["record"]["facts"]["accepted_untested"] = "no row of b anywhere"
    assert root()["risk"] == "doubtful"
    assert any("Not tested: no row of class b can be scored at its home." in text for text in root()["findings"])
    row["untested"] = []
    assert root()["risk"] == "low"


@pytest.mark.parametrize(
    ("metric", "of", "found"),
    [
        ("ulira", {"after": (0.7, 0.6, 0.8)}, True),
        ("ulira", {"after": (0.3, 0.2, 0.4)}, True),  # over-forgotten rows are told apart, too
        ("ulira", {"after": (0.55, 0.45, 0.65)}, False),
        ("ulira_from_retrained", {"after": (0.6, 0.55, 0.65), "retrained": (0.62, 0.6, 0.64)}, False),
        ("ulira_from_retrained", {"after": (0.7, 0.65, 0.75), "retrained": (0.48, 0.4, 0.56)}, True),
    ],
)
def test_membership_is_residue_beyond_its_interval_and_its_control(
    chain: tuple[Family, Line], metric: str, of: dict[str, tuple[float, float, float]], found: bool
) -> None:
    family, line = chain
    row = line.body["record"]["facts"]["models"][0]
    nets = {
        net: {"auc": dict(zip(("value", "low", "high", "n"), (*a, 50), strict=True)), "tpr": {}, "curve": [[0, 0], [1, 1]]}
        for net, a in of.items()
    }
    told_of = {**result(row["version_before"], row["version_after"], "audit"), "metrics": {metric: {"shadows": 16, **nets}}}
    plain, _ = told(family, line, {row["name"]: {"audit": told_of}})
    assert (next(m for m in plain["models"] if m["name"] == row["name"])["risk"] == "doubtful") == found


@pytest.mark.parametrize(
    ("attack", "cell"),
    [("U-LiRA", "0.55 (0.45 to 0.65)"), ("LiRA (shadow models not unlearned: weaker)", "LiRA 0.55 (0.45 to 0.65)")],
)
def test_a_weaker_attack_is_named_where_it_was_the_one(chain: tuple[Family, Line], attack: str, cell: str) -> None:
    family, line = chain
    row = line.body["record"]["facts"]["models"][0]
    auc = {"value": 0.55, "low": 0.45, "high": 0.65, "n": 50}
    metrics = {"ulira": {"attack": attack, "shadows": 16, "after": {"auc": auc, "tpr": {}, "curve": [[0, 0], [1, 1]]}}}
    of = {**result(row["version_before"], row["version_after"], "audit"), "metrics": metrics}
    _, read = told(family, line, {row["name"]: {"audit": of}})
    assert any(cells[-1] == cell for cells in read.of(row["name"]))


def test_the_version_in_force_decides_the_risk(tmp_path: Path) -> None:
    names = ("pending", "untouched", "waiting", "committed", "partial")
    models = [Model(n, "north", "incremental", CLASSES, (), data("a")) for n in names]
    changes = {n: {"status": n} for n in names[:3]} | {"partial": {"unmeasured": ["x @ south/main"]}}
    said = [{"model": "pending", "text": "12.0% of the forgotten rows are still recognised (at most 5.0%)"}]
    family, line = invented(tmp_path, models, A, lambda r: changes.get(r["name"], {}), said)
    plain, read = told(family, line)
    risks = {m["name"]: m["risk"] for m in plain["models"]}
    assert risks == {"pending": "open", "untouched": "open", "waiting": "open", "committed": "unknown", "partial": "doubtful"}
    assert plain["verdict"]["tone"] == "open"
    assert (
        "2 edited and accepted by the gate, 1 held back by the gate, 1 could not be edited" in plain["verdict"]["sentences"][0]
    )
    assert said[0]["text"] in "".join(read.text)
    family.ledger.append(
        "rolled back", {"undoes": line.number, "lifted": False, "request": "x", "heads": dict.fromkeys(names, "0" * 64)}
    )
    plain, read = told(family, line)
    assert {m["risk"] for m in plain["models"]} == {"open"}
    assert "rolled back by ledger line 2" in plain["verdict"]["sentences"][0]


def test_models_born_after_the_line_are_no_part_of_it(chain: tuple[Family, Line]) -> None:
    family, line = chain
    late = Model("late", "north", "incremental", CLASSES, ("root",), data("b"))
    family.write_lineage(type(family.lineage)((*family.lineage.models, late), family.lineage.tests))
    family.ledger.append("trained", {"heads": {"late": "1" * 64, "heir": "2" * 64}, "models": 4})
    plain, _ = told(Family(family.folder), line)
    assert {m["name"] for m in plain["models"]} == {"root", "heir", "stranger"}
    assert {m["name"]: m["later"] for m in plain["models"]} == {"root": None, "heir": 2, "stranger": None}


def test_hashes_reason_and_cost_are_those_of_the_ledger(tmp_path: Path) -> None:
    models = [Model("root", "north", "incremental", CLASSES, (), data("a"))]
    family, line = invented(tmp_path, models, A, reason="case 12", accepted_untested="nobody has rows")
    _, read = told(family, line)
    text = "".join(read.text)
    row = line.body["record"]["facts"]["models"][0]
    for expected in (
        line.hash,
        line.previous,
        row["version_before"],
        row["version_after"],
        "case 12",
        "nobody has rows",
        "2.0 kB",
    ):
        assert expected in text
    assert read.of("north")[-1] == ["north", "7 B", "9 B"]
    assert "Committed untested" in text


def test_who_did_it_with_what_in_time_and_whether_it_can_be_undone(tmp_path: Path) -> None:
    models = [Model(n, "north", "incremental", CLASSES, (), data("a")) for n in ("root", "held")]
    for name, due, held, says in (
        ("in-time", "2999-01-01", "", "in time"),
        ("late", "2020-01-01", "", "after it was due"),
        ("open", "2999-01-01", "held", "still open for 1 model"),
    ):
        family, line = invented(
            tmp_path / name,
            models,
            Request(("a",), due=due),
            lambda r, held=held: {"status": "pending" if r["name"] == held else "committed"},  # type: ignore[misc]
        )
        plain, read = told(family, line)
        text = "".join(read.text)
        assert says in text
        assert ("Decided" if held else "Carried out") in text
        assert f"{line.by}, with " in text
        assert f"fedunlearn {line.code['fedunlearn']}" in text
        assert (plain["line"]["sealed"], "can still be rolled back" in text) == (None, True)
    family.ledger.append("sealed", {"seals": [line.number], "requests": ["x"], "left": [], "erases": []})
    plain, read = told(family, line)
    text = "".join(read.text)
    assert plain["line"]["sealed"]["number"] == 2
    assert "can still be rolled back" not in text
    assert "Ledger line 2 has the versions from before erased, of models that were changed: not yet at north." in text
    assert "but not yet at north" in text
    family.note_erased({"north": family.ledger.lines[-1].hash})
    plain, read = told(family, line)
    assert "models that were changed: every place has said that it did" in "".join(read.text)


def test_where_scores_were_taken_is_in_page_and_table(tmp_path: Path) -> None:
    at = {
        "home": {"forgotten": {"north": ["a"]}, "retained": "north"},
        "roots": {"forgotten": {"south": ["a"], "east": ["b"]}, "retained": "north"},
        "nowhere": {"forgotten": {}, "retained": None},
        "untouched": None,
    }
    says = {
        "home": "at north",
        "roots": "forgotten: at south (class a), east (class b); the rest: at north",
        "nowhere": "forgotten: nowhere; the rest: nowhere",
        "untouched": "",
    }
    models = [Model(n, "north", "incremental", CLASSES, (), data("a")) for n in at]
    plain, read = told(*invented(tmp_path, models, A, lambda r: {"scored_at": at[r["name"]]}))
    assert {r["name"]: r["scored"] for r in csv.DictReader(io.StringIO(tables(plain)["models"]))} == says
    assert {n: read.of(n)[0][9] for n in at} == {n: f"50; 400\n{words}" for n, words in says.items()}
