"""What steer cannot serve, and settings that it cannot take, are told."""

import pytest
import torch

from fedunlearn.errors import InputError
from fedunlearn.methods import Case, Evidence, Steer, make
from fedunlearn.methods.drawn import HEAD


def test_requests_that_it_cannot_serve_are_told_apart() -> None:
    told = (Evidence({"head.weight": torch.ones(3, 2)}, 1, "b", 1.0),)
    assert Steer().misses(Case(told, Evidence(), HEAD, ("b",))) is None
    mute = (Evidence({"head.weight": torch.ones(3, 2)}, 1),)
    assert "no root has calibration rows to say how far" in str(Steer().misses(Case(mute, Evidence(), HEAD, ())))
    assert "no output to steer" in str(Steer().misses(Case(told, Evidence(), HEAD, ("z",))))
    assert "retire the model" in str(Steer().misses(Case(told, Evidence(), HEAD, HEAD.classes)))


@pytest.mark.parametrize("factor", [-1, float("nan"), float("inf"), "much"])
def test_factors_out_of_range_are_refused(factor: object) -> None:
    with pytest.raises(InputError, match=f"steer: factor is {factor!r}, expected a number from 0 up, or 'auto'"):
        make("steer", {"factor": factor})


def test_other_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="steer: share is 0, expected a fraction above 0, up to 1"):
        make("steer", {"share": 0})
    with pytest.raises(InputError, match="steer: drop is -1, expected a number from 0 up"):
        make("steer", {"drop": -1})
    with pytest.raises(InputError, match="steer: unknown weigh 'fischer'; did you mean 'fisher'"):
        make("steer", {"weigh": "fischer"})


def test_evidence_with_an_impossible_number_is_refused() -> None:
    for number in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="the number that is enough is"):
            Evidence({}, 1, "b", number)
