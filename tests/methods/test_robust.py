"""Merges over sites: a minority that lies moves them no further than the honest ones stand apart."""

import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from fedunlearn.methods import Evidence, FIUn, Steer
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


signed = arrays("float64", (3, 4), elements=st.floats(-1e3, 1e3)).map(torch.from_numpy)
lie_of_any_sign = arrays("float64", 4, elements=st.floats(-1e12, 1e12)).map(torch.from_numpy)


@given(honest=signed, lie=lie_of_any_sign, far=st.floats(0, 1e12))
def test_a_lying_site_is_bounded_in_the_way_and_in_how_far_of_each_class(
    honest: torch.Tensor, lie: torch.Tensor, far: float
) -> None:
    told = [Evidence({"w": v}, 5, "b", d) for v, d in zip(honest, (1.0, 2.0, 3.0), strict=True)]
    other = Evidence({"w": torch.ones(4, dtype=torch.float64)}, 5, "c", None)
    for how in ("median", "trimmed"):
        of_b, of_c = Steer(merging=how).merge([*told, Evidence({"w": lie}, 5, "b", far), other])
        assert (of_b.about, of_b.rows, of_c.about, of_c.enough) == ("b", 20, "c", None)
        assert 1.0 <= (of_b.enough or 0.0) <= 3.0
        w = of_b.means["w"]
        assert bool(((w >= honest.min(0).values - 1e-9) & (w <= honest.max(0).values + 1e-9)).all())
    clipped, _ = Steer(merging="clipped").merge([*told, Evidence({"w": lie}, 5, "b", far), other])
    assert float(clipped.means["w"].abs().sum()) <= float(honest.abs().sum(1).max()) * (1 + 1e-9) + 1e-9
    assert (clipped.enough or 0.0) <= 3.0


def test_a_site_has_one_vote_for_each_class_however_many_models_it_measured() -> None:
    a, b = (Evidence({"w": torch.full((2,), x)}, rows, "b", d) for x, rows, d in ((1.0, 10, 1.0), (4.0, 20, 4.0)))
    c = Evidence({"w": torch.ones(2)}, 5, "c", None)
    of_b, of_c = Steer(merging="median").vote([a, c, b])
    assert (of_b.about, of_b.rows, of_b.enough, of_b.means["w"].tolist()) == ("b", 30, 3.0, [3.0, 3.0])
    assert (of_c.about, of_c.rows, of_c.enough) == ("c", 5, None)
