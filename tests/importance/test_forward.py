"""Activations and second moments by hand, and the papers' number with what is wrong with it."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fedunlearn.errors import InputError, ShapeError
from fedunlearn.importance import by_class, fits, measure, pool
from tests.importance.exact import Flat, batch, head_of, ready

NET = nn.Sequential(
    nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4, bias=False), nn.Linear(4, 3)
)


def test_activations_are_means_over_positions_summed_over_samples() -> None:
    net = ready(NET)
    x, _ = batch(5, 2, 6, 6)
    found = measure(net, x, head=head_of(net), statistic="activation", max_bytes=1)
    with torch.no_grad():
        fired, last = net[0](x).relu(), net(x)  # type: ignore[index]
    assert torch.allclose(found.sums["activation"]["0.weight"], fired.mean((2, 3)).sum(0))
    assert torch.allclose(found.mean("activation")["4.weight"], last.mean(0))
    assert set(found.sums["activation"]) == {"0.weight", "3.weight", "4.weight"}


class Block(nn.Module):
    """A residual block and what stands around it; ReLU in place, a sum in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.relu = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.second, self.norm_2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.hidden, self.drop, self.head = nn.Linear(4, 5), nn.Dropout(), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.norm(self.first(x)))
        y = self.second(x)
        assert y.shape == y.size()  # asking changes nothing
        y = self.norm_2(y)
        y += x
        return self.head(torch.tanh(self.drop(self.hidden(self.relu(y).mean((2, 3))))))  # type: ignore[no-any-return]


def test_a_unit_fires_behind_its_normalisation_and_nonlinearity_and_before_anything_is_added() -> None:
    net = ready(Block())
    with torch.no_grad():
        for norm in (net.norm, net.norm_2):
            norm.running_mean.fill_(0.5)
            norm.running_var.uniform_(0.5, 2)
            norm.bias.uniform_(-0.5, 0.5)
        net.norm_2.bias.fill_(-20)
    x, _ = batch(5, 2, 6, 6)
    found = measure(net, x, head=head_of(net), statistic="activation", max_bytes=1).mean("activation")
    with torch.no_grad():
        first = net.norm(net.first(x)).relu()
        second = net.norm_2(net.second(first))
        hidden = torch.tanh(net.hidden((second + first).relu().mean((2, 3))))
    expected = {"first": first.mean((0, 2, 3)), "second": second.mean((0, 2, 3)), "hidden": hidden.mean(0)}
    for name, of in expected.items():
        assert torch.allclose(found[f"{name}.weight"], of)
    assert float(found["second.weight"].max()) < 0


def test_a_unit_that_never_fires_is_not_active() -> None:
    net = ready(nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 3)))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[10.0], [1.0]]))  # type: ignore[index]
        net[0].bias.copy_(torch.tensor([-100.0, 0.0]))  # type: ignore[index]
    x = torch.ones(4, 1, dtype=torch.float64)
    found = measure(net, x, head=head_of(net), statistic="activation").mean("activation")
    assert found["0.weight"].tolist() == [0.0, 1.0]


def test_moments_are_outer_products_of_inputs_and_of_patches() -> None:
    net = ready(NET)
    x, _ = batch(5, 2, 6, 6)
    parts = [measure(net, part, head=head_of(net), statistic="moment") for part in (x[:2], x[2:])]
    found = pool(parts).sums["moment"]
    patches = functional.unfold(x, 3, padding=1, stride=2).transpose(1, 2).reshape(-1, 18)
    ones = torch.cat([patches, torch.ones(len(patches), 1, dtype=torch.float64)], 1)
    assert torch.allclose(found["0.weight"], ones.T @ ones)
    assert found["3.weight"].shape == (27, 27)
    assert found["4.weight"].shape == (5, 5)
    assert float(found["4.weight"][-1, -1]) == pytest.approx(5.0)


def test_a_transformer_shows_its_parts_although_torch_would_fuse_them() -> None:
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    net = ready(Flat(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), 6, lambda t: t.mean(1)))
    x, _ = batch(4, 5, 6)
    found = measure(net, x, head=head_of(net), statistic="moment").sums["moment"]
    ones = torch.cat([x.reshape(-1, 6), torch.ones(20, 1, dtype=torch.float64)], 1)
    assert torch.allclose(found["layer.layers.0.self_attn.in_proj_weight"], ones.T @ ones)
    assert len(found) == 5


def test_layers_that_are_not_covered_are_named() -> None:
    net = ready(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(16, 3)))
    x, _ = batch(3, 4, 4, 4)
    with pytest.raises(ShapeError, match="moment: convolutions other than 2-d, in one group"):
        measure(net, x, head=head_of(net), statistic="moment")
    assert set(measure(net, x, head=head_of(net), statistic="moment", layers="last").sums["moment"]) == {"2.weight"}
    norm = ready(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)))
    with pytest.raises(ShapeError, match="activation: none of the layers asked for is linear or convolutional"):
        measure(norm, batch(3, 4)[0], head=head_of(norm), statistic="activation", layers="0")


def test_batch_squares_fall_as_the_batch_grows_and_equal_the_fisher_at_one() -> None:
    net = ready(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)))
    x, y = batch(64, 5)
    exact = measure(net, x, y, head=head_of(net)).mean()["0.weight"]
    sizes = {}
    for size in (1, 4, 16, 64):
        found = measure(net, x, y, head=head_of(net), statistic="batch_squares", batch=size)
        assert found.count == 64 // size
        sizes[size] = float(found.mean("batch_squares")["0.weight"].sum())
    assert sizes[1] == pytest.approx(float(exact.sum()), rel=1e-10)
    assert sizes[1] > 2 * sizes[4] > 3 * sizes[16] > sizes[64]
    with pytest.raises(InputError, match="batch_squares: batch is 0; give the batch size"):
        measure(net, x, y, head=head_of(net), statistic="batch_squares")


def test_sensitivity_needs_no_labels_and_has_a_closed_form_at_the_last_layer() -> None:
    net = ready(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)))
    x, _ = batch(7, 5)
    with torch.no_grad():
        h = net[:2](x)  # type: ignore[index]
        z = net(x)
    found = measure(net, x, head=head_of(net), statistic="absolute", loss="norm", layers="last").sums["absolute"]
    assert torch.allclose(found["2.weight"], 2 * z.abs().T @ h.abs())
    assert torch.allclose(found["2.bias"], 2 * z.abs().sum(0))


def test_sums_by_class_add_up_and_keep_their_directions() -> None:
    net = ready(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)))
    x, y = batch(12, 5)
    parts = by_class(net, x, y, head=head_of(net), statistic="sum", loss="masked", masked=("1",))
    assert {c: p.count for c, p in parts.items()} == {str(c): int((y == c).sum()) for c in y.unique().tolist()}
    whole = measure(net, x, y, head=head_of(net), statistic="sum", loss="masked", masked=("1",))
    total = pool([parts[c] for c in sorted(parts)])
    assert all(torch.allclose(total.sums["sum"][n], t, atol=1e-12) for n, t in whole.sums["sum"].items())


def test_wrong_losses_are_refused() -> None:
    net = ready(nn.Sequential(nn.Linear(5, 3)))
    x, y = batch(3, 5)
    for asked, message in (
        ({"loss": "label"}, "unknown loss 'label'; did you mean 'labels'"),
        ({"loss": "masked", "masked": ("one",)}, "masked: unknown class 'one'"),
        ({"loss": "masked"}, "0 of 3 outputs masked; some, not all, must be"),
        ({"loss": "masked", "masked": ("0", "1", "2")}, "3 of 3 outputs masked"),
    ):
        with pytest.raises(InputError, match=message):
            measure(net, x, y, head=head_of(net), **asked)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="loss 'labels' needs labels"):
        measure(net, x, head=head_of(net))


def test_shapes_that_are_not_those_of_a_statistic_are_told_apart() -> None:
    net = ready(NET)
    x, _ = batch(3, 2, 6, 6)
    shapes = {n: tuple(p.shape) for n, p in net.named_parameters()}
    for statistic in ("squares", "activation", "moment"):
        found = measure(net, x, batch(3, 2, 6, 6)[1], head=head_of(net), statistic=statistic).sums[statistic]
        sent = {n: tuple(t.shape) for n, t in found.items()}
        assert fits(statistic, sent, shapes, shapes)
        name = next(iter(sent))
        assert not fits(statistic, {**sent, name: (7, *sent[name][1:])}, shapes, shapes)
        assert not fits(statistic, {**sent, "elsewhere.weight": (3,)}, shapes, shapes)
        assert not fits(statistic, {}, shapes, shapes)
