"""Strengths are chosen: what forgets at the least cost, within the limits, and the budget goes beside the best."""

from collections.abc import Mapping

import pytest
from hypothesis import given, strategies as st

from fedunlearn.errors import ShapeError
from fedunlearn.evaluation import Scores
from fedunlearn.methods import calibrate
from fedunlearn.methods.calibration import GAIN, MOST, NOTHING_LEFT


def scores(forgotten: float | None, retained: float | None = None, **by_class: float | None) -> Scores:
    return Scores(forgotten, retained, 100, 100, by_class)


CURVE = {
    1: (scores(0.9, 0.95), 0.1),
    2: (scores(0.5, 0.95), 0.2),
    3: (scores(0.04, 0.92), 0.3),
    4: (scores(0.0, 0.88), 0.4),
    5: (scores(0.0, 0.6), 0.5),
}
STRENGTHS = [{"step": float(s)} for s in CURVE]
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


def test_a_class_that_no_row_tells_of_does_not_speak_for_the_others() -> None:
    """Neither against a strength that was sent, nor in a search: the aim may be what a retrained model still recognises."""
    curve = {1: (scores(0.9, 0.95, a=0.9, b=None), 0.1), 2: (scores(0.6, 0.95, a=0.6, b=None), 0.2)}
    strengths, aim = [{"step": 1.0}, {"step": 2.0}], scores(0.6, 0.95, a=0.6, b=None)

    def chosen(**how: Mapping[str, float]) -> object:
        return calibrate(strengths, lambda s: curve[int(s["step"])], BEFORE, aim, (0.1, 0.05), **how).strength

    assert chosen() == {"step": 2}
    assert chosen(sent={"step": 2.0}) == {"step": 2}
    nobody = {1: (scores(0.9, 0.95, a=None), 0.1), 2: (scores(0.0, 0.95, a=None), 0.2)}
    assert calibrate(strengths, lambda s: nobody[int(s["step"])], BEFORE, NOTHING_LEFT).strength == {"step": 2}


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


def test_an_edit_that_seems_cheap_behind_one_that_is_not_is_not_taken() -> None:
    noisy = {1: 0.95, 2: 0.95, 3: 0.90, 4: 0.95, 5: 0.5}
    choice = calibrate(STRENGTHS, lambda s: (scores(0.5, noisy[int(s["step"])]), s["step"]), BEFORE, None)
    assert choice.strength == {"step": 2}


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


ENDS = st.lists(st.floats(0, 1), min_size=2, max_size=60)


@given(ENDS, ENDS, st.floats(0, 1))
def test_where_larger_edits_leave_less_and_cost_more_the_best_is_found(
    left: list[float], kept: list[float], aim: float
) -> None:
    curve = list(zip(sorted(left, reverse=True), sorted(kept, reverse=True), strict=False))
    strengths = [{"step": float(i)} for i in range(len(curve))]
    before = scores(1.0, 1.0)

    def bad(i: int) -> float:
        return abs(curve[i][0] - aim) + 1 - curve[i][1]

    choice = calibrate(
        strengths, lambda s: (scores(*curve[int(s["step"])]), s["step"]), before, scores(aim), (1.0, 1.0), most=1000
    )
    assert choice.strength is not None
    assert bad(int(choice.strength["step"])) <= min(map(bad, range(len(curve)))) + GAIN + 1e-9


@given(st.integers(0, 126), st.booleans())
def test_a_narrow_band_among_many_is_found_within_the_budget(at: int, several: bool) -> None:
    """Everything is left before it, and nothing of the rest behind it: a search beside the best so far would not look there."""

    def score(strength: Mapping[str, float]) -> tuple[Scores, float]:
        step = int(strength["step"])
        left, kept = (0.0 if step >= at else 0.9), (0.95 if step <= at + 1 else 0.1)
        return scores(left, kept, **({"a": left, "b": left / 2} if several else {})), strength["step"]

    choice = calibrate([{"step": float(i)} for i in range(128)], score, BEFORE, NOTHING_LEFT)
    assert choice.strength is not None
    assert choice.strength["step"] in (at, at + 1)
    assert len(choice.curve) <= MOST


@given(st.integers(1, 99), st.integers(1, 20))
def test_a_band_before_a_ruined_model_that_knows_the_class_again_is_found(at: int, width: int) -> None:
    """An edit that is far too large may make everything the class."""

    def score(strength: Mapping[str, float]) -> tuple[Scores, float]:
        over = strength["step"] - at
        return scores(0.9 if over < 0 else 0.0 if over <= width else 1.0, 0.95 if over <= width else 0.1), strength["step"]

    choice = calibrate([{"step": float(i)} for i in range(128)], score, BEFORE, NOTHING_LEFT)
    assert choice.strength is not None
    assert at <= choice.strength["step"] <= at + width


@given(st.integers(1, 99))
def test_what_breaks_the_model_is_taken_as_too_large(breaks: int) -> None:
    """Also where nothing tells what is left."""

    def score(strength: Mapping[str, float]) -> tuple[Scores, float]:
        if strength["step"] >= breaks:
            raise ShapeError("NaN")
        return scores(0.5 if strength["step"] < breaks - 1 else 0.0, 0.95), strength["step"]

    for aim in (NOTHING_LEFT, None):
        choice = calibrate([{"step": float(i)} for i in range(100)], score, BEFORE, aim)
        assert choice.strength == {"step": breaks - 1}


def test_the_budget_is_kept_and_nothing_is_tried_twice() -> None:
    tried: list[float] = []

    def score(strength: Mapping[str, float]) -> tuple[Scores, float]:
        tried.append(strength["step"])
        return scores(0.9 - strength["step"] / 200, 0.95 - strength["step"] / 400), strength["step"]

    for most in (3, 7, 20):
        for sent in (25.0, 26.0):
            tried.clear()
            calibrate([{"step": float(i)} for i in range(100)], score, BEFORE, NOTHING_LEFT, sent={"step": sent}, most=most)
            assert len(tried) == len(set(tried)) <= most
