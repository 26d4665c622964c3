"""Every kind of layer, every torchvision family, whatever the shape: equal to the loop in float64, and never silently wrong."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

from fedunlearn.importance.losses import Labels, Loss, Norm
from fedunlearn.vision import torchvision
from tests.importance.exact import OUTPUTS, Flat, assert_exact, batch, over, ready


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
