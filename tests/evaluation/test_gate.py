"""The gate objects to what is wrong and to what was not tested."""

import re

import pytest
import torch
from torch import nn

from fedunlearn.data import Rows
from fedunlearn.errors import InputError, ShapeError
from fedunlearn.evaluation import Gate, Scores, accuracy, score


def scores(forgotten: float | None, retained: float | None) -> Scores:
    return Scores(forgotten, retained, 10, 90)


BEFORE = scores(0.9, 0.95)


@pytest.mark.parametrize(
    ("target", "after", "retrained", "wrong", "untested"),
    [
        ("absent", scores(0.04, 0.94), None, None, None),
        ("absent", scores(0.06, 0.94), None, "6.0% of the forgotten rows are still recognised", None),
        ("absent", scores(None, 0.94), None, None, "no row of what is forgotten can be scored"),
        ("absent", scores(0.0, 0.89), None, "accuracy on the rest fell by 6.0%, from 95.0% to 89.0%", None),
        ("absent", scores(0.0, None), None, None, "no held-out row of the rest"),
        ("as_retrained", scores(0.8, 0.95), scores(0.85, 0.9), None, None),
        ("as_retrained", scores(0.0, 0.95), scores(0.85, 0.9), "0.0% .* a retrained model recognises 85.0%: 85.0% apart", None),
        ("as_retrained", scores(0.8, 0.95), None, None, "no retrained model to compare with"),
        ("as_retrained", scores(None, 0.95), scores(0.8, 0.9), None, "no row of what is forgotten can be scored"),
        ("not_expressible", scores(None, 0.95), None, None, None),
        ("not_expressible", scores(None, 0.8), None, "accuracy on the rest fell by 15.0%", None),
    ],
)
def test_judgements(target: str, after: Scores, retrained: Scores | None, wrong: str | None, untested: str | None) -> None:
    found = Gate().judge(target, BEFORE, after, retrained)
    for texts, expected in zip(found, (wrong, untested), strict=True):
        assert len(texts) == (expected is not None)
        assert expected is None or re.search(expected, texts[0])


def test_each_class_is_judged_by_itself() -> None:
    after = Scores(0.04, 0.95, 100, 900, {"a": 0.0, "b": 0.4, "c": None})
    wrong, untested = Gate().judge("absent", BEFORE, after, None)
    assert wrong == ["40.0% of the forgotten rows of class b are still recognised (at most 5.0%)"]
    assert untested == ["not tested: no row of class c can be scored at its home"]
    again = Scores(0.9, 0.95, 100, 900, {"a": 0.05, "b": 0.9, "c": 0.9})
    wrong, _ = Gate().judge("as_retrained", BEFORE, after, again)
    assert len(wrong) == 1
    assert "class b are recognised, a retrained model recognises 90.0%" in wrong[0]


def test_a_model_that_gives_nan_is_not_scored() -> None:
    net = nn.Sequential(nn.Linear(3, 3))
    net[0].weight.data[:] = float("nan")
    rows = Rows(torch.eye(3), torch.tensor([0, 1, 0]), ("i", "j", "k"), ("a", "b", "c"))
    with pytest.raises(ShapeError, match="outputs are NaN or infinite; it cannot be scored"):
        accuracy(net, rows)


def test_limits_are_fractions() -> None:
    with pytest.raises(InputError, match="forgotten_at_most is 5, expected a fraction from 0 to 1"):
        Gate(forgotten_at_most=5)


def test_accuracy_over_nothing_is_none_not_zero() -> None:
    net = nn.Sequential(nn.Identity())
    rows = Rows(torch.eye(3), torch.tensor([0, 1, 0]), ("i", "j", "k"), ("a", "b", "c"))
    net.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    assert accuracy(net, rows) == pytest.approx(2 / 3)
    assert accuracy(net, rows.take([])) is None
    assert score(net, rows.take([2]), rows.take([0, 1]), ("a", "c")) == Scores(0.0, 1.0, 1, 2, {"a": 0.0, "c": None})
