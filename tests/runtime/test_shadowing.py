"""A method on a shadow model does what it does on the path: the class goes, the rest stays, the model given stays as it was."""

from typing import Any

import pytest
import torch
from torch import nn

from fedunlearn.data import Exclusions, Rows, open_rows
from fedunlearn.evaluation import accuracy
from fedunlearn.evaluation.outputs import mean_loss
from fedunlearn.methods import make
from fedunlearn.methods.base import Strength
from fedunlearn.nets import build, head_of, weights_of
from fedunlearn.runtime.shadowing import forgetting
from fedunlearn.tensors import equal
from fedunlearn.training import Portion, Recipe, fit


@pytest.fixture(scope="module")
def known() -> tuple[nn.Module, Rows]:
    rows = open_rows("digits")
    recipe = Recipe("shadow", "here", (), rows.classes, 6, 0.1, 32, 0)
    net = fit(
        build({"name": "mlp", "hidden": 32}, (8, 8), 10, 0),
        [Portion("here", "main", rows.take(range(1200)), Exclusions({}))],
        recipe,
    )
    return net, rows


@pytest.mark.parametrize(
    ("method", "strength"),
    [("fiun", {"alpha": 1.0, "lam": 0.1}), ("steer", {"factor": 1.3}), ("logit_mask", {}), ("fine_tune", {"epochs": 1.0})],
)
def test_a_shadow_forgets(method: str, strength: Strength, known: tuple[nn.Module, Rows]) -> None:
    net, rows = known
    head, before = head_of(net, rows.classes), {n: t.clone() for n, t in weights_of(net).items()}
    train, test = rows.take(range(1200)), rows.take(range(1200, len(rows)))
    settings: dict[str, Any] = {"layers": "last"} if method == "fiun" else {}
    unlearn = forgetting(make(method, settings), strength, head, ("0",))
    edited = unlearn(net, train.of(["0"]), train.without(["0"]), test).eval()
    assert equal(weights_of(net), before)
    assert (accuracy(net, test.of(["0"])) or 0) > 0.9
    assert (accuracy(edited, test.without(["0"])) or 0) > (accuracy(net, test.without(["0"])) or 0) - 0.1
    if method != "fine_tune":
        assert (accuracy(edited, test.of(["0"])) or 0) < 0.2
    assert not any(torch.isnan(t).any() for t in weights_of(edited).values())


def test_a_shadow_is_steered_off_samples_as_far_as_rows_it_never_saw_say(known: tuple[nn.Module, Rows]) -> None:
    net, rows = known
    head, train = head_of(net, rows.classes), rows.take(range(1200))
    forget, keep, held = train.take(range(60)), train.take(range(60, 1200)), rows.take(range(1200, len(rows)))
    learnt, other = mean_loss(net, forget) or 0.0, mean_loss(net, held.of(forget.counts())) or 0.0
    edited = forgetting(make("steer"), {"factor": 1.0}, head, ())(net, forget, keep, held).eval()
    assert learnt < other
    assert learnt < (mean_loss(edited, forget) or 0.0) < 2 * other
    same = forgetting(make("steer"), {"factor": 1.0}, head, ())(net, forget, keep, forget).eval()
    assert equal(weights_of(same), weights_of(net))  # no worse on rows that it never saw: nothing is to be moved
