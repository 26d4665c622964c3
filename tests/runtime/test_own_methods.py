"""Methods of a user's own: they leave what they are given as it is, and the record says which code they are."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
import torch
from blake3 import blake3

from fedunlearn.errors import FedUnlearnError, InputError
from fedunlearn.methods import FIUn, Method, make
from fedunlearn.methods.base import Case, Strength, Unguided
from fedunlearn.runtime import Family, InProcess, unlearn
from fedunlearn.tensors import Tensors
from tests.conftest import LEAVE, snapshot

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


class Numpy(InPlace):
    """Halves them through numpy, which no counter of torch sees."""

    name = "numpy"

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
        for array in (tensor.numpy() for tensor in weights.values() if tensor.is_floating_point()):
            array *= 0.5
        return dict(weights)


class Data(InPlace):
    """Halves what lies under them."""

    name = "data"

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
        for tensor in weights.values():
            tensor.data.mul_(0.5)
        return dict(weights)


@dataclass(frozen=True)
class Weighed(FIUn):
    """Is given evidence and means of its own, and halves one of both."""

    spoils: str = ""
    name = "weighed"

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
        edited = super().edit(weights, case, strength)
        for tensor in {"evidence": case.merged, "own": case.own.means}.get(self.spoils, {}).values():
            tensor.numpy()[...] *= 0.5
        return edited


@pytest.mark.parametrize(
    ("method", "what"),
    [
        (InPlace(), "weights"),
        (Replaced(), "weights"),
        (Numpy(), "weights"),
        (Data(), "weights"),
        (Weighed(spoils="evidence"), "evidence"),
        (Weighed(spoils="own"), r"means of the model's own data \(own\)"),
    ],
)
def test_a_method_that_changes_what_it_is_given_is_refused(
    method: Method, what: str, family: Family, backend_of: BackendOf
) -> None:
    before = snapshot(family.folder)
    with pytest.raises(FedUnlearnError, match=f"method {method.name}: has changed the {what} that it was given"):
        unlearn(family, LEAVE, method, backend_of(family))
    assert snapshot(family.folder) == before


def test_one_that_leaves_it_as_it_is_is_not_accused(family: Family, backend_of: BackendOf) -> None:
    record = unlearn(family, LEAVE, Weighed(), backend_of(family))
    assert any(m["status"] == "committed" for m in record.facts["models"])


class Disguised(Unguided):
    """Is called as one of the menu."""

    name = "fiun"
    edit = InPlace.edit


RECORDED = """
from fedunlearn.methods.base import Unguided

class Mine(Unguided):
    name = "mine"

    def edit(self, weights, case, strength):
        return dict(weights)
"""


def test_the_record_says_which_code_a_method_is_and_nobody_takes_a_name_of_the_menu(
    family: Family, backend_of: BackendOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        InputError, match=r"method 'tests.runtime.test_own_methods:Disguised': is called 'fiun', as one of the menu"
    ):
        make(f"{__name__}:Disguised")
    file = tmp_path / "recorded.py"
    file.write_text(RECORDED)
    monkeypatch.syspath_prepend(tmp_path)
    record = unlearn(family, LEAVE, make("recorded:Mine"), backend_of(family))
    assert record.facts["code"] == {"class": "recorded:Mine", "text": blake3(file.read_bytes()).hexdigest()}
    assert "code" not in unlearn(family, LEAVE, "logit_mask", backend_of(family)).facts
