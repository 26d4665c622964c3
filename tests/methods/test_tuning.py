"""Laws of training at an heir's home."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from fedunlearn.data import Rows
from fedunlearn.errors import InputError, ShapeError
from fedunlearn.methods import make
from fedunlearn.methods.base import Case
from fedunlearn.methods.drawn import Draw
from fedunlearn.methods.tuning import labels, sgd, tuned
from fedunlearn.tensors import Tensors, equal

TRAINED = {"fine_tune": "epochs", "gradient_ascent": "steps", "distil": "epochs"}


def drawn(name: str, seed: int = 0) -> tuple[dict[str, torch.Tensor], Case]:
    return Draw(make(name), seed).heir()


@pytest.mark.parametrize(("name", "unit"), TRAINED.items())
def test_more_go_on_from_fewer_and_give_what_training_anew_gives(name: str, unit: str) -> None:
    method, asked = make(name), (4, 1, 6, 3, 0)
    weights, case = drawn(name)
    anew = [method.edit(*drawn(name), {unit: n}) for n in asked]
    assert all(equal(method.edit(weights, case, {unit: n}), of) for n, of in zip(asked, anew, strict=True))
    assert not equal(anew[0], anew[1])
    assert equal(anew[-1], weights)


@pytest.mark.parametrize(("name", "unit"), TRAINED.items())
def test_nothing_is_trained_twice(name: str, unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, steps = make(name), []
    weights, case = drawn(name)
    step = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *given, **named: (steps.append(1), step(*given, **named)))
    least, more, most = (int(of[unit]) for of in method.strengths(case)[:3])
    for n in (more, most, least, most):
        method.edit(weights, case, {unit: n})
    assert len(steps) == most  # of a batch each


@pytest.mark.parametrize(("name", "unit"), TRAINED.items())
def test_what_was_begun_from_other_weights_is_not_gone_on_with(name: str, unit: str) -> None:
    method = make(name)
    weights, case = drawn(name)
    moved = {n: t + 1 if t.is_floating_point() else t for n, t in weights.items()}
    first, other = method.edit(weights, case, {unit: 2}), method.edit(moved, case, {unit: 2})
    assert equal(other, method.edit(moved, drawn(name)[1], {unit: 2}))
    assert not equal(first, other)


@pytest.mark.parametrize(("epochs", "kept"), [("auto", {0, 1, 2, 5, 10}), (7, {0, 7})])
def test_only_weights_that_may_be_asked_for_again_are_kept(epochs: object, kept: set[int]) -> None:
    method = make("fine_tune", {"epochs": epochs})
    weights, case = drawn("fine_tune")
    for strength in method.strengths(case):
        method.edit(weights, case, strength)
    assert case.home is not None
    (course,) = case.home.begun.values()
    assert set(course.found) == kept


@pytest.mark.parametrize("number", [2.5, -1, float("inf"), float("nan")])
@pytest.mark.parametrize(("name", "setting"), [*TRAINED.items(), ("fisher_mask", "tune")])
def test_epochs_and_steps_are_whole(name: str, setting: str, number: float) -> None:
    with pytest.raises(InputError, match=f"{setting} is {number!r} .*expected a whole number"):
        make(name, {setting: number})


def test_a_step_is_of_a_batch_and_an_epoch_of_all_rows() -> None:
    weights, case = drawn("fine_tune")
    home = case.home
    assert home is not None
    few = torch.arange(300) % len(home.retained)
    rows = Rows(home.retained.x[few], home.retained.y[few], tuple(map(str, range(300))), home.retained.classes)
    by_epoch, by_step = (sgd(home, weights, rows, labels, lr=1e-2, stepwise=stepwise) for stepwise in (False, True))
    steps = [next(by_step) for _ in range(6)]
    assert [equal(next(by_epoch), steps[n]) for n in (2, 5)] == [True, True]  # 300 rows are three batches
    none = sgd(home, weights, home.retained.take([]), labels, lr=1e-2, stepwise=True)
    assert equal(next(none), weights)


def test_a_teacher_needs_an_output_to_mask() -> None:
    weights, case = drawn("distil")
    assert "no output to mask" in str(make("distil").misses(replace(case, classes=("z",))))
    assert equal(make("distil").edit(weights, replace(case, classes=("z",)), {"epochs": 2}), weights)


def test_what_an_edit_returns_may_be_changed() -> None:
    method = make("fine_tune")
    weights, case = drawn("fine_tune")
    before = {n: t.clone() for n, t in method.edit(weights, case, {"epochs": 1}).items()}
    for t in method.edit(weights, case, {"epochs": 1}).values():
        t.zero_()
    assert equal(method.edit(weights, case, {"epochs": 1}), before)


def test_a_training_that_diverged_stays_diverged() -> None:
    method = make("fine_tune", {"lr": 1e30})
    weights, case = drawn("fine_tune")
    for n in (3, 2, 4):
        with pytest.raises(ShapeError, match="lower lr"):
            method.edit(weights, case, {"epochs": n})


def test_the_learning_rate_falls_where_it_is_told_to() -> None:
    weights, case = drawn("fine_tune")
    home = case.home
    assert home is not None

    def moves(found: list[Tensors]) -> list[float]:
        return [float((b["head.weight"] - a["head.weight"]).norm()) for a, b in pairwise(found)]

    steady, falling = (sgd(home, weights, home.retained, labels, lr=1e-3, falls=falls) for falls in ((), (2,)))
    plain, fallen = (moves([weights, *(next(steps) for _ in range(3))]) for steps in (steady, falling))
    assert plain[:2] == fallen[:2]
    assert fallen[2] < plain[2] / 5
    dropped = tuned(home, weights, home.retained, labels, epochs=4, lr=1e-3, drops=(0.5,))
    assert not equal(dropped, tuned(home, weights, home.retained, labels, epochs=4, lr=1e-3))
