"""Nets for token ids: padding changes nothing, a row without words gives no NaN, and samples are apart."""

import pytest
import torch
from torch import Tensor

from fedunlearn.errors import InputError
from fedunlearn.nets import build, load, weights_of
from tests.nets.exact import assert_each_alone, assert_exact

SPECS = {
    "text_gru": {"vocabulary": 12, "width": 4, "hidden": 6},
    "text_transformer": {"vocabulary": 12, "width": 6, "heads": 2, "feedforward": 5},
}
X = torch.tensor([[3, 4, 5, 0, 0], [11, 0, 0, 0, 0], [0, 0, 0, 0, 0], [7, 7, 7, 1, 2]]).float()

both = pytest.mark.parametrize("name", SPECS)


def net(name: str, length: int = 5) -> torch.nn.Module:
    return build({"name": name, **SPECS[name]}, (length,), 3)


@both
def test_samples_are_apart_and_rows_without_words_are_no_nan(name: str) -> None:
    assert_each_alone(net(name), X)
    made = net(name)
    with torch.no_grad():
        assert torch.allclose(made.eval()(X)[2], made.get_parameter("head.bias"))


@both
def test_gradients_of_a_row_without_words_are_no_nan(name: str) -> None:
    made = net(name).train()
    made(X[2:3]).sum().backward()
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in made.parameters())


@both
def test_padding_changes_nothing(name: str) -> None:
    short, long = net(name, 5).eval(), net(name, 8).eval()
    weights = weights_of(short)
    if name == "text_transformer":
        weights["positions"] = torch.cat([weights["positions"], torch.ones(1, 3, 6)], 1)
    load(long, weights)
    more = torch.cat([X, torch.zeros(4, 3)], 1)
    with torch.no_grad():
        assert torch.allclose(short(X), long(more), atol=1e-6)


@both
@pytest.mark.parametrize("kind", [torch.float64, torch.int64])
def test_what_each_text_contributes_is_exact(name: str, kind: torch.dtype) -> None:
    assert_exact(net(name), X.to(kind), 3, slow=name == "text_gru")  # recurrent layers go one sample at a time


@both
def test_words_are_told_apart(name: str) -> None:
    def learn(made: torch.nn.Module, x: Tensor, y: Tensor) -> float:
        steps = torch.optim.Adam(made.parameters(), lr=0.05)
        for _ in range(40):
            steps.zero_grad()
            torch.nn.functional.cross_entropy(made(x), y).backward()
            steps.step()
        return float((made.eval()(x).argmax(1) == y).double().mean())

    generator = torch.Generator().manual_seed(0)
    x = torch.randint(4, 12, (60, 5), generator=generator).float()
    y = torch.arange(60) % 3
    x[torch.arange(60), torch.randint(0, 5, (60,), generator=generator)] = 1.0 + y  # one word says which
    assert learn(net(name), x, y) > 0.9


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        ({"name": "text_gru"}, (3, 8, 8), r"one input has shape \(3, 8, 8\), expected token ids \(tokens,\)"),
        ({"name": "text_gru", "vocabulary": 1}, (5,), "vocabulary is 1, expected a whole number of 2 or more"),
        ({"name": "text_transformer", "layers": 0}, (5,), "layers is 0, expected a whole number of 1 or more"),
        ({"name": "text_transformer", "width": 7}, (5,), "width is 7, expected a multiple of heads, which is 4"),
    ],
)
def test_wrong_settings_are_refused(spec: dict[str, object], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(spec, shape, 3)


@both
def test_ids_beyond_the_vocabulary_are_refused(name: str) -> None:
    with pytest.raises(
        InputError, match=r"token ids run from 0 to 40, but the net's vocabulary is 12; give the data and the net"
    ):
        net(name)(torch.tensor([[40.0, 0, 0, 0, 0]]))
