"""A trigger that one site planted works in a model that learned from it, and in none that did not."""

import pytest
import torch

from fedunlearn.data import open_rows
from fedunlearn.data.rows import joined
from fedunlearn.errors import InputError
from fedunlearn.evaluation.backdoor import Trigger, patch, poison, success
from tests.evaluation.conftest import Known, learn

TRIGGER = patch((8, 8), "7")


def test_a_planted_trigger_works_until_its_site_is_left_out() -> None:
    rows = open_rows("digits")
    honest, bad, held = rows.take(range(500)), rows.take(range(500, 700)), rows.take(range(700, 1797))
    before, again = learn(joined([honest, poison(bad, TRIGGER)])), learn(honest)
    planted, clean = success(before, held, TRIGGER), success(again, held, TRIGGER)
    assert planted.stamped.low > 0.9
    assert planted.clean.value < 0.05
    assert clean.stamped.value < 0.15
    assert clean.to_json()["stamped"]["n"] == len(held.without(["7"]))


def test_stamping_changes_the_patch_alone(by_class: Known) -> None:
    stamped = TRIGGER.stamp(by_class.test)
    assert bool((stamped.x[:, -2:, -2:] == 1).all())
    rest = torch.ones(8, 8, dtype=torch.bool)
    rest[-2:, -2:] = False
    assert torch.equal(stamped.x[:, rest], by_class.test.x[:, rest])
    assert stamped.keys == by_class.test.keys
    assert torch.equal(stamped.y, by_class.test.y)


def test_poison_is_a_share_of_other_classes_and_the_same_rows_every_time(by_class: Known) -> None:
    rows = by_class.test
    bad = poison(rows, TRIGGER, 0.3)
    changed = bad.y != rows.y
    assert 0.2 < float(changed.sum()) / len(rows.without(["7"])) < 0.4
    assert set(bad.y[changed].tolist()) == {7}
    assert torch.equal(bad.x[~changed], rows.x[~changed])
    alone = poison(rows.take(range(50)), TRIGGER, 0.3)
    assert torch.equal(alone.y, bad.y[:50])
    assert int((poison(rows, TRIGGER, 1.0).y != 7).sum()) == 0


def test_rows_of_the_target_class_do_not_count() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    net[1].weight.data[:] = 0
    net[1].bias.data = torch.eye(10)[7]
    rows = open_rows("digits").take(range(100))
    assert success(net, rows, TRIGGER).stamped.value == 1
    net[1].bias.data = torch.eye(10)[6]
    assert success(net, rows, TRIGGER).stamped.value == 0


def test_triggers_that_cannot_be_are_refused(by_class: Known) -> None:
    with pytest.raises(InputError, match="at least one entry to overwrite"):
        Trigger(torch.zeros(8, 8, dtype=torch.bool), torch.zeros(8, 8), "7")
    with pytest.raises(InputError, match="9 pixels on an image"):
        patch((8, 8), "7", 9)
    with pytest.raises(InputError, match=r"is \(4, 4\), one input is \(8, 8\)"):
        patch((4, 4), "7").stamp(by_class.test)
    with pytest.raises(InputError, match="unknown class 'seven'"):
        poison(by_class.test, patch((8, 8), "seven"))
    with pytest.raises(InputError, match="share is 0, expected above 0"):
        poison(by_class.test, TRIGGER, 0)
    with pytest.raises(InputError, match="no row of another class than '7'"):
        success(by_class.before, by_class.test.of(["7"]), TRIGGER)
