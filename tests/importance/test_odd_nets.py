"""Nets that a hook on modules would miss are measured exactly, if slowly; those whose samples see each other are refused."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fedunlearn.errors import ShapeError
from fedunlearn.importance import measure
from fedunlearn.importance.reference import loop
from fedunlearn.tensors import Head
from tests.importance.exact import OUTPUTS, Flat, Odd, assert_exact, batch, head_of, ready


@pytest.mark.parametrize("how", ["plain", "tied", "twice", "functional", "also functional", "transposed"])
def test_parameters_that_are_used_in_odd_ways_are_exact(how: str) -> None:
    net = ready(Odd(how))
    if how != "plain":
        assert_exact(net, *batch(5, 6), slow=True)
    else:
        assert_exact(net, *batch(5, 6))


class Overwrites(nn.Module):
    """Changes a layer's input in place after it was used; autograd itself would refuse, were the weights not frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(x)).clone()
        kept = hidden.detach().clone()
        out = self.second(hidden)
        hidden.zero_()
        return self.head(torch.relu(out) + kept)  # type: ignore[no-any-return]


def test_an_input_changed_in_place_is_noticed() -> None:
    said: list[str] = []
    net = ready(Overwrites())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        measure(net, *batch(5, 6), head=head_of(net), said=said.append)


def test_in_place_activations_and_frozen_parts() -> None:
    net = ready(
        nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, OUTPUTS))
    )
    for p in net[0].parameters():  # type: ignore[index]
        p.requires_grad_(False)
    said: list[str] = []
    x, y = batch(4, 5)
    fast = measure(net, x, y, head=head_of(net), said=said.append).sums["squares"]
    assert [p.requires_grad for p in net.parameters()] == [False, False, True, True, True, True]
    for p in net.parameters():
        p.requires_grad_(True)
    exact = loop(net, x, y).sums["squares"]
    assert all(float((fast[n] - t).norm()) <= 1e-10 * float(t.norm()) for n, t in exact.items())
    assert not said


def test_a_parameter_that_is_never_used_has_zero_importance() -> None:
    net = ready(Odd("plain"))
    net.register_parameter("idle", nn.Parameter(torch.ones(3, dtype=torch.float64)))
    said: list[str] = []
    x, y = batch(4, 6)
    assert not measure(net, x, y, head=head_of(net), said=said.append).sums["squares"]["idle"].any()
    assert said == ["idle is used by no function that can be seen: measured exactly, but slowly"]


def test_train_mode_is_measured_in_eval_mode_and_left() -> None:
    net = ready(nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, OUTPUTS)))
    x, y = batch(4, 5)
    exact = measure(net, x, y, head=head_of(net))
    before = {n: t.clone() for n, t in net.state_dict().items()}
    net.train()
    assert measure(net, x, y, head=head_of(net)).sums["squares"]["0.weight"].equal(exact.sums["squares"]["0.weight"])
    assert net.training
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())


@pytest.mark.parametrize("affine", [True, False])
def test_statistics_of_the_batch_are_refused(affine: bool) -> None:
    net = ready(Flat(nn.BatchNorm1d(5, affine=affine, track_running_stats=False), 5))
    with pytest.raises(ShapeError, match=r"takes its statistics from the batch.* use running statistics"):
        measure(net, *batch(4, 5), head=head_of(net))


def test_samples_that_see_each_other_are_refused() -> None:
    class Couples(Flat):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - x.mean(0, keepdim=True))

    net = ready(Couples(nn.Linear(5, 4), 4))
    with pytest.raises(ShapeError, match=r"outputs of a sample move by .* something in the model couples them"):
        measure(net, *batch(4, 5), head=head_of(net))


@pytest.mark.parametrize("layers", ["all", "last"])
def test_rows_that_see_what_came_before_are_refused_whatever_was_measured_first(layers: str) -> None:
    """A recurrent layer that takes the samples for its time: the first row moves with no other. One row alone shows nothing."""

    class Runs(Flat):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.cumsum(x, 0))

    net = ready(Runs(nn.Linear(5, 4), 4))
    x, y = batch(4, 5)
    assert measure(net, x[:1], y[:1], head=head_of(net), layers=layers).count == 1
    with pytest.raises(ShapeError, match=r"outputs of a sample move by .* something in the model couples them"):
        measure(net, x, y, head=head_of(net), layers=layers)


class Checkpointed(nn.Module):
    """Throws away what a block computed, and computes it again in the backward pass; `how` is None for one that does not."""

    def __init__(self, how: bool | None) -> None:
        super().__init__()
        self.how = how
        self.first, self.block, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(x))

        def of(h: Tensor) -> Tensor:
            return torch.tanh(self.block(h))

        out: Tensor = self.head(of(hidden) if self.how is None else checkpoint(of, hidden, use_reentrant=self.how))
        return out


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("layers", ["all", ["block"], ["first"], "last"])
def test_gradient_checkpointing_changes_nothing(reentrant: bool, layers: str | list[str]) -> None:
    plain, net = ready(Checkpointed(None)), ready(Checkpointed(reentrant))
    net.load_state_dict(plain.state_dict())
    x, y = batch(5, 6)
    truth = loop(plain, x, y).sums["squares"]
    found = measure(net, x, y, head=head_of(net), layers=layers).sums["squares"]
    assert all(float((t - truth[n]).norm()) <= 1e-10 * float(truth[n].norm()) for n, t in found.items())


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated")
def test_a_use_that_no_function_of_torch_shows_is_found_out() -> None:
    class Compiled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(6, 6), nn.Linear(6, OUTPUTS)
            self.again = torch.jit.trace(lambda h, w: h @ w, (torch.rand(2, 6), torch.rand(6, 6)))  # type: ignore[no-untyped-call]

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(torch.tanh(self.again(self.first(x), self.first.weight)))
            return out

    assert_exact(ready(Compiled()), *batch(5, 6), slow=True)


def test_a_module_that_has_two_names_is_exact_and_left_as_it_was() -> None:
    shared = nn.Linear(6, 6)
    net = ready(nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(6, OUTPUTS)))
    before = [*net.parameters()]
    assert_exact(net, *batch(5, 6), slow=True)
    assert all(a is b for a, b in zip(before, net.parameters(), strict=True))
    assert all(p.requires_grad for p in before)


def test_gradients_that_a_net_has_are_left() -> None:
    net = ready(Odd("tied"))
    held = [torch.rand_like(p) for p in net.parameters()]
    for p, g in zip(net.parameters(), held, strict=True):
        p.grad = g
    measure(net, *batch(4, 6), head=head_of(net))
    assert all(p.grad is g for p, g in zip(net.parameters(), held, strict=True))


def test_labels_and_outputs_that_do_not_fit_are_refused() -> None:
    net = ready(Odd("plain"))
    x, y = batch(4, 6)
    with pytest.raises(ShapeError, match="8 labels for 4 rows"):
        measure(net, x, torch.cat([y, y]), head=head_of(net))
    with pytest.raises(ShapeError, match="has 3 outputs, its head names 2 classes"):
        measure(net, x, y, head=Head("head", ("0", "1")))


def test_a_last_layer_that_is_called_by_name_has_its_closed_form() -> None:
    class ByName(Flat):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(input=torch.tanh(self.layer(x)))
            return out

    net = ready(ByName(nn.Linear(5, 4), 4))
    x, y = batch(4, 5)
    last = measure(net, x, y, head=head_of(net), layers="last").sums["squares"]
    assert all(torch.allclose(last[n], t) for n, t in loop(net, x, y).sums["squares"].items() if n in last)


def test_outputs_that_are_no_classes_are_refused() -> None:
    net = ready(nn.Sequential(nn.Linear(5, OUTPUTS)))
    x, y = batch(4, 6, 5)
    with pytest.raises(ShapeError, match=r"the model gave \(1, 6, 3\) for 1 samples, expected outputs \[N, classes\]"):
        measure(nn.Sequential(nn.Linear(5, 5).double(), net), x, y, head=Head("1.0", ("0", "1", "2")))
