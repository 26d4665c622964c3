"""What was never forgotten comes back at once, what was masked before what must be learned anew, and never is said in words."""

import json
from copy import deepcopy

import pytest
import torch
from torch import nn

from fedunlearn.errors import InputError
from fedunlearn.evaluation import accuracy
from fedunlearn.evaluation.relearn import FRACTION, Relearned, Tuning, ain, relearn, shots
from fedunlearn.nets import weights_of
from fedunlearn.tensors import equal
from tests.evaluation.conftest import FORGOTTEN, Known

TUNING = Tuning(steps=200, lr=0.05, every=2)


def again(net, known: Known, rows=None, tuning: Tuning = TUNING) -> Relearned:  # type: ignore[no-untyped-def]
    watch = known.test.of([FORGOTTEN])
    goal = FRACTION * (accuracy(known.before, watch) or 0)
    return relearn(net, shots(known.forgotten, known.retained, 16) if rows is None else rows, watch, goal, tuning)


def test_the_known_nets_relearn_in_the_order_of_what_they_know(by_class: Known) -> None:
    nothing, masked, retrained = (again(n, by_class) for n in (by_class.before, by_class.masked, by_class.retrained[0]))
    assert nothing.steps == 0
    assert masked.steps is not None
    assert masked.steps < 150
    assert retrained.steps is None
    assert ain(nothing, retrained) == "below 5e-05: the retrained model never came to it in 200 steps"
    assert str(ain(masked, retrained)).startswith("below 0.")
    assert ain(retrained, masked).startswith("above ")  # type: ignore[union-attr]


def test_the_index_is_a_ratio_of_steps(by_class: Known) -> None:
    few, many = (Relearned(0.9, s, ((0, 0.0),), 100) for s in (10, 50))
    assert ain(few, many) == pytest.approx(10.01 / 50.01, abs=1e-6)
    assert ain(many, many) == 1
    at_once = Relearned(0.9, 0, ((0, 0.9),), 100)
    assert ain(at_once, at_once) == 1
    never = Relearned(0.9, None, ((0, 0.0),), 100)
    assert ain(never, never) == "neither came back in 100 steps"
    assert ain(never, few) == "above 9.99: the edited model never came back in 100 steps"


def test_retained_rows_alone_bring_back_what_was_only_damaged(by_class: Known) -> None:
    """Noise on all weights looks like forgetting, and is undone without a forgotten row. A retrained model is the control."""

    def damaged(net: nn.Module) -> nn.Module:
        copy, draw = deepcopy(net), torch.Generator().manual_seed(0)
        for parameter in copy.parameters():
            parameter.data += 0.25 * torch.randn(parameter.shape, generator=draw)
        return copy

    edited, control = (again(damaged(n), by_class, by_class.retained) for n in (by_class.before, by_class.retrained[0]))
    assert edited.curve[0][1] < 0.25
    assert edited.best > 0.5
    assert control.best == 0
    assert control.to_json()["steps"] == "never reached in 200 steps"


def test_nothing_is_changed_and_a_seed_gives_the_same_curve(by_class: Known) -> None:
    before = weights_of(by_class.masked)
    one, two = again(by_class.masked, by_class), again(by_class.masked, by_class)
    assert one == two
    assert equal(weights_of(by_class.masked), before)
    assert one.curve[0] == (0, 0.0)
    json.dumps(one.to_json(), allow_nan=False)


def test_shots_are_of_every_class(by_class: Known, by_sample: Known) -> None:
    found = shots(by_class.forgotten, by_class.retained, 3)
    assert found.counts() == dict.fromkeys(by_class.test.classes, 3)
    assert set(found.of([FORGOTTEN]).keys) <= set(by_class.forgotten.keys)
    assert set(shots(by_sample.forgotten, by_sample.retained, 3).counts().values()) == {3}  # where other rows of a class stay


def test_to_the_end_goes_on_after_the_goal(by_class: Known) -> None:
    watch = by_class.test.of([FORGOTTEN])
    short = relearn(by_class.before, by_class.retained, watch, 0.5, TUNING)
    long = relearn(by_class.before, by_class.retained, watch, 0.5, TUNING, to_the_end=True)
    assert short.steps == long.steps == 0
    assert (short.curve[-1][0], long.curve[-1][0]) == (0, 200)


def test_what_cannot_be_relearned_is_refused(by_class: Known) -> None:
    with pytest.raises(InputError, match="0 rows to learn on"):
        again(by_class.before, by_class, by_class.test.take([]))
    with pytest.raises(InputError, match="lr is 0, expected above 0"):
        Tuning(lr=0)
    with pytest.raises(InputError, match="0 shots of"):
        shots(by_class.forgotten, by_class.retained, 0)
    with pytest.raises(InputError, match="diverged within 2 steps; lower lr"):
        again(by_class.masked, by_class, None, Tuning(lr=1e30, every=2))
