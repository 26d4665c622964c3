"""Strengths are chosen: what forgets at the least cost, within the limits, and the budget goes beside the best."""

import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.errors import ShapeError
from fedunlearn.evaluation import Scores
from fedunlearn.methods import Method, calibrate, make
from fedunlearn.methods.calibration import NOTHING_LEFT, beside


def scores(forgotten: float | None, retained: float | None = None, **by_class: float | None) -> Scores:
    return Scores(forgotten, retained, 100, 100, by_class)


CURVE = {
    1: (scores(0.9, 0.95), 0.1),
    2: (scores(0.5, 0.95), 0.2),
    3: (scores(0.04, 0.92), 0.3),
    4: (scores(0.0, 0.88), 0.4),
    5: (scores(0.0, 0.6), 0.5),
    6: (scores(0.9, 0.95), 0.15),
}
STRENGTHS = [{"step": float(s)} for s in reversed(CURVE)]
BEFORE = scores(0.9, 0.95)


def at(strength: Mapping[str, float]) -> tuple[Scores, float]:
    return CURVE[int(strength["step"])]


def step(aim: float | None, before: Scores = BEFORE, limits: tuple[float, float] = (1.0, 1.0)) -> float:
    choice = calibrate(STRENGTHS, at, before, None if aim is None else scores(aim), limits)
    assert len(choice.curve) == len(CURVE)
    assert choice.strength is not None
    return choice.strength["step"]


def test_calibration_takes_what_forgets_at_the_least_cost_and_of_equals_the_smaller_edit() -> None:
    assert step(0.0) in (3, 4)
    assert step(0.5) == 2
    assert step(0.9) == 1


def test_calibration_prefers_what_the_gate_would_let_pass() -> None:
    better = {1: (scores(0.04, 0.91), 0.1), 2: (scores(0.0, 0.88), 0.2)}
    strengths = [{"step": 1.0}, {"step": 2.0}]

    def chosen(limits: tuple[float, float]) -> object:
        return calibrate(strengths, lambda s: better[int(s["step"])], BEFORE, NOTHING_LEFT, limits).strength

    assert chosen((1.0, 1.0)) == {"step": 2}
    assert chosen((0.05, 0.05)) == {"step": 1}


def test_of_several_classes_the_worst_counts_as_it_does_in_the_gate() -> None:
    mixed = {1: (scores(0.04, 0.95, a=0.0, b=0.3), 0.1), 2: (scores(0.05, 0.93, a=0.05, b=0.05), 0.2)}
    strengths = [{"step": 1.0}, {"step": 2.0}]
    assert calibrate(strengths, lambda s: mixed[int(s["step"])], BEFORE, NOTHING_LEFT).strength == {"step": 2}
    aim = scores(0.04, 0.95, a=0.0, b=0.3)
    assert calibrate(strengths, lambda s: mixed[int(s["step"])], BEFORE, aim).strength == {"step": 1}


def test_what_retraining_costs_as_well_is_no_loss() -> None:
    near = {1: (scores(0.4, 0.95), 0.1), 2: (scores(0.31, 0.75), 0.2)}
    strengths = [{"step": 1.0}, {"step": 2.0}]
    assert calibrate(strengths, lambda s: near[int(s["step"])], BEFORE, scores(0.3, 0.95)).strength == {"step": 1}
    assert calibrate(strengths, lambda s: near[int(s["step"])], BEFORE, scores(0.3, 0.75)).strength == {"step": 2}


def test_where_nothing_bounds_the_damage_no_strength_is_chosen() -> None:
    """The largest edit would seem to cost nothing."""
    for aim in (NOTHING_LEFT, None):
        choice = calibrate(STRENGTHS, lambda s: (scores(at(s)[0].forgotten), at(s)[1]), scores(0.9), aim)
        assert choice.strength is None
        assert "no calibration row of the rest" in choice.rule
    unseen = {1: (scores(0.0), 0.1)}
    sent = calibrate([{"step": 1.0}, {"step": 2.0}], lambda _: unseen[1], scores(0.9), NOTHING_LEFT, sent={"step": 1.0})
    assert sent.strength == {"step": 1.0}


def test_the_rule_says_what_was_missing_and_whether_the_bound_was_kept() -> None:
    dear = {1: (scores(0.0, 0.4), 0.1), 2: (scores(0.0, 0.5), 0.2)}
    strengths = [{"step": 1.0}, {"step": 2.0}]
    kept = calibrate(STRENGTHS, at, BEFORE, None).rule
    assert kept == "no retrained model tells what is left: largest that costs at most 1% of the rest"
    assert calibrate(STRENGTHS, at, scores(None, 0.95), NOTHING_LEFT).rule.startswith("no row tells what is left: largest")
    assert "costs the least, though more than 1%" in calibrate(strengths, lambda s: dear[int(s["step"])], BEFORE, None).rule


def test_without_rows_of_the_class_it_bounds_the_damage_and_takes_the_largest_edit_within() -> None:
    assert step(None) == 2
    assert step(0.0, scores(None, 0.95)) == 2


def test_a_single_strength_is_taken_as_given() -> None:
    choice = calibrate([{"alpha": 2.0}], lambda _: pytest.fail("not to be scored"), BEFORE, NOTHING_LEFT)
    assert choice.rule == "given"


def test_what_was_calibrated_at_the_roots_comes_first() -> None:
    sent = {"step": 2.0}

    def chosen(before: Scores, aim: Scores | None) -> tuple[object, int]:
        choice = calibrate(STRENGTHS, at, before, aim, sent=sent)
        return choice.strength, len(choice.curve)

    assert chosen(BEFORE, scores(0.5)) == ({"step": 2}, 1)  # within the limits here: nothing else is tried
    assert chosen(BEFORE, NOTHING_LEFT) == ({"step": 3}, len(CURVE))  # it is not: chosen as if there were none
    assert chosen(scores(None, 0.95), NOTHING_LEFT) == ({"step": 2}, 1)  # nobody can see it here
    assert chosen(BEFORE, None) == ({"step": 2}, 1)
    choice = calibrate(STRENGTHS, at, scores(None, 0.95), NOTHING_LEFT, sent={"step": 5.0})
    assert choice.strength == {"step": 2}  # what was sent would cost too much here


def test_a_strength_that_breaks_the_model_is_passed_over() -> None:
    def score(s: Mapping[str, float]) -> tuple[Scores, float]:
        if s["step"] >= 3:
            raise ShapeError("NaN")
        return at(s)

    for sent in (None, {"step": 5.0}):
        choice = calibrate(STRENGTHS, score, BEFORE, NOTHING_LEFT, sent=sent)
        assert choice.strength == {"step": 2}
        assert {s["step"] for s, *_ in choice.curve} == {1, 2}
    with pytest.raises(ShapeError, match="NaN"):
        calibrate([{"step": 3.0}, {"step": 4.0}], score, BEFORE, NOTHING_LEFT)


def test_the_rest_of_the_budget_goes_beside_the_best() -> None:
    """A peak between two strengths that are far apart is found, and the budget is kept."""

    def score(strength: Mapping[str, float]) -> tuple[Scores, float]:
        far = abs(math.log(strength["alpha"] / 37))
        return scores(min(1.0, far / 4), 0.9), 1 / strength["alpha"]

    def chosen(method: Method, coarse: Sequence[Mapping[str, float]], finer: bool) -> Mapping[str, float]:
        choice = calibrate(coarse, score, scores(1.0, 0.9), NOTHING_LEFT, most=20, **({"finer": method.finer} if finer else {}))
        assert len(choice.curve) <= 20
        assert choice.strength is not None
        return choice.strength

    for settings, lams in (({"lam": 0.3}, {0.3}), ({}, {0.1, 0.0})):
        method = make("fiun", settings)
        coarse = [{"alpha": 10.0**k, "lam": lam * (1 if settings else 10.0**k)} for lam in lams for k in range(5)]
        found = chosen(method, coarse, finer=True)
        assert found["alpha"] == pytest.approx(37, rel=0.1)
        assert any(found["lam"] == pytest.approx(lam * (1 if settings else found["alpha"])) for lam in lams)
        assert chosen(method, coarse, finer=False)["alpha"] == 100.0


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8, unique=True), st.data())
def test_finer_strengths_lie_between_the_best_and_its_neighbours(tried: list[float], data: st.DataObject) -> None:
    best = data.draw(st.sampled_from(tried))
    for value in beside(tried, best):
        low, high = sorted((value, best))
        assert not any(low < v < high for v in tried)
        assert min(tried) < value < max(tried)
