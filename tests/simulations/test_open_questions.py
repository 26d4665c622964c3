"""The open questions run at test size; what they change is what they say; answers and figures come from results alone."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from fedunlearn.compare.work import Nest
from fedunlearn.evaluation import Gate, Scores
from fedunlearn.runtime import InProcess, unlearn
from fedunlearn.scenario import workers
from tests.simulations.test_simulations import FOLDER, run

NAMES = ("repeated", "size", "shift", "drift", "labels", "unequal", "parts", "whole", "strength", "place", "nets")


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the folder can be imported."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.syspath_prepend(FOLDER / "families")


def test_every_question_runs_and_is_answered_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run("open_questions.py", tmp_path)["rows"]
    monkeypatch.setattr(import_module("figures"), "FIGURES", tmp_path)
    for name in NAMES:
        of = [r for r in rows if r["question"] == name]
        assert import_module("open_questions_answers").answer({"question": name, "asks": "?", "rows": of})
        import_module("figures").draw(f"open_{name}", import_module("panels").PANELS[f"open_{name}"](of))
        assert (tmp_path / f"open_{name}.svg").stat().st_size < 60_000
    steps = [r for r in rows if r["question"] == "repeated" and r["at"] == 2 and r["method"] == "logit mask"]
    assert {r["heir"] for r in steps} == {"root", "heir"}
    assert all(r["forgotten"] == r["retrained"] == 0 for r in steps)
    alike = {(r["at"], r["evidence"]): r for r in rows if r.get("part") == "below"}
    assert alike[0, "root"]["cosine"] == pytest.approx(1)
    assert alike[0, "root"]["overlap"] == 1
    assert alike[1, "root"]["spearman"] > alike[1, "a stranger"]["spearman"]


def test_each_question_has_an_answer_and_a_figure() -> None:
    assert tuple(import_module("open_questions").QUESTIONS) == NAMES
    answers = import_module("open_questions_answers")
    assert tuple(answers.ANSWERS) == tuple(answers.ON) == NAMES
    assert {f"open_{name}" for name in NAMES} <= import_module("panels").PANELS.keys()


@pytest.mark.parametrize("path", sorted((FOLDER / "figures").glob("*.svg")), ids=lambda p: p.stem)
def test_figures_are_made_from_the_results(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = import_module("figures")
    monkeypatch.setattr(figures, "FIGURES", tmp_path)
    figures.draw(path.stem, import_module("panels").PANELS[path.stem](import_module("tables").drawn(path.stem)))
    drawn = (tmp_path / path.name).read_text()
    assert drawn == path.read_text()
    assert len(drawn) < 100_000


def test_every_result_has_a_figure() -> None:
    tables = import_module("tables").TABLES
    drawn = {tables[name][0] for name in import_module("panels").PANELS}
    assert drawn == {result for result, _ in tables.values()} - {"compare_*", "bench_importance_gpu"}  # of all; not run


def test_every_figure_is_there_and_in_the_document() -> None:
    text = (FOLDER / "README.md").read_text()
    for name in import_module("panels").PANELS:
        assert (FOLDER / "figures" / f"{name}.svg").exists()
        assert f"](figures/{name}.svg)" in text


def test_labels_are_wrong_in_what_is_trained_on_alone() -> None:
    sets = import_module("open_sets")
    right, wrong = sets.wrong_0("train"), sets.wrong_40("train")
    assert right[3] == wrong[3]
    assert (right[1] != wrong[1]).mean() == pytest.approx(0.4, abs=0.001)
    tests = [of("test") for of in (sets.wrong_0, sets.wrong_40)]
    assert (tests[0][1] == tests[1][1]).all()
    assert not {k.split("-")[1] for k in tests[0][3]} & {k.split("-")[1] for k in right[3]}


def test_batches_of_rows_are_disjoint_and_as_large_as_asked() -> None:
    of = import_module("open_questions_family")
    asked = of.samples(of.family("batches", of.IMAGES, heir=False), 0, 0.01, 50)
    assert {len(r.samples) for r in asked} == {9}
    assert len({s for r in asked for s in r.samples}) == 50 * 9


def test_what_is_committed_whatever_comes_of_it_was_chosen_for_the_same_limits() -> None:
    lenient, bad = import_module("open_questions_family").Lenient(), Scores(1.0, 0.0, 9, 9)
    assert vars(lenient) == vars(Gate())
    assert Gate().judge("absent", bad, bad, None)[0]
    assert lenient.judge("absent", bad, bad, None) == ([], [])


def test_evidence_alone_is_measured_elsewhere(tmp_path: Path) -> None:
    module, of = import_module("open_questions_evidence"), import_module("open_questions_family")
    base = {**of.IMAGES, "net": {"name": "mlp", "hidden": 8}}
    nest = Nest.of(tmp_path, of.family("shift", base, ("3",), epochs=2), 0)
    nest.train(lambda _: None)
    facts = {}
    for name, make in {
        "here": lambda places: InProcess(places, simulation=True),
        "as trained": lambda places: module.Elsewhere(places, module.SHIFTS["as trained"]),
        "negative": lambda places: module.Elsewhere(places, module.SHIFTS["negative"]),
    }.items():
        with nest.copy() as family:
            backend = make(workers(nest.scenario, family))
            record = unlearn(family, of.classes(("3",)), module.BY_HAND.method, backend, of.Lenient())
        facts[name] = {m["name"]: m for m in record.facts["models"]}
    before = ("forgotten_before", "retained_before", "rows_forgotten", "version_before")
    for heir, here in facts["here"].items():
        assert facts["as trained"][heir] == here
        assert facts["negative"][heir]["version_after"] != here["version_after"]
        assert [facts["negative"][heir][k] for k in before] == [here[k] for k in before]


def test_the_same_is_wholly_alike_and_what_shares_no_weight_is_not() -> None:
    overlap = import_module("open_questions_evidence")._overlap
    ramp = torch.arange(1000.0)
    assert overlap(ramp, 2 * ramp) == 1
    assert overlap(ramp, -ramp) == 0


def test_a_limit_is_borne_up_to_where_it_first_breaks() -> None:
    answers = import_module("open_questions_answers")

    def row(at: float, left: float, lost: float, **more: Any) -> dict[str, Any]:
        return {
            "cell": "c", "at": at, "seed": 0, "method": "m", "heir": "h", "request": "r", "class": "0", "target": "absent",
            "forgotten_before": 0.9, "forgotten_after": left, "retrained_forgotten": 0.0, "rows_forgotten": 100,
            "retained_before": 0.9, "retained_after": 0.9 - lost, "retrained_retained": 0.9, "rows_retained": 100, **more,
        }  # fmt: skip

    rows = [row(1, 0.0, 0.0), row(2, 0.04, 0.04), row(3, 0.06, 0.0), row(4, 0.0, 0.0)]
    assert answers.borne(rows, "c", " %") == "m up to 2 %"
    assert answers.borne(rows[:2], "c", " %") == "m up to 2 % (the most tried)"
    assert answers.borne([row(1, 0.0, 0.06)], "c", " %") == "m nowhere"
    assert answers.within([row(1, 0.5, 0.0, target="as_retrained", retrained_forgotten=0.45)]) is True
    assert answers.within([row(1, 0.0, 0.0, target="as_retrained", retrained_forgotten=0.45)]) is False
    assert answers.within([row(1, 0.0, 0.0, forgotten_before=0.4)]) is None
    assert "| 3 | 6.0, 0.0 (0 of 1) |" in answers.grid(rows, "at", lambda r: str(r["at"]))


def test_a_family_breaks_at_the_first_request_that_costs_too_much() -> None:
    broken = import_module("open_questions_repeated").broken
    rows = [{"at": at, "rest_before": 0.9, "rest": rest} for at, rest in enumerate((0.9, 0.88, 0.84, 0.9))]
    assert broken(rows) == 2
    assert broken(rows[:2]) is None
