"""The algebra of importances: pooling, taking away, merging."""

import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from fedunlearn.errors import InputError, ShapeError
from fedunlearn.importance import Importance, measure, merge, pool
from fedunlearn.tensors import Head, equal

squares = arrays("float64", (2, 3), elements=st.floats(0, 1e6, allow_subnormal=False)).map(torch.from_numpy)
parts = st.tuples(squares, st.integers(0, 9)).map(lambda p: Importance({"squares": {"w": p[0]}}, p[1]))
evidence = squares.map(lambda t: {"w": t})


@given(parts, parts)
def test_pooling_commutes_to_the_bit(a: Importance, b: Importance) -> None:
    assert equal((a + b).sums["squares"], (b + a).sums["squares"])
    assert (a + b).count == a.count + b.count


@given(parts, parts)
def test_taking_a_part_away_gives_the_rest(a: Importance, b: Importance) -> None:
    rest = (a + b) - b
    assert torch.allclose(rest.sums["squares"]["w"], a.sums["squares"]["w"], rtol=1e-10, atol=1e-9 * 1e6)
    assert bool((rest.sums["squares"]["w"] >= 0).all())
    assert rest.count == a.count


def test_what_a_float32_net_says_of_a_part_can_be_taken_away() -> None:
    """In another order, with other batches, and where the rest has nothing of an input: all differ by rounding."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.ReLU(), torch.nn.Linear(20, 3))
    head, x, y = Head("2", ("0", "1", "2")), torch.randn(300, 30), torch.randint(0, 3, (300,))
    x[290:, :10] = 0
    whole, order = measure(net, x, y, head=head), torch.randperm(300)
    nothing = whole - measure(net, x[order], y[order], head=head)
    assert nothing.count == 0
    rest, again = whole - measure(net, x[:290], y[:290], head=head), measure(net, x[290:], y[290:], head=head)
    for name, tensor in rest.sums["squares"].items():
        assert float((tensor - again.sums["squares"][name]).norm()) < 1e-5 * float(whole.sums["squares"][name].norm())
    with pytest.raises(ShapeError, match="what is taken away was not part of the sum"):
        _ = whole - measure(net, 2 * x, y, head=head)


@given(evidence, evidence, evidence)
def test_merge_is_commutative_associative_idempotent_and_never_below_a_root(
    a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], c: dict[str, torch.Tensor]
) -> None:
    assert equal(merge([a, b]), merge([b, a]))
    assert equal(merge([merge([a, b]), c]), merge([a, merge([b, c])]))
    assert equal(merge([a, a]), a)
    assert bool((merge([a, b, c])["w"] >= torch.maximum(a["w"], b["w"])).all())


def test_merge_keeps_what_only_one_root_shares_and_leaves_its_parts_alone() -> None:
    a, b = {"w": torch.zeros(1)}, {"v": torch.ones(1)}
    merged = merge([a, b])
    merged["w"] += 1
    assert set(merged) == {"w", "v"}
    assert a["w"].item() == 0


def one(value: float, count: int = 1, name: str = "w") -> Importance:
    return Importance({"squares": {name: torch.tensor([value], dtype=torch.float64)}}, count)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_impossible_sums_are_refused(bad: float) -> None:
    with pytest.raises(ShapeError, match=r"squares of 'w' has (1 entries that are NaN or infinite|negative entries)"):
        one(bad)


def test_wrong_dtype_and_count_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"is torch.float32, expected torch.float64"):
        Importance({"squares": {"w": torch.zeros(1)}}, 1)
    with pytest.raises(ShapeError, match="count is -1"):
        one(1.0, -1)


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(ShapeError, match="names differ"):
        one(1.0) + one(1.0, name="v")
    with pytest.raises(ShapeError, match="statistics differ"):
        one(1.0) + Importance({"absolute": {"w": torch.zeros(1, dtype=torch.float64)}}, 1)
    with pytest.raises(ShapeError, match="would fall below zero; what is taken away was not part of the sum"):
        one(1.0, 2) - one(2.0, 1)
    with pytest.raises(ShapeError, match="count is -1"):
        one(1.0, 1) - one(1.0, 2)
    with pytest.raises(ShapeError, match="a mean over no samples"):
        one(1.0, 0).mean()
    with pytest.raises(InputError, match="unknown statistic 'square'; did you mean 'squares'"):
        one(1.0).mean("square")
    for empty in (pool, merge):
        with pytest.raises(ShapeError, match="nothing to"):
            empty([])
    with pytest.raises(ShapeError, match=r"'w' has shapes \(1,\) and \(2,\)"):
        merge([{"w": torch.zeros(1)}, {"w": torch.zeros(2)}])
