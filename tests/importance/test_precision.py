"""Fewer bits, less memory and a GPU change what is measured no more than they must."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fedunlearn.importance import Importance, measure, pool
from fedunlearn.importance.reference import loop
from fedunlearn.tensors import Head
from fedunlearn.vision import torchvision
from tests.importance.exact import OUTPUTS, Odd, batch, head_of, ready

MAKE: list[Callable[[], nn.Module]] = [
    lambda: nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, OUTPUTS)),
    lambda: torchvision().models.resnet18(weights=None, num_classes=OUTPUTS),
]


@pytest.mark.parametrize("make", MAKE)
def test_float32_is_no_worse_than_twice_the_float32_loop(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    net = ready(make())
    channels = 4 if isinstance(net, nn.Sequential) else 3
    x, y = batch(6, channels, 8 if channels == 4 else 32, 8 if channels == 4 else 32)
    exact = loop(net, x, y).sums["squares"]
    net.float()

    def worst(found: Importance) -> float:
        return max(float((found.sums["squares"][n] - t).norm() / t.norm()) for n, t in exact.items())

    assert worst(measure(net, x.float(), y, head=head_of(net))) <= 2 * worst(loop(net, x.float(), y)) + 1e-6


@pytest.mark.parametrize("margin", [5.0, 12.0, 17.0, 30.0])
@pytest.mark.parametrize("layers", ["all", "last"])
@pytest.mark.parametrize("loss", ["labels", "own", "masked"])
def test_what_a_net_is_sure_of_is_measured_to_the_same_accuracy(loss: str, layers: str, margin: float) -> None:
    """The gradient by the outputs in closed form, in float64: p(y) - 1 from float32 probabilities is nothing but rounding."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, OUTPUTS)).eval()
    x, y = torch.randn(8, 6), torch.zeros(8, dtype=torch.int64)
    head = net[2]
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.bias.copy_(torch.tensor([margin, 0.0, 0.3]))
        h = torch.tanh(net[0](x)).double()
    z = h @ head.weight.detach().double().T + head.bias.detach().double()
    others = torch.softmax(z[:, 1:], 1)
    gone = 1 / (1 + (z[:, 0] - z[:, 1:].logsumexp(1)).exp())  # 1 - p(y), without subtracting
    p = torch.cat([(1 - gone)[:, None], gone[:, None] * others], 1)
    first = torch.eye(OUTPUTS, dtype=torch.float64)[:1]
    sure = torch.cat([-gone[:, None], gone[:, None] * others], 1)
    if loss == "labels":
        by_output = [sure]
    elif loss == "own":
        rest = [(p - torch.eye(OUTPUTS, dtype=torch.float64)[c]) * p[:, c : c + 1].sqrt() for c in range(1, OUTPUTS)]
        by_output = [sure * p[:, :1].sqrt(), *rest]
    else:
        by_output = [p[:, :1] * (first - torch.cat([torch.zeros(8, 1, dtype=torch.float64), others], 1))]
    truth = sum(((g[:, :, None] * h[:, None]) ** 2).sum(0) for g in by_output)
    masked = ("0",) if loss == "masked" else ()
    found = measure(net, x, y, head=Head("2", ("0", "1", "2")), loss=loss, layers=layers, masked=masked).sums["squares"]
    assert float((found["2.weight"] - truth).norm() / torch.as_tensor(truth).norm()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_and_summed_in_float(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 16), nn.ReLU(), nn.Linear(16, OUTPUTS)
    ).eval()
    x, y = batch(16, 4, 8, 8)
    exact = measure(net, x.float(), y, head=head_of(net)).sums["squares"]
    half = measure(net, x.float(), y, head=head_of(net), autocast=dtype).sums["squares"]
    for name, truth in exact.items():
        assert half[name].dtype == torch.float64
        error = float((half[name] - truth).norm() / truth.norm())
        assert 0 < error < 0.15, (name, error)


def test_the_memory_bound_splits_samples_and_changes_nothing() -> None:
    net = ready(Odd("tied"))
    x, y = batch(7, 6)
    whole = measure(net, x, y, head=head_of(net))
    parts = pool([measure(net, x[:3], y[:3], head=head_of(net), max_bytes=1), measure(net, x[3:], y[3:], head=head_of(net))])
    assert all(torch.allclose(parts.sums["squares"][n], t, rtol=1e-10) for n, t in whole.sums["squares"].items())


@pytest.mark.parametrize("layers", ["all", "0"])
@pytest.mark.parametrize("first", [1, 40])
def test_the_memory_bound_is_over_all_that_is_kept(layers: str, first: int) -> None:
    """Above the first layer that is asked for everything is, asked for or not; one row alone does not tell how much."""
    sizes: list[int] = []

    class Wide(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return torch.tanh(x.repeat(1, 500))

    net = ready(nn.Sequential(nn.Linear(5, 4), Wide(), nn.Linear(2000, OUTPUTS)))
    x, y = batch(40, 5)
    whole = measure(net, x, y, head=head_of(net), layers=layers)
    fresh = ready(nn.Sequential(nn.Linear(5, 4), Wide(), nn.Linear(2000, OUTPUTS)))
    fresh.load_state_dict(net.state_dict())
    measure(fresh, x[:first], y[:first], head=head_of(fresh), layers=layers, max_bytes=10 * 2000 * 8)
    sizes.clear()
    parts = measure(fresh, x, y, head=head_of(fresh), layers=layers, max_bytes=10 * 2000 * 8)
    assert 1 < max(sizes) <= 10
    assert all(torch.allclose(parts.sums["squares"][n], t, rtol=1e-10) for n, t in whole.sums["squares"].items())


def test_gradients_stop_at_the_first_layer_that_is_asked_for() -> None:
    below: list[Tensor] = []

    class Watch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            below.append(x)
            return x

    net = ready(nn.Sequential(nn.Linear(5, 6), Watch(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, OUTPUTS)))
    measure(net, *batch(4, 5), head=head_of(net), layers="2")
    assert below
    assert not any(t.requires_grad for t in below)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_a_gpu_the_sums_are_those_of_the_cpu() -> None:
    net = ready(torchvision().models.resnet18(weights=None, num_classes=OUTPUTS))
    x, y = batch(4, 3, 32, 32)
    here = measure(net, x, y, head=head_of(net)).sums["squares"]
    there = measure(net.cuda(), x.cuda(), y.cuda(), head=head_of(net)).sums["squares"]
    assert all(float((there[n] - t).norm()) <= 1e-9 * float(t.norm()) for n, t in here.items())
