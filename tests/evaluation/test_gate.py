"""The gate objects to what is wrong and to what was not tested."""

import re

import pytest
import torch
from torch import nn

from fedunlearn.data import Rows
from fedunlearn.errors import InputError
from fedunlearn.evaluation import Gate, Scores, accuracy, score


def scores(forgotten: float | None, retained: float | None) -> Scores:
    return Scores(forgotten, retained, 10, 90)


BEFORE = scores(0.9, 0.95)


@pytest.mark.parametrize(
    ("target", "after", "retrained", "wrong", "untested"),
    [
        ("absent", scores(0.04, 0.94), None, None, None),
        ("absent", scores(0.06, 0.94), None, "6.0% of the forgotten rows are still recognised", None),
        ("absent", scores(None, 0.94), None, None, "no held-out row of what is forgotten"),
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


def test_limits_are_fractions() -> None:
    with pytest.raises(InputError, match="forgotten_at_most is 5, expected a fraction from 0 to 1"):
        Gate(forgotten_at_most=5)


def test_accuracy_over_nothing_is_none_not_zero() -> None:
    net = nn.Sequential(nn.Identity())
    rows = Rows(torch.eye(3), torch.tensor([0, 1, 0]), ("i", "j", "k"), ("a", "b", "c"))
    net.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    assert accuracy(net, rows) == pytest.approx(2 / 3)
    assert accuracy(net, rows.take([])) is None
    assert score(net, rows.take([2]), rows.take([0, 1])) == Scores(0.0, 1.0, 1, 2)
