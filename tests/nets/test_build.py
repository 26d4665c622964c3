"""Nets by name and by the user's factory; what is wrong with either is said."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fedunlearn.errors import InputError, ShapeError
from fedunlearn.nets import NETS, build, gives_logits, head_of, load, replace_head, weights_of
from fedunlearn.tensors import equal
from tests.nets.exact import assert_exact

SHAPES = {"text_gru": (5,), "text_transformer": (5,)}


@pytest.mark.parametrize("name", NETS)
def test_nets_are_the_same_for_the_same_seed_and_leave_the_global_generator_alone(name: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = (weights_of(build({"name": name}, SHAPES.get(name, (1, 8, 8)), 4, seed)) for seed in (1, 1, 2))
    assert equal(one, two)
    assert not equal(one, other)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(("shape", "name"), [((8, 8), "cnn"), ((3, 9, 7), "cnn"), ((5,), "mlp"), ((3, 8, 12), "resnet_cifar")])
def test_nets_take_their_shapes(shape: tuple[int, ...], name: str) -> None:
    assert build({"name": name}, shape, 4)(torch.zeros(2, *shape)).shape == (2, 4)


def test_a_new_head_on_an_old_body() -> None:
    old, new = (weights_of(build({"name": "mlp"}, (4,), n, n)) for n in (5, 2))
    head = head_of(build({"name": "mlp"}, (4,), 2), ("x", "y"))
    mixed = replace_head(old, new, head)
    assert torch.equal(mixed["body.1.weight"], old["body.1.weight"])
    assert torch.equal(mixed["head.weight"], new["head.weight"])


def test_weights_that_do_not_fit_are_refused() -> None:
    net = build({"name": "mlp"}, (4,), 2)
    with pytest.raises(ShapeError, match=r"'head.weight' has shape \(2, 32\) in one and \(3, 32\)"):
        load(net, weights_of(build({"name": "mlp"}, (4,), 3)))
    with pytest.raises(ShapeError, match="3 class names for 2 outputs"):
        head_of(net, ("a", "b", "c"))


FACTORIES = """
import torch
def good(shape, outputs, width=3):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(width), torch.nn.Linear(width, outputs))
def raises(shape, outputs): raise RuntimeError("no GPU today")
def nothing(shape, outputs): return None
def headless(shape, outputs): return torch.nn.Flatten()
def narrow(shape, outputs): return torch.nn.Sequential(torch.nn.Linear(4, 1))
def lazy(shape, outputs): return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(outputs))
def parametrised(shape, outputs):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, outputs)))
value = 3
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "their_nets.py").write_text(FACTORIES.replace("torch.nn.LazyLinear(width)", "torch.nn.Linear(4, width)"))
    (tmp_path / "their_broken.py").write_text("import nothing_like_this")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_nets", raising=False)
    return "their_nets"


def test_a_head_is_what_gives_the_outputs() -> None:
    body, head, other = nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(3, 2)
    x = torch.rand(2, 4)
    assert gives_logits(nn.Sequential(body, head), x)
    assert not gives_logits(nn.Sequential(body, head, nn.Softmax(1)), x)
    unused = nn.Sequential(body, head)
    unused.register_module("other", other)
    unused.forward = lambda x: head(body(x))  # type: ignore[method-assign]
    assert not gives_logits(unused, x)  # declared last, and never asked


def test_a_factory_of_the_users_own(factories: str) -> None:
    net = build({"factory": f"{factories}:good", "width": 6}, (4,), 2)
    assert net.get_parameter("2.weight").shape == (2, 6)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"factory": "their_nets:raises"}, "net factory 'their_nets:raises' raised RuntimeError: no GPU today"),
        ({"factory": "their_nets:nothing"}, "returned NoneType, expected a torch.nn.Module"),
        ({"factory": "their_nets:headless"}, "has no named linear layer to be its head"),
        ({"factory": "their_nets:lazy"}, "its head '1' has no weight of its own yet"),
        ({"factory": "their_nets:parametrised"}, "its head '1' has no weight of its own yet"),
        ({"factory": "their_nets:narrow"}, "its last linear layer has 1 outputs, expected 2"),
        ({"factory": "their_nets:goood"}, "unknown name in module 'their_nets' 'goood'; did you mean 'good'"),
        ({"factory": "their_nets:value"}, "is a int, expected something to call"),
        ({"factory": "their_nets"}, "expected 'their.module:name'"),
        ({"factory": "their_broken:x"}, "importing 'their_broken' failed: ModuleNotFoundError"),
        ({"name": "mpl"}, "unknown net 'mpl'; did you mean 'mlp'"),
        ({"name": "mlp", "hiden": 3}, r"net mlp: .*hiden"),
        ({"name": "mlp", "norm": 1}, "norm is 1, expected true or false"),
        ({"name": "mlp", "hidden": 1}, "hidden is 1, expected at least 2"),
        ({"name": "resnet_cifar"}, r"one input has shape \(4,\), expected \(channels, 4a, 4b\)"),
        ({"name": "resnet_cifar", "depth": 21}, "depth is 21, expected 6n"),
        ({"name": "cnn"}, r"one input has shape \(4,\), expected \(channels, height, width\)"),
    ],
)
def test_wrong_nets_are_refused(factories: str, spec: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(spec, (4,), 2)


def test_a_norm_of_the_inputs() -> None:
    net = build({"name": "mlp", "hidden": 6, "norm": True}, (2, 3), 3)
    assert net.train()(1000 * torch.rand(9, 2, 3)).abs().max() < 10
    assert_exact(net, torch.rand(5, 2, 3, dtype=torch.float64), 3)
    assert "body.1.weight" in weights_of(net)
