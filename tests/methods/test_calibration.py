"""Strengths are chosen: what forgets at the least cost, within the limits, and the budget goes beside the best."""

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.errors import ShapeError
from fedunlearn.methods import calibrate, make
from fedunlearn.methods.calibration import beside

CURVE = {
    1: (0.9, 0.95, 0.1),
    2: (0.5, 0.95, 0.2),
    3: (0.04, 0.92, 0.3),
    4: (0.0, 0.88, 0.4),
    5: (0.0, 0.6, 0.5),
    6: (0.9, 0.95, 0.15),
}
STRENGTHS = [{"step": float(s)} for s in reversed(CURVE)]


def step(
    aim: float | None, before: tuple[float | None, float | None] = (0.9, 0.95), limits: tuple[float, float] = (1.0, 1.0)
) -> float:
    choice = calibrate(STRENGTHS, lambda s: CURVE[int(s["step"])], before, aim, limits)
    assert len(choice.curve) == len(CURVE)
    return choice.strength["step"]


def test_calibration_takes_what_forgets_at_the_least_cost_and_of_equals_the_smaller_edit() -> None:
    assert step(0.0) in (3, 4)
    assert step(0.5) == 2
    assert step(0.9) == 1


def test_calibration_prefers_what_the_gate_would_let_pass() -> None:
    better = {1: (0.04, 0.91, 0.1), 2: (0.0, 0.88, 0.2)}
    strengths = [{"step": 1.0}, {"step": 2.0}]

    def chosen(limits: tuple[float, float]) -> float:
        return calibrate(strengths, lambda s: better[int(s["step"])], (0.9, 0.95), 0.0, limits).strength["step"]

    assert chosen((1.0, 1.0)) == 2
    assert chosen((0.05, 0.05)) == 1


def test_without_rows_of_the_class_it_bounds_the_damage_and_takes_the_largest_edit_within() -> None:
    assert step(None) == 2
    assert step(0.0, (None, 0.95)) == 2


def test_a_single_strength_is_taken_as_given() -> None:
    choice = calibrate([{"alpha": 2.0}], lambda _: pytest.fail("not to be scored"), (0.9, 0.9), 0.0)
    assert choice.rule == "given"


def test_what_was_calibrated_at_the_roots_comes_first() -> None:
    sent = {"step": 2.0}

    def chosen(before: tuple[float | None, float | None], aim: float | None, limits: tuple[float, float]) -> tuple[float, int]:
        choice = calibrate(STRENGTHS, lambda s: CURVE[int(s["step"])], before, aim, limits, sent=sent)
        return choice.strength["step"], len(choice.curve)

    assert chosen((0.9, 0.95), 0.5, (0.05, 0.05)) == (2, 1)  # within the limits here: nothing else is tried
    assert chosen((0.9, 0.95), 0.0, (0.05, 0.05)) == (3, len(CURVE))  # it is not: chosen as if there were none
    assert chosen((None, 0.95), 0.0, (0.05, 0.05)) == (2, 1)  # nobody can see it here
    assert chosen((0.9, 0.95), None, (0.05, 0.05)) == (2, 1)
    choice = calibrate(STRENGTHS, lambda s: CURVE[int(s["step"])], (None, 0.95), 0.0, sent={"step": 5.0})
    assert choice.strength["step"] == 2  # what was sent would cost too much here


def test_a_strength_that_breaks_the_model_is_passed_over() -> None:
    def score(s: Mapping[str, float]) -> tuple[float, float, float]:
        if s["step"] >= 3:
            raise ShapeError("NaN")
        return CURVE[int(s["step"])]

    for sent in (None, {"step": 5.0}):
        choice = calibrate(STRENGTHS, score, (0.9, 0.95), 0.0, sent=sent)
        assert choice.strength["step"] == 2
        assert {s["step"] for s, *_ in choice.curve} == {1, 2}
    with pytest.raises(ShapeError, match="NaN"):
        calibrate([{"step": 3.0}, {"step": 4.0}], score, (0.9, 0.95), 0.0)


def test_the_rest_of_the_budget_goes_beside_the_best() -> None:
    """A peak between two strengths that are far apart is found, and the budget is kept."""

    def score(strength: Mapping[str, float]) -> tuple[float, float, float]:
        far = abs(math.log(strength["alpha"] / 37))
        return min(1.0, far / 4), 0.9, 1 / strength["alpha"]

    coarse = [{"alpha": 10.0**k, "lam": lam} for lam in (1.0, 0.1) for k in range(5)]
    method = make("fiun")
    choice = calibrate(coarse, score, (1.0, 0.9), 0.0, finer=method.finer, most=20)
    assert choice.strength["alpha"] == pytest.approx(37, rel=0.1)
    assert len(choice.curve) <= 20
    assert calibrate(coarse, score, (1.0, 0.9), 0.0, most=20).strength["alpha"] == 100.0


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8, unique=True), st.data())
def test_finer_strengths_lie_between_the_best_and_its_neighbours(tried: list[float], data: st.DataObject) -> None:
    best = data.draw(st.sampled_from(tried))
    for value in beside(tried, best):
        low, high = sorted((value, best))
        assert not any(low < v < high for v in tried)
        assert min(tried) < value < max(tried)
