"""The mask forgets perfectly and knows everything; a retrained model is what the probe of an edited one is compared with."""

from dataclasses import replace

import pytest
import torch

from fedunlearn.data import Rows
from fedunlearn.errors import InputError
from fedunlearn.evaluation import accuracy
from fedunlearn.evaluation.features import features
from fedunlearn.evaluation.intervals import difference
from fedunlearn.evaluation.probe import Probe, linear_probe, prototypes
from tests.evaluation.conftest import FORGOTTEN, Known


def seen(net: torch.nn.Module, known: Known) -> tuple[Rows, Rows]:
    calibration, test = (features(net, known.head, rows) for rows in (known.calibration, known.test))
    assert calibration is not None
    assert test is not None
    return calibration, test


def probed(net: torch.nn.Module, known: Known) -> list[bool]:
    return linear_probe(*seen(net, known)).of([FORGOTTEN])


def mean(right: list[bool]) -> float:
    return sum(right) / len(right)


def test_the_mask_has_accuracy_zero_and_the_probe_of_the_unedited_model(by_class: Known) -> None:
    assert accuracy(by_class.masked, by_class.test.of([FORGOTTEN])) == 0
    assert probed(by_class.masked, by_class) == probed(by_class.before, by_class)
    assert mean(probed(by_class.before, by_class)) > 0.8


def test_a_retrained_model_is_probed_too_but_less(by_class: Known) -> None:
    """So a probe's value alone proves nothing, and the difference to the retrained model's does."""
    mask = probed(by_class.masked, by_class)
    retrained = [probed(net, by_class) for net in by_class.retrained]
    assert all(mean(r) > 0.5 for r in retrained)
    assert all(difference(mask, r).low > 0 for r in retrained)
    assert difference(retrained[0], retrained[1]).low < 0 < difference(retrained[0], retrained[1]).high


def test_prototypes_undo_the_mask(by_class: Known) -> None:
    for shots in (None, 5):
        of = {
            n: mean(prototypes(*seen(net, by_class), shots).of([FORGOTTEN]))
            for n, net in vars(by_class).items()
            if n in "masked before"
        }
        assert of["masked"] == of["before"] > 0.75
    again = [mean(prototypes(*seen(net, by_class), 5).of([FORGOTTEN])) for net in by_class.retrained]
    assert max(again) < mean(prototypes(*seen(by_class.masked, by_class), 5).of([FORGOTTEN]))


def blobs(seed: int, n: int = 60, spread: float = 0.1) -> Rows:
    y = torch.arange(n) % 3
    x = torch.eye(3)[y] + spread * torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    return Rows(x, y, tuple(map(str, range(n))), ("a", "b", "c"))


def test_features_that_tell_classes_apart_are_probed_and_noise_is_not() -> None:
    assert all(linear_probe(blobs(0), blobs(1)).right)
    assert all(prototypes(blobs(0), blobs(1), 1).right)
    one, all_of_them = (prototypes(blobs(0, 300, 0.6), blobs(1, 300, 0.6), shots) for shots in (1, None))
    assert mean(list(one.right)) < mean(list(all_of_them.right)) - 0.05
    noise = linear_probe(blobs(0, 300, 50.0), blobs(1, 300, 50.0))
    assert 0.2 < mean(list(noise.right)) < 0.5
    drawn = (torch.randn(90, 200, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    wide = [replace(blobs(0, 90), x=x) for x in drawn]
    assert mean(list(linear_probe(*wide).right)) < 0.6  # with so many features, what is learned on is told apart whatever it is


def test_a_rare_class_is_looked_for_as_well() -> None:
    """Three rows of it among three hundred."""
    rows = blobs(2, 300, 0.6)
    rare = rows.take([i for i in range(300) if rows.y[i] != 0 or i < 9])
    assert mean(linear_probe(rare, blobs(3, 300, 0.6)).of(["a"])) > 0.7


def test_a_probe_is_asked_by_class() -> None:
    probe = Probe("any", (True, False, True), ("a", "a", "b"))
    assert probe.of(["a"]) == [True, False]
    assert probe.of(["c"]) == []


def test_what_cannot_be_probed_is_refused() -> None:
    one = blobs(0).of(["a"])
    with pytest.raises(InputError, match="expected two or more of two or more classes"):
        linear_probe(one, blobs(1))
    with pytest.raises(InputError, match="expected two or more of two or more classes"):
        linear_probe(blobs(0).take([0, 1, 2, 3, 4]), blobs(1))
    with pytest.raises(InputError, match=r"rows of \['a'\] alone"):
        prototypes(one, blobs(1))
    with pytest.raises(InputError, match="0 shots"):
        prototypes(blobs(0), blobs(1), 0)
    with pytest.raises(InputError, match="no test row"):
        linear_probe(blobs(0), blobs(1).take([]))
