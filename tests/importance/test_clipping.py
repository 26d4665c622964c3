"""No row adds more than it may, and the noise is what it is said to be."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats

from fedunlearn.importance import Importance, measure
from fedunlearn.importance.clipping import clipped, noisy, normal, size_of
from fedunlearn.importance.reference import loop
from tests.importance.test_fisher import case, worst

KEY, OTHER = bytes(range(32)), bytes(32)
F = {"squares": torch.square, "absolute": torch.abs, "sum": torch.clone}


@pytest.mark.parametrize("statistic", F)
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_clipped_sums_are_those_of_gradients_scaled_one_by_one(name: str, statistic: str) -> None:
    net, x, y, head = case(name, 5)
    sizes, expected = [], {n: torch.zeros(p.shape, dtype=torch.float64) for n, p in net.named_parameters()}
    gradients = [loop(net, x[i : i + 1], y[i : i + 1], "sum").sums["sum"] for i in range(5)]
    sizes = [float(torch.cat([t.flatten() for t in g.values()]).norm()) for g in gradients]
    most = sorted(sizes)[2]  # some are clipped and some are not
    for g, size in zip(gradients, sizes, strict=True):
        for n, t in g.items():
            expected[n] += F[statistic](t * min(1.0, most / size))
    found = clipped(lambda part: measure(net, x[part], y[part], head=head, statistic=statistic), 5, most)
    assert found.count == 5
    assert worst(dict(found.sums[statistic]), expected) < 1e-10


@settings(max_examples=20)
@given(statistic=st.sampled_from(["squares", "absolute", "sum"]), most=st.floats(1e-3, 10), seed=st.integers(0, 99))
def test_no_row_moves_a_clipped_sum_by_more_than_the_bound(statistic: str, most: float, seed: int) -> None:
    net, x, y, head = case("mlp", 4, seed)

    def over(rows: int) -> Importance:
        return clipped(lambda part: measure(net, x[part], y[part], head=head, statistic=statistic), rows, most)

    moved = {n: t - over(3).sums[statistic][n] for n, t in over(4).sums[statistic].items()}
    assert size_of(statistic, moved) <= most * (1 + 1e-6) + 1e-7
    assert over(0).count == 0
    assert not any(t.any() for t in over(0).sums[statistic].values())


def test_a_bound_that_nothing_reaches_changes_nothing() -> None:
    net, x, y, head = case("cnn", 4)
    plain = measure(net, x, y, head=head)
    found = clipped(lambda part: measure(net, x[part], y[part], head=head), 4, 1e9)
    assert worst(dict(found.sums["squares"]), dict(plain.sums["squares"])) < 1e-10


def test_noise_is_standard_normal_and_nobody_else_can_compute_it() -> None:
    one, again = normal(KEY, b"a", 20_001), normal(KEY, b"a", 20_001)
    assert torch.equal(one, again)
    assert stats.kstest(one.numpy(), "norm").pvalue > 1e-3
    for other in (normal(KEY, b"b", 20_001), normal(OTHER, b"a", 20_001)):
        assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.05
    assert abs(float(torch.corrcoef(torch.stack([one[:-1], one[1:]]))[0, 1])) < 0.05
    assert abs(float((one[:10_000] * one[10_000:20_000]).mean())) < 0.05  # the two of a pair


def test_noise_has_the_deviation_that_was_asked_for_and_keeps_what_sums_must_be() -> None:
    flat = Importance({"sum": {"a": torch.full((50, 100), 3.0).double(), "b": torch.zeros(5000).double()}}, 7)
    found = noisy(flat, 0.5, KEY, b"")
    assert found.count == 7
    a, b = found.sums["sum"]["a"] - 3, found.sums["sum"]["b"]
    assert float(a.std()) == pytest.approx(0.5, rel=0.05)
    assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b]))[0, 1])) < 0.05  # not the same noise on every parameter
    squares = noisy(Importance({"squares": {"a": torch.zeros(1000).double()}}, 7), 0.5, KEY, b"").sums["squares"]["a"]
    assert float(squares.min()) == 0
    assert 0.4 < float((squares > 0).double().mean()) < 0.6
    inputs = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moment = noisy(Importance({"moment": {"a": inputs.T @ inputs}}, 9), 5.0, KEY, b"").sums["moment"]["a"]
    assert torch.equal(moment, moment.T) or float((moment - moment.T).abs().max()) < 1e-12
    assert float(torch.linalg.eigvalsh(moment).min()) > -1e-9
