"""Every loss equals the loop, over all layers and over the last alone; sampled labels are the same however rows are split."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

from fedunlearn.errors import ShapeError
from fedunlearn.importance import measure
from fedunlearn.importance.losses import Labels, Loss, Masked, Norm, Own, Sampled
from fedunlearn.importance.reference import loop
from tests.importance.exact import OUTPUTS, assert_exact, batch, head_of, ready


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
