"""torchvision's models take images of any number of channels; `small` changes the stem and no name."""

import pytest
import torch
from torch import nn

from fedunlearn.errors import InputError
from fedunlearn.nets import build, head_of, weights_of
from tests.nets.exact import assert_each_alone, assert_exact

FAMILIES = {
    "resnet18": "conv1",
    "densenet121": "features.conv0",
    "mobilenet_v3_small": "features.0.0",
    "vgg11_bn": "features.0",
    "googlenet": "conv1.conv",
}


@pytest.mark.parametrize("model", FAMILIES)
def test_small_keeps_names_and_more_pixels(model: str) -> None:
    pixels: list[int] = []
    names: list[set[str]] = []
    for small in (False, True):
        net = build({"name": "torchvision", "model": model, "small": small}, (1, 32, 32), 4).eval()
        names.append(set(net.state_dict()))
        stem = net.get_submodule(FAMILIES[model])
        assert isinstance(stem, nn.Conv2d)
        assert stem.in_channels == 1
        assert not small or (stem.kernel_size, stem.stride) == ((3, 3), (1, 1))
        second = [m for m in net.modules() if isinstance(m, nn.Conv2d)][1]
        second.register_forward_hook(lambda module, given, out: pixels.append(given[0].shape[-1]))
        with torch.no_grad():
            assert net(torch.rand(2, 1, 32, 32)).shape == (2, 4)
    assert names[0] == names[1]
    assert pixels[0] < pixels[1] == 32


def test_heads_are_the_last_linear_layers() -> None:
    heads = {"resnet18": "fc", "densenet121": "classifier", "mobilenet_v3_small": "classifier.3", "vit_b_16": "heads.head"}
    for model, layer in heads.items():
        assert head_of(build({"name": "torchvision", "model": model}, (3, 32, 32), 2), ("a", "b")).layer == layer


def test_published_weights_fit_where_the_stem_is_left_alone() -> None:
    own = weights_of(build({"name": "torchvision"}, (3, 32, 32), 1000))
    assert tuple(own["conv1.weight"].shape) == (64, 3, 7, 7)
    assert sum(t.numel() for n, t in own.items() if not n.endswith(("running_mean", "running_var", "tracked"))) == 11_689_512


def test_grey_images_without_an_axis_of_channels() -> None:
    net = build({"name": "torchvision", "small": True}, (28, 28), 3)
    assert_each_alone(net, torch.rand(3, 28, 28))


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v3_small", "densenet121"])
def test_what_each_image_contributes_is_exact(model: str) -> None:
    net = build({"name": "torchvision", "model": model, "small": True}, (1, 8, 8) if model == "resnet18" else (1, 32, 32), 3)
    shape = (2, 1, 8, 8) if model == "resnet18" else (2, 1, 32, 32)
    assert_exact(net, torch.rand(shape, dtype=torch.float64), 3)


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        ({"model": "resnet81"}, (3, 32, 32), "model: unknown torchvision model 'resnet81'; did you mean 'resnet18'"),
        ({"model": "resnet"}, (3, 32, 32), "unknown torchvision model 'resnet'; did you mean 'resn"),
        ({}, (5,), r"one input has shape \(5,\), expected \(channels, height, width\)"),
        ({"model": "vit_b_16", "small": True}, (3, 32, 32), "small is true, but vit_b_16 has no convolutional stem"),
        ({"model": "vit_b_16"}, (3, 30, 30), r"vit_b_16 does not take images of shape \(3, 30, 30\): Input shape indivisible"),
        ({"model": "squeezenet1_0"}, (3, 32, 32), "has no named linear layer to be its head"),
        ({"smal": True}, (3, 32, 32), r"net torchvision: .*smal"),
    ],
)
def test_wrong_models_are_refused(spec: dict[str, object], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build({"name": "torchvision", **spec}, shape, 4)
