"""From a name or a factory to a net with named outputs, and from stored weights back to a net."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from fedunlearn.dotted import call
from fedunlearn.errors import InputError, ShapeError, unknown
from fedunlearn.nets.image import torchvision_net
from fedunlearn.nets.resnet import resnet_cifar
from fedunlearn.nets.small import cnn, mlp
from fedunlearn.nets.text import text_gru, text_transformer
from fedunlearn.tensors import Head, Tensors, same

NETS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet_cifar": resnet_cifar,
    "torchvision": torchvision_net,
    "text_gru": text_gru,
    "text_transformer": text_transformer,
}


class MakeNet(Protocol):
    """Makes a net for so many outputs, of a family's architecture of that name (empty for its own), initialised from a seed."""

    def __call__(self, outputs: int, net: str, seed: int = 0, /) -> nn.Module:
        """A net."""


def build(spec: Mapping[str, Any], shape: Sequence[int], outputs: int, seed: int = 0) -> nn.Module:
    """A freshly initialised net.

    Args:
        spec: `name` (one of `NETS`) or `factory` ("their.module:make_net"), and the settings passed on to it. A factory
            is called as `make_net(shape, outputs, **settings)` and returns a module whose last linear layer is its head.
        shape: shape of one input.
        outputs: how many classes.
        seed: of the initialisation; the global generator is left as it was.

    Raises:
        InputError: unknown net or setting; a factory that raises or returns no module with a linear head.
    """
    settings = {k: v for k, v in spec.items() if k not in ("name", "factory")}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone, which is put back; a GPU's stays as it was
        if factory := spec.get("factory"):
            what = f"net factory {factory!r}"
            net = call(factory, "net factory", tuple(shape), outputs, **settings)
            if not isinstance(net, nn.Module):
                raise InputError(f"{what} returned {type(net).__name__}, expected a torch.nn.Module")
        else:
            name = str(spec.get("name"))
            if name not in NETS:
                raise unknown("net", name, NETS)
            what = f"net {name}"
            taken = inspect.signature(NETS[name]).parameters
            for key in settings if not any(p.kind is p.VAR_KEYWORD for p in taken.values()) else ():
                if key not in taken:
                    raise unknown("setting", key, taken.keys() - {"shape", "outputs"}, where=what)
            try:
                net = NETS[name](tuple(shape), outputs, **settings)
            except TypeError as error:
                raise InputError(f"{what}: {error}; settings given: {sorted(settings)}") from error
            except (ValueError, ArithmeticError, RuntimeError, MemoryError) as error:  # more than memory holds, or nothing
                raise InputError(f"{what}: cannot be made: {str(error).splitlines()[0][:200]}; settings: {settings}") from error
    _refuse_twins(net, what)
    layer = _last_linear(net, what)
    weight = dict(net.named_parameters()).get(f"{layer}.weight")
    if weight is None or isinstance(weight, UninitializedParameter):
        raise InputError(
            f"{what}: its head {layer!r} has no weight of its own yet (lazy or parametrised); use a plain nn.Linear"
        )
    if len(weight) != outputs:
        raise InputError(f"{what}: its last linear layer has {len(weight)} outputs, expected {outputs}")
    return net


def _refuse_twins(net: nn.Module, what: str) -> None:
    """A tensor with two names is stored twice, and an edit of one of them would be undone by the other when it is loaded."""
    names: dict[int, str] = {}
    for name, tensor in (*net.named_parameters(remove_duplicate=False), *net.named_buffers(remove_duplicate=False)):
        if (first := names.setdefault(id(tensor), name)) != name:
            raise InputError(
                f"{what}: {first!r} and {name!r} are one tensor, so that an edit of one would be lost by the other; give each "
                f"module one name (for example, a property instead of a second attribute)"
            )


def gives_logits(net: nn.Module, x: torch.Tensor) -> bool:
    """Whether what a net says of some rows is what its head, the last linear layer, does: nothing comes after it.

    Args:
        net: as `build` makes it.
        x: rows.
    """
    heard: list[torch.Tensor] = []
    head = net.get_submodule(_last_linear(net, "net"))
    hook = head.register_forward_hook(lambda module, given, out: heard.append(out))
    try:
        with torch.no_grad():
            out = net(x)
    finally:
        hook.remove()
    return any(one.shape == out.shape and torch.allclose(one.to(out), out, atol=1e-5) for one in heard[-1:])


def head_of(net: nn.Module, classes: Sequence[str]) -> Head:
    """The head of a net, its rows named.

    Raises:
        ShapeError: the number of names is not the number of outputs.
    """
    head = Head(_last_linear(net, "net"), tuple(classes))
    rows = net.get_parameter(head.names[0]).shape[0]
    if rows != len(head.classes):
        raise ShapeError(f"head: {len(head.classes)} class names for {rows} outputs of {head.layer!r}")
    return head


def weights_of(net: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, copied to the CPU."""
    return {n: t.detach().to("cpu", copy=True).contiguous() for n, t in net.state_dict().items()}


def load(net: nn.Module, weights: Tensors) -> nn.Module:
    """Put weights into a net of the same names and shapes.

    Raises:
        ShapeError: names or shapes differ; says which.
    """
    same(net.state_dict(), weights, "net and weights")
    net.load_state_dict(dict(weights))
    return net


def replace_head(weights: Tensors, fresh: Tensors, head: Head) -> dict[str, torch.Tensor]:
    """The body of one model under the (new) head of another.

    Args:
        weights: the model whose body stays.
        fresh: a model of the same architecture whose head is taken.
        head: where the head is.
    """
    return {n: (fresh if n in head.names else weights)[n].clone() for n in fresh}


def _last_linear(net: nn.Module, what: str) -> str:
    found = [name for name, module in net.named_modules() if isinstance(module, nn.Linear) and name]
    if not found:
        raise InputError(f"{what}: has no named linear layer to be its head; wrap it in a module that ends in nn.Linear")
    last: str = found[-1]
    return last
