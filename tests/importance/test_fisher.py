"""The fast diagonal equals a plain loop over samples, whatever the split into batches."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from fedunlearn.errors import InputError, ShapeError
from fedunlearn.importance import measure, pool
from fedunlearn.importance.reference import loop
from fedunlearn.nets import build, head_of
from fedunlearn.tensors import Head

SHAPES = {"mlp": (4, 4), "cnn": (1, 6, 6), "resnet_cifar": (2, 8, 8)}
OUTPUTS = 3


def case(name: str, rows: int, seed: int = 0) -> tuple[nn.Module, torch.Tensor, torch.Tensor, Head]:
    net = build({"name": name}, SHAPES[name], OUTPUTS, seed).double().eval()
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, *SHAPES[name], generator=generator, dtype=torch.float64)
    y = torch.randint(0, OUTPUTS, (rows,), generator=generator)
    return net, x, y, head_of(net, [str(i) for i in range(OUTPUTS)])


def worst(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Largest relative error of any tensor."""
    return max(float((a[n] - b[n]).norm() / b[n].norm().clamp(min=1e-300)) for n in a)


@pytest.mark.parametrize("name", SHAPES)
@settings(deadline=None, max_examples=10)
@given(rows=st.integers(1, 7), cut=st.integers(0, 7), chunk=st.sampled_from([1, 10_000, 1 << 30]), seed=st.integers(0, 99))
def test_fast_equals_loop_whatever_the_split(name: str, rows: int, cut: int, chunk: int, seed: int) -> None:
    net, x, y, head = case(name, rows, seed)
    slow = loop(net, x, y)
    fast = pool([measure(net, x[part], y[part], head=head, max_bytes=chunk) for part in (slice(0, cut), slice(cut, None))])
    assert fast.count == slow.count == rows
    assert fast.sums["squares"].keys() == slow.sums["squares"].keys()
    assert worst(dict(fast.sums["squares"]), dict(slow.sums["squares"])) < 1e-10


@pytest.mark.parametrize("name", SHAPES)
def test_the_closed_form_of_the_last_layer_equals_the_loop(name: str) -> None:
    net, x, y, head = case(name, 6)
    fast, slow = measure(net, x, y, head=head, layers="last").sums["squares"], loop(net, x, y).sums["squares"]
    assert set(fast) == set(head.names)
    assert worst(dict(fast), dict(slow)) < 1e-10


def test_squared_batch_means_are_something_else() -> None:
    """What the papers' public code computes is not this, and depends on the batch."""
    net, x, y, head = case("mlp", 8)
    exact = measure(net, x, y, head=head).mean()["head.weight"]
    net.zero_grad()
    nn.functional.cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]
    batch = net.get_parameter("head.weight").grad
    assert batch is not None
    assert float(batch.square().sum()) < 0.7 * float(exact.sum())


def test_a_named_layer_alone_equals_its_part_of_all() -> None:
    net, x, y, head = case("mlp", 5)
    part, whole = (measure(net, x, y, head=head, layers=w).sums["squares"] for w in ("body.1", "all"))
    assert set(part) == {"body.1.weight", "body.1.bias"}
    assert worst(dict(part), dict(whole)) < 1e-12


def test_modes_and_gradients_are_left_as_they_were() -> None:
    net, x, y, head = case("cnn", 4)
    net.train()
    net.get_submodule("body.1").eval()
    before = [m.training for m in net.modules()]
    measure(net, x, y, head=head)
    assert [m.training for m in net.modules()] == before
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_no_rows_sum_to_zero() -> None:
    net, x, y, head = case("mlp", 0)
    for layers in ("all", "last"):
        found = measure(net, x, y, head=head, layers=layers)
        assert found.count == 0
        assert all(not t.any() for t in found.sums["squares"].values())


def test_wrong_asks_are_refused() -> None:
    net, x, y, head = case("mlp", 2)
    with pytest.raises(InputError, match="unknown statistic 'sqares'; did you mean 'squares'"):
        measure(net, x, y, head=head, statistic="sqares")
    with pytest.raises(InputError, match="unknown layer or parameter 'boddy'"):
        measure(net, x, y, head=head, layers="boddy")
    with pytest.raises(ShapeError, match="labels run from 7 to 7, the model has 3 outputs"):
        measure(net, x, torch.full_like(y, 7), head=head)


def test_a_head_that_is_not_the_last_thing_has_no_closed_form() -> None:
    net, x, y, head = case("mlp", 2)
    scaled = nn.Sequential()
    scaled.add_module("net", net)
    scaled.add_module("scale", nn.Softplus())
    with pytest.raises(ShapeError, match="is not a plain last linear layer"):
        measure(scaled, x, y, head=Head("net.head", head.classes), layers="last")


def test_nan_weights_are_found_where_they_are_measured() -> None:
    net, x, y, head = case("mlp", 2)
    net.get_parameter("body.1.weight").data[0, 0] = float("nan")
    with pytest.raises(ShapeError, match="NaN or infinite; check the model and its data"):
        measure(net, x, y, head=head)
