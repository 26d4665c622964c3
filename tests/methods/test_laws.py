"""Laws that every method of the menu obeys."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedunlearn.methods import METHODS, Case, Evidence, Method, make
from fedunlearn.methods.calibration import KEPT, MOST
from fedunlearn.methods.menu import settings_of
from fedunlearn.tensors import equal
from tests.methods.cases import HEAD, cases, evidence_of

TRAINED = {"fine_tune", "gradient_ascent", "distil"}  # not one-shot: they train on rows, whatever the evidence
UNTOLD = TRAINED | {"random_mask", "fisher_noise"}  # they hear of nothing that is to be forgotten
MERGING = [n for n in METHODS if make(n).evidence is not None]


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=25)
@given(data=st.data())
def test_the_model_passed_in_stays_and_names_shapes_and_dtypes_stay(name: str, data: st.DataObject) -> None:
    method = make(name)
    weights, case = data.draw(cases(method, data.draw(st.integers(1, 2))))
    before = {n: t.clone() for n, t in weights.items()}
    some = method.strengths(case, MOST)[:: 1 if name not in TRAINED else 3]
    for strength in some:
        edited = method.edit(weights, case, strength)
        assert equal(weights, before)
        assert list(edited) == list(weights)
        assert {n: (t.shape, t.dtype) for n, t in edited.items()} == {n: (t.shape, t.dtype) for n, t in weights.items()}
        assert all(bool(torch.isfinite(t).all()) for t in edited.values())
        assert equal(method.edit(weights, case, strength), edited)  # the same again: nothing is drawn or kept in between


@pytest.mark.parametrize("name", [n for n in METHODS if n not in UNTOLD])
@settings(max_examples=25)
@given(data=st.data())
def test_forgetting_nothing_changes_nothing(name: str, data: st.DataObject) -> None:
    method = make(name)
    weights, case = data.draw(cases(method))
    zero = {n: torch.zeros_like(t) for one in case.evidence for n, t in one.means.items()}
    if name == "activation_mask":  # what is forgotten is as active as the rest
        zero = dict(case.own.means)
    nothing = Case(tuple(replace(e, means=zero) for e in case.evidence), case.own, HEAD, (), case.home)
    for strength in method.strengths(nothing, MOST):
        assert equal(method.edit(weights, nothing, strength), weights)


@pytest.mark.parametrize("name", METHODS)
def test_there_are_never_more_strengths_than_asked_for(name: str) -> None:
    @given(data=st.data())
    @settings(max_examples=10)
    def law(data: st.DataObject) -> None:
        method = make(name)
        _, case = data.draw(cases(method))
        for most in (MOST - 1, MOST, KEPT):
            assert 1 <= len(method.strengths(case, most)) <= most

    law()


@pytest.mark.parametrize("name", METHODS)
def test_a_name_with_its_settings_makes_the_method_again(name: str) -> None:
    method = make(name)
    assert make(name, settings_of(method)) == method
    assert make(name, {k: str(v) for k, v in settings_of(method).items()}) == method
    assert method.name == name


def edits_agree(method: Method, data: st.DataObject, one: list[Evidence], other: list[Evidence]) -> None:
    weights, case = data.draw(cases(method))
    first, second = (replace(case, evidence=method.merge(e)) for e in (one, other))
    for strength in method.strengths(first, 3):
        a, b = (method.edit(weights, c, strength) for c in (first, second))
        apart, moved = (
            sum(float((t.double() - w[n].double()).square().sum()) for n, t in a.items()) ** 0.5 for w in (b, weights)
        )
        assert apart <= 1e-3 * moved + 1e-6


@pytest.mark.parametrize("name", MERGING)
@settings(max_examples=25)
@given(data=st.data())
def test_the_order_of_roots_does_not_matter(name: str, data: st.DataObject) -> None:
    method = make(name)
    drawn = [evidence_of(data.draw, method, about) for about in ("b", "c", "b")]
    shuffled = random.Random(1).sample(drawn, 3)
    edits_agree(method, data, drawn, shuffled)


@pytest.mark.parametrize("name", MERGING)
@settings(max_examples=25)
@given(data=st.data())
def test_a_root_that_says_the_same_again_changes_nothing(name: str, data: st.DataObject) -> None:
    method = make(name)
    drawn = [evidence_of(data.draw, method, about) for about in ("b", "c")]
    edits_agree(method, data, drawn, [*drawn, *drawn])


@pytest.mark.parametrize("name", MERGING)
@settings(max_examples=15)
@given(data=st.data())
def test_what_is_not_shared_with_the_roots_stays_to_the_bit(name: str, data: st.DataObject) -> None:
    method = make(name)
    weights, case = data.draw(cases(method))
    kept = {"head.weight", "head.bias"}
    partial = tuple(replace(e, means={n: t for n, t in e.means.items() if n not in kept}) for e in case.evidence)
    for strength in method.strengths(replace(case, evidence=partial), 4):
        edited = method.edit(weights, replace(case, evidence=partial), strength)
        assert all(torch.equal(edited[n], weights[n]) for n in kept)


@pytest.mark.parametrize("name", MERGING)
def test_an_heir_that_shares_nothing_is_said_to_miss(name: str) -> None:
    method = make(name)
    nothing = Case(method.merge([Evidence({}, 1, "b", 1.0)]), Evidence(), HEAD, ("b",))
    assert "needs deeper layers" in str(method.misses(nothing))
