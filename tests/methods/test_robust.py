"""Merges over sites: a minority that lies moves them no further than the honest ones stand apart."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedunlearn.methods import Evidence, FIUn
from fedunlearn.methods.robust import VOTES

sites = arrays("float64", (3, 4), elements=st.floats(0, 1e3)).map(torch.from_numpy)
lies = arrays("float64", 4, elements=st.floats(0, 1e12)).map(torch.from_numpy)


def merge(how: str, votes: list[torch.Tensor]) -> torch.Tensor:
    (found,) = FIUn(merging=how).merge([Evidence({"w": v}, 2) for v in votes])
    assert found.rows == 2 * len(votes)
    return found.means["w"]


@settings(max_examples=60)
@given(honest=sites, lie=lies, other=lies)
def test_a_lying_minority_is_bounded_by_the_honest(honest: torch.Tensor, lie: torch.Tensor, other: torch.Tensor) -> None:
    low, high = honest.min(0).values - 1e-9, honest.max(0).values + 1e-9
    assert ((merge("median", [*honest, lie, other]) >= low) & (merge("median", [*honest, lie, other]) <= high)).all()
    assert ((merge("trimmed", [*honest, lie]) >= low) & (merge("trimmed", [*honest, lie]) <= high)).all()
    assert merge("clipped", [*honest, lie, other]).sum() <= honest.sum(1).max() * (1 + 1e-9) + 1e-9


@given(honest=sites, lie=lies)
def test_the_order_of_sites_does_not_matter_and_one_alone_or_all_the_same_are_taken_at_their_word(
    honest: torch.Tensor, lie: torch.Tensor
) -> None:
    for how in VOTES:
        assert torch.allclose(merge(how, [*honest, lie]), merge(how, [lie, *honest.flip(0)]), rtol=1e-12, atol=1e-12)
        assert torch.equal(merge(how, [lie]), lie)
        assert torch.allclose(merge(how, [lie] * 4), lie, rtol=1e-12, atol=1e-12)


def test_tensors_of_any_size_and_shape_are_voted_on() -> None:
    """A layer of ten sites together is more than torch.quantile takes; a parameter may be a single number."""
    for shape in ((), (2**24 // 3 + 1,)):
        votes = [Evidence({"w": torch.full(shape, x)}, 1) for x in (1.0, 1.0, 9.0)]
        for how, expected in {"median": 1.0, "trimmed": 1.0, "clipped": 1.0}.items():
            (found,) = FIUn(merging=how).merge(votes)
            assert found.means["w"].shape == shape
            assert bool((found.means["w"] == expected).all())


def test_what_only_some_sites_have_is_voted_on_by_those() -> None:
    a = Evidence({"w": torch.tensor([1.0]), "v": torch.tensor([5.0])}, 1)
    b, c = (Evidence({"w": torch.tensor([x])}, 1) for x in (3.0, 8.0))
    (found,) = FIUn(merging="median").merge([a, b, c])
    assert {n: t.tolist() for n, t in found.means.items()} == {"w": [3.0], "v": [5.0]}
