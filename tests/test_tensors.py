"""Parameters line up by name and shape, rows of a head by class name, never by position."""

import pytest
import torch

from fedunlearn.errors import InputError, ShapeError
from fedunlearn.tensors import Head, align, average, equal, names_in

SOURCE = {
    "body.weight": torch.ones(2, 3),
    "head.weight": torch.tensor([[1.0], [2.0], [3.0]]),
    "head.bias": torch.tensor([1.0, 2, 3]),
}
HEAD = Head("head", ("a", "b", "c"))


def test_rows_of_a_head_follow_their_class_names() -> None:
    other = Head("out", ("c", "x", "a"))
    shapes = {"out.weight": (3, 1), "out.bias": (3,), "body.weight": (2, 3)}
    found, missing = align(SOURCE, HEAD, shapes, other, share_head=True)
    assert found["out.weight"].flatten().tolist() == [3.0, 0.0, 1.0]
    assert found["out.bias"].tolist() == [3.0, 0.0, 1.0]
    assert torch.equal(found["body.weight"], SOURCE["body.weight"])
    assert missing == ()


def test_a_replaced_head_shares_nothing_though_its_names_agree() -> None:
    found, missing = align(SOURCE, HEAD, {"head.weight": (3, 1), "head.bias": (3,)}, HEAD, share_head=False)
    assert found == {}
    assert missing == ("head.weight", "head.bias")


def test_other_shapes_are_listed_not_cut() -> None:
    found, missing = align(SOURCE, HEAD, {"body.weight": (3, 2), "body.extra": (1,)}, HEAD, share_head=True)
    assert found == {}
    assert missing == ("body.weight", "body.extra")


def test_average_is_weighted_and_keeps_dtypes() -> None:
    one, two = {"w": torch.tensor([0.0]), "n": torch.tensor(3)}, {"w": torch.tensor([4.0]), "n": torch.tensor(9)}
    assert average([one, two])["w"].item() == 2.0
    mean = average([one, two], [3, 1])
    assert mean["w"].item() == 1.0
    assert mean["w"].dtype == torch.float32
    assert mean["n"].item() == 3


def test_models_that_differ_cannot_be_averaged() -> None:
    with pytest.raises(ShapeError, match=r"'w' has shape \(1,\) in one and \(2,\) in the other"):
        average([{"w": torch.zeros(1)}, {"w": torch.zeros(2)}])
    with pytest.raises(ShapeError, match="names differ: only in the first w, only in the second v"):
        average([{"w": torch.zeros(1)}, {"v": torch.zeros(1)}])


def test_layers_by_name_prefix_last_and_all() -> None:
    names = tuple(SOURCE)
    assert names_in("all", names, HEAD) == names
    assert names_in("last", names, HEAD) == ("head.weight", "head.bias")
    assert names_in("body", names, HEAD) == ("body.weight",)
    assert names_in("head.bias, body", names, HEAD) == ("body.weight", "head.bias")
    assert names_in(["head.bias", "body"], names, HEAD) == ("body.weight", "head.bias")
    with pytest.raises(InputError, match="unknown layer or parameter 'boddy'; did you mean 'body'"):
        names_in("boddy", names, HEAD)


def test_equal_is_to_the_bit() -> None:
    assert equal(SOURCE, dict(SOURCE))
    assert not equal(SOURCE, {**SOURCE, "head.bias": SOURCE["head.bias"].double()})
