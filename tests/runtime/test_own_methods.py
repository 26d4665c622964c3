"""Methods of a user's own: they leave what they are given as it is, and the record says which code they are."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from blake3 import blake3

from fedunlearn.errors import FedUnlearnError, InputError
from fedunlearn.methods import make
from fedunlearn.methods.base import Case, Strength, Unguided
from fedunlearn.runtime import Family, InProcess, unlearn
from fedunlearn.tensors import Tensors
from tests.conftest import LEAVE, snapshot
from tests.runtime.test_evaluating import Nothing

BackendOf = Callable[[Family], InProcess]


class InPlace(Unguided):
    """Halves what it is given."""

    name = "in_place"

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
        for tensor in weights.values():
            tensor.mul_(0.5)
        return dict(weights)


class Replaced(InPlace):
    """Puts its own tensors into what it is given."""

    name = "replaced"

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
        given = cast(dict[str, torch.Tensor], weights)
        given.update({name: tensor * 0.5 for name, tensor in weights.items()})
        return given


@pytest.mark.parametrize("method", [InPlace(), Replaced()])
def test_a_method_that_changes_the_weights_it_is_given_is_refused(
    method: InPlace, family: Family, backend_of: BackendOf
) -> None:
    before = snapshot(family.folder)
    with pytest.raises(FedUnlearnError, match=f"method {method.name} has changed the weights that it was given"):
        unlearn(family, LEAVE, method, backend_of(family))
    assert snapshot(family.folder) == before


class Disguised(Unguided):
    """Is called as one of the menu."""

    name = "fiun"
    edit = InPlace.edit


def test_the_record_says_which_code_a_method_is_and_nobody_takes_a_name_of_the_menu(
    family: Family, backend_of: BackendOf
) -> None:
    with pytest.raises(
        InputError, match=r"method 'tests.runtime.test_own_methods:Disguised': is called 'fiun', as one of the menu"
    ):
        make(f"{__name__}:Disguised")
    record = unlearn(family, LEAVE, Nothing(), backend_of(family))
    text = blake3(Path(inspect.getfile(Nothing)).read_bytes()).hexdigest()
    assert record.facts["code"] == {"class": "tests.runtime.test_evaluating:Nothing", "text": text}
    assert "code" not in unlearn(family, LEAVE, "logit_mask", backend_of(family)).facts
