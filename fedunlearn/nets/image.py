"""The models of torchvision, for images of any number of channels and, on demand, of small size."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fedunlearn.errors import InputError, unknown
from fedunlearn.vision import torchvision

AUXILIARY = ("googlenet", "inception_v3")  # with further outputs while they train, unless told otherwise


def torchvision_net(shape: Sequence[int], outputs: int, model: str = "resnet18", small: bool = False) -> nn.Module:
    """A model of torchvision, freshly initialised; names and shapes are those of its published weights, but for the stem.

    Args:
        shape: (channels, height, width) of one image, or (height, width) for grey ones.
        outputs: how many classes.
        model: resnet18, densenet121, mobilenet_v3_small, vgg11_bn, or any other classifier of torchvision.models.
        small: for images of about 32 x 32: the first convolution becomes 3x3 with stride 1, and a max-pool that follows it
            before the next convolution is left out.

    Raises:
        InputError: torchvision has no such model, or it does not take such images.
    """
    models = torchvision("net torchvision").models
    known = models.list_models(module=models)
    if model not in known:
        raise unknown("torchvision model", model, known, where="net torchvision: model")
    if len(shape) not in (2, 3):
        raise InputError(f"net torchvision: one input has shape {tuple(shape)}, expected (channels, height, width)")
    patches = model.startswith("vit_")
    if small and patches:
        raise InputError(f"net torchvision: small is true, but {model} has no convolutional stem; leave small out")
    settings: dict[str, Any] = {"aux_logits": False, "init_weights": True} if model in AUXILIARY else {}
    try:
        sized = {"image_size": shape[-1]} if patches else {}
        net: nn.Module = models.get_model(model, weights=None, num_classes=outputs, **settings, **sized)
    except (AssertionError, ValueError) as error:
        raise InputError(f"net torchvision: {model} does not take images of shape {tuple(shape)}: {error}") from error
    _fit_stem(net, shape[0] if len(shape) == 3 else 1, small)
    if len(shape) == 2:
        net.register_forward_pre_hook(_one_channel)
    return net


def _fit_stem(net: nn.Module, channels: int, small: bool) -> None:
    name, old = next((n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d))
    if old.in_channels == channels and not small:
        return
    size, stride, padding = (3, 1, 1) if small else (old.kernel_size, old.stride, old.padding)
    new = nn.Conv2d(channels, old.out_channels, size, stride, padding, bias=old.bias is not None)  # type: ignore[arg-type]
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    after = [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d)][1:2]
    _put(net, name, new)
    if small and after and isinstance(net.get_submodule(after[0]), nn.MaxPool2d):
        _put(net, after[0], nn.Identity())


def _put(net: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(net.get_submodule(parent), last, module)


def _one_channel(net: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    del net
    return (inputs[0].unsqueeze(1),)
