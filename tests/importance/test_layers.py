"""Every kind of layer, every torchvision family, whatever the shape: equal to the loop in float64, and never silently wrong."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedunlearn.errors import ShapeError
from fedunlearn.importance import Importance, measure, pool
from fedunlearn.importance.losses import Labels, Loss, Masked, Norm, Own, Sampled
from fedunlearn.importance.reference import loop
from fedunlearn.tensors import Head
from fedunlearn.vision import torchvision

OUTPUTS = 3


def head_of(net: nn.Module) -> Head:
    return Head([n for n, m in net.named_modules() if isinstance(m, nn.Linear)][-1], tuple(str(i) for i in range(OUTPUTS)))


def batch(*shape: int, words: int = 0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, OUTPUTS, (shape[0],), generator=generator)
    if words:
        return torch.randint(0, words, shape, generator=generator), y
    return torch.randn(shape, generator=generator, dtype=torch.float64), y


def ready(net: nn.Module) -> nn.Module:
    """float64, eval mode, running statistics and affine parameters that are not trivial."""
    generator = torch.Generator().manual_seed(7)
    for module in net.modules():
        for name in ("running_mean", "running_var", "weight", "bias"):
            tensor = getattr(module, name, None)
            if isinstance(tensor, Tensor) and tensor.dim() == 1:
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return net.double().eval()


def assert_exact(
    net: nn.Module, x: Tensor, y: Tensor, *, slow: bool = False, statistic: str = "squares", loss: Loss | None = None
) -> None:
    said: list[str] = []
    loss = loss or Labels()
    fast = measure(net, x, y, head=head_of(net), statistic=statistic, loss=loss, said=said.append).sums[statistic]
    exact = loop(net, x, loss.rows(len(x), y), statistic, loss).sums[statistic]
    assert fast.keys() == exact.keys()
    for name, truth in exact.items():
        assert float((fast[name] - truth).norm()) <= 1e-10 * float(truth.norm()) + 1e-300, name
    assert bool(said) == slow, said


class Flat(nn.Module):
    """A layer under test, the mean over what it leaves of positions, and a head."""

    def __init__(self, layer: nn.Module, width: int, keep: Callable[[Tensor], Tensor] = lambda t: t) -> None:
        super().__init__()
        self.layer, self.keep, self.head = layer, keep, nn.Linear(width, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.keep(self.layer(x))))
        return out


def over(*dims: int) -> Callable[[Tensor], Tensor]:
    return lambda t: t.mean(dims)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_convolutions_of_every_kind(data: st.DataObject) -> None:
    dims = data.draw(st.sampled_from([1, 2, 2, 3]))
    groups = data.draw(st.sampled_from([1, 1, 2]))
    channels, out = groups * data.draw(st.integers(1, 4)), groups * data.draw(st.integers(1, 3))
    size = data.draw(st.integers(1, 3))
    padding = data.draw(st.sampled_from([0, 1, "same", "valid"]))
    mode = data.draw(st.sampled_from(["zeros", "zeros", "reflect", "circular"])) if dims < 3 else "zeros"
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](
        channels, out, size, stride=1 if padding == "same" else data.draw(st.integers(1, 2)), padding=padding,
        dilation=data.draw(st.integers(1, 2)), groups=groups, bias=data.draw(st.booleans()), padding_mode=mode,
    )  # fmt: skip
    x, y = batch(data.draw(st.integers(1, 4)), channels, *[data.draw(st.integers(5, 7)) for _ in range(dims)])
    assert_exact(ready(Flat(conv, out, lambda t: t.flatten(2).mean(2))), x, y)


@pytest.mark.parametrize(("channels", "out", "side"), [(512, 64, 4), (4, 4, 24), (3, 5, 24), (64, 64, 3), (300, 600, 1)])
@pytest.mark.parametrize("size", [1, 3])
def test_convolutions_of_every_formulation(channels: int, out: int, side: int, size: int) -> None:
    """512 channels on 4x4 are where a public library drops the terms between positions."""
    conv = nn.Conv2d(channels, out, size, padding=size // 2)
    assert_exact(ready(Flat(conv, out, over(2, 3))), *batch(3, channels, side, side))


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (Flat(nn.Linear(5, 4), 4), (4, 5)),
    "linear on a sequence": (Flat(nn.Linear(5, 4), 4, over(1)), (4, 6, 5)),
    "linear on a grid": (Flat(nn.Linear(5, 4), 4, over(1, 2)), (4, 2, 3, 5)),
    "linear on one position": (Flat(nn.Linear(5, 4), 4, over(1)), (4, 1, 5)),
    "batch norm 1d": (Flat(nn.BatchNorm1d(5), 5), (4, 5)),
    "batch norm 2d, few positions": (Flat(nn.BatchNorm2d(5), 5, over(2, 3)), (4, 5, 3, 3)),
    "batch norm 2d, many positions": (Flat(nn.BatchNorm2d(5), 5, over(2, 3)), (4, 5, 7, 6)),
    "layer norm": (Flat(nn.LayerNorm(5), 5), (4, 5)),
    "layer norm on a sequence": (Flat(nn.LayerNorm(5), 5, over(1)), (4, 6, 5)),
    "layer norm over two axes": (Flat(nn.LayerNorm((6, 5)), 5, over(1)), (4, 6, 5)),
    "group norm": (Flat(nn.GroupNorm(2, 6), 6, over(2)), (4, 6, 5)),
    "instance norm": (Flat(nn.InstanceNorm1d(6, affine=True), 6, lambda t: t[:, :, 0]), (4, 6, 5)),
    "instance norm, running": (Flat(nn.InstanceNorm2d(6, affine=True, track_running_stats=True), 6, over(2, 3)), (4, 6, 3, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("statistic", "loss"), [("squares", Labels()), ("absolute", Norm()), ("sum", Labels())])
def test_layers(name: str, statistic: str, loss: Loss) -> None:
    net, shape = LAYERS[name]
    assert_exact(ready(net), *batch(*shape), statistic=statistic, loss=loss)


class Words(nn.Module):
    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(7, 6, **settings), nn.Linear(6, OUTPUTS)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.words(x).sum(1)))
        return out


@pytest.mark.parametrize("padding", [None, 0, -1])
def test_embeddings_whose_tokens_repeat(padding: int | None) -> None:
    assert_exact(ready(Words(padding_idx=padding)), *batch(4, 9, words=7))


def test_an_embedding_that_scales_by_frequency_goes_the_slow_way() -> None:
    assert_exact(ready(Words(scale_grad_by_freq=True)), *batch(3, 9, words=7), slow=True)


class Attends(nn.Module):
    def __init__(self, first: bool, mask: bool, weights: bool = False, **settings: object) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=first, **settings)  # type: ignore[arg-type]
        self.first, self.mask, self.weights, self.head = first, mask, weights, nn.Linear(6, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x if self.first else x.transpose(0, 1)
        hidden = torch.triu(torch.ones(x.shape[1], x.shape[1], dtype=torch.bool), 1) if self.mask else None
        padding = (x[:, :, 0] > 1).clone() if self.mask else None
        if padding is not None:
            padding[:, 0] = False
        out, _ = self.attention(tokens, tokens, tokens, key_padding_mask=padding, attn_mask=hidden, need_weights=self.weights)
        return self.head(torch.tanh(out.mean(1 if self.first else 0)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("side", [4, 3])
def test_attention(first: bool, mask: bool, side: int) -> None:
    """With 4 samples of 4 tokens a leading axis of 4 says nothing; a lone sample tells the axes apart."""
    assert_exact(ready(Attends(first, mask)), *batch(4, side, 6))


@pytest.mark.parametrize("settings_", [{"add_zero_attn": True}, {"add_bias_kv": True}, {"weights": True}])
def test_attention_out_of_the_ordinary_goes_the_slow_way(settings_: dict[str, object]) -> None:
    assert_exact(ready(Attends(True, False, **settings_)), *batch(3, 4, 6), slow=True)  # type: ignore[arg-type]


def test_a_transformer_encoder() -> None:
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    net = Flat(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), 6, over(1))
    assert_exact(ready(net), *batch(4, 4, 6))


class Odd(nn.Module):
    """Uses its parameters in a way that a hook on modules would miss."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.first, self.second = how, nn.Linear(6, 6), nn.Linear(6, 6)
        self.scale, self.place = nn.Parameter(torch.rand(6)), nn.Parameter(torch.rand(1, 6))
        self.head = nn.Linear(6, OUTPUTS)
        if how == "tied":
            self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.first(x))
        if self.how in ("tied", "plain"):
            out = torch.relu(self.second(out))
        elif self.how == "twice":
            out = torch.relu(self.first(out))
        elif self.how == "functional":
            out = nn.functional.linear(out, self.second.weight * 2, self.second.bias)
        elif self.how == "also functional":
            out = out @ self.first.weight
        elif self.how == "transposed":
            out = nn.functional.linear(out.T.contiguous().T, self.second.weight) + (self.first.weight * self.second.bias).sum(1)
        out = out * self.scale + self.place
        return self.head(out)  # type: ignore[no-any-return]


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


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], first: bool) -> None:
        super().__init__()
        self.cells, self.first, self.head = kind(5, 6, batch_first=first), first, nn.Linear(6, OUTPUTS)  # type: ignore[call-arg, arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out = self.cells(x if self.first else x.transpose(0, 1))[0]
        return self.head(out[:, -1] if self.first else out[-1])  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("first", [True, False])
def test_recurrent_layers_where_torch_func_would_silently_give_zeros(kind: type[nn.RNNBase], first: bool) -> None:
    assert_exact(ready(Recurrent(kind, first)), *batch(4, 4, 5), slow=True)


def test_time_first_linear_layers_with_as_many_steps_as_samples() -> None:
    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(5, 6), nn.Linear(6, OUTPUTS)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(torch.tanh(self.layer(x.transpose(0, 1))).mean(0))
            return out

    assert_exact(ready(TimeFirst()), *batch(4, 4, 5), slow=True)


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


def test_outputs_that_are_no_classes_are_refused() -> None:
    net = ready(nn.Sequential(nn.Linear(5, OUTPUTS)))
    x, y = batch(4, 6, 5)
    with pytest.raises(ShapeError, match=r"the model gave \(1, 6, 3\) for 1 samples, expected outputs \[N, classes\]"):
        measure(nn.Sequential(nn.Linear(5, 5).double(), net), x, y, head=Head("1.0", ("0", "1", "2")))


@pytest.mark.parametrize("loss", [Own(), Sampled(3), Norm(), Masked((1,))])
@pytest.mark.parametrize("statistic", ["squares", "absolute", "sum"])
def test_every_loss_equals_the_loop(loss: Loss, statistic: str) -> None:
    if statistic == "sum" and isinstance(loss, Own):
        return  # the expected gradient of a log likelihood is zero: nothing to compare relatively
    net = ready(nn.Sequential(nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 9, OUTPUTS)))
    assert_exact(net, *batch(5, 4, 5, 5), statistic=statistic, loss=loss)


@pytest.mark.parametrize("loss", [Own(), Sampled(3), Norm(), Masked((1,)), Labels()])
@pytest.mark.parametrize("statistic", ["squares", "absolute", "sum"])
def test_the_last_layer_alone_equals_its_part_of_all(loss: Loss, statistic: str) -> None:
    net = ready(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, OUTPUTS)))
    x, y = batch(5, 5)
    last, everything = (
        measure(net, x, y, head=head_of(net), statistic=statistic, loss=loss, layers=w).sums[statistic] for w in ("last", "all")
    )
    bounded = measure(net, x, y, head=head_of(net), statistic=statistic, loss=loss, layers="last", max_bytes=1).sums[statistic]
    assert all(torch.allclose(last[n], bounded[n], rtol=1e-10) for n in last)
    assert set(last) == {"2.weight", "2.bias"}
    assert all(torch.allclose(last[n], everything[n], rtol=1e-10, atol=1e-14) for n in last)


@pytest.mark.parametrize("first", ["head", "words"])
def test_a_last_layer_tied_to_another_is_exact_or_refused(first: str) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in (first, {"head": "words", "words": "head"}[first]):
                self.add_module(name, nn.Linear(6, OUTPUTS, bias=False) if name == "head" else nn.Embedding(OUTPUTS, 6))
            self.head.weight = self.words.weight

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(torch.tanh(self.words(x).sum(1)))
            return out

    net = ready(Tied())
    x, y = batch(4, 5, words=OUTPUTS)
    if first == "words":  # the shared weight is called words.weight; to give back nothing would look like forgetting
        with pytest.raises(
            ShapeError, match="the weight of the last layer 'head' goes under another name, because it is shared"
        ):
            measure(net, x, y, head=head_of(net), layers="last")
        return
    exact = loop(net, x, y).sums["squares"]["head.weight"]
    found = measure(net, x, y, head=head_of(net), layers="last").sums["squares"]["head.weight"]
    assert torch.allclose(found, exact, rtol=1e-10)


def test_a_loss_of_the_users_own() -> None:
    net = ready(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, OUTPUTS)))
    x, y = batch(5, 5)
    own = measure(net, x, y, head=head_of(net), loss=lambda out, _: out.square().sum(1))
    named = measure(net, x, y, head=head_of(net), loss="norm")
    assert all(own.sums["squares"][n].equal(t) for n, t in named.sums["squares"].items())
    with pytest.raises(ShapeError, match=r"the user's function gave \(\) for 1 rows|gave \(\) for 5 rows"):
        measure(net, x, y, head=head_of(net), loss=lambda out, _: out.sum())


@settings(deadline=None, max_examples=15)
@given(cut=st.integers(0, 6), limit=st.sampled_from([1, 2000, 1 << 28]), seed=st.integers(0, 99))
def test_sampled_labels_do_not_depend_on_the_split_into_batches(cut: int, limit: int, seed: int) -> None:
    net = ready(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, OUTPUTS)))
    x, y = batch(6, 5)
    del cut
    one = measure(net, x, head=head_of(net), loss="sampled", seed=seed, max_bytes=limit)
    whole = measure(net, x, y, head=head_of(net), loss="sampled", seed=seed)
    assert torch.allclose(one.sums["squares"]["0.weight"], whole.sums["squares"]["0.weight"], rtol=1e-10)


FAMILIES = {
    "resnet18": {}, "densenet121": {}, "vgg11_bn": {}, "mobilenet_v2": {}, "mobilenet_v3_small": {}, "efficientnet_b0": {},
    "convnext_tiny": {},
}  # fmt: skip


@pytest.mark.parametrize("name", [*FAMILIES, "vit"])
def test_torchvision_families(name: str) -> None:
    models = torchvision().models
    torch.manual_seed(0)
    if name == "vit":
        net = models.VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=OUTPUTS)
    else:
        net = getattr(models, name)(weights=None, num_classes=OUTPUTS)
    if name == "vgg11_bn":  # its 120 million weights behind the convolutions are linear layers like any other
        net.classifier = nn.Linear(512 * 49, OUTPUTS)
    assert_exact(ready(net), *batch(2, 3, 32, 32))


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
