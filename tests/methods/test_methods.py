"""Laws that every method obeys, and what each one's own equations say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedunlearn.errors import InputError
from fedunlearn.methods import METHODS, Case, FIUn, calibrate, make
from fedunlearn.methods.dampening import dampen, thresholds
from fedunlearn.methods.menu import settings_of
from fedunlearn.tensors import Head, equal

HEAD = Head("head", ("a", "b", "c"))
values = arrays("float32", (3, 2), elements=st.floats(-4, 4, width=32)).map(torch.from_numpy)
importances = arrays("float64", (3, 2), elements=st.floats(0, 1e3, allow_subnormal=False)).map(torch.from_numpy)


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, torch.Tensor], Case]:
    weights = {"head.weight": draw(values), "head.bias": torch.zeros(3), "body": draw(values), "steps": torch.tensor(4)}
    evidence, own = ({n: draw(importances) for n in ("head.weight", "body")} for _ in range(2))
    return weights, Case(evidence, own, HEAD, ("b",))


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=30)
@given(data=st.data())
def test_the_model_passed_in_stays_and_names_shapes_and_dtypes_stay(name: str, data: st.DataObject) -> None:
    weights, case = data.draw(cases())
    before = {n: t.clone() for n, t in weights.items()}
    method = make(name)
    for strength in method.strengths(case):
        edited = method.edit(weights, case, strength)
        assert equal(weights, before)
        assert {n: (t.shape, t.dtype) for n, t in edited.items()} == {n: (t.shape, t.dtype) for n, t in weights.items()}
        assert all(bool(torch.isfinite(t).all()) for t in edited.values())


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=30)
@given(data=st.data())
def test_forgetting_nothing_changes_nothing(name: str, data: st.DataObject) -> None:
    weights, case = data.draw(cases())
    nothing = Case({n: torch.zeros_like(t) for n, t in case.evidence.items()}, case.own, HEAD, ())
    method = make(name)
    for strength in method.strengths(nothing):
        assert equal(method.edit(weights, nothing, strength), weights)


@pytest.mark.parametrize("name", METHODS)
def test_a_name_with_its_settings_makes_the_method_again(name: str) -> None:
    method = make(name)
    assert make(name, settings_of(method)) == method


@settings(max_examples=50)
@given(data=st.data(), alpha=st.floats(0, 20), lam=st.floats(0, 2))
def test_dampening_is_equations_3_and_4_of_ssd(data: st.DataObject, alpha: float, lam: float) -> None:
    weights, case = data.draw(cases())
    edited = dampen(weights, case.evidence, case.own, alpha, lam)["body"]
    for i, w in enumerate(weights["body"].flatten().tolist()):
        m, f = float(case.evidence["body"].flatten()[i]), float(case.own["body"].flatten()[i])
        expected = w * min(lam * f / m, 1.0) if m > alpha * f else w
        assert float(edited.flatten()[i]) == pytest.approx(expected, rel=1e-6, abs=1e-30)


def test_weights_without_evidence_stay_to_the_bit() -> None:
    weights = {"w": torch.randn(4), "v": torch.randn(4)}
    one = {"w": torch.ones(4, dtype=torch.float64)}
    edited = dampen(weights, one, {"w": one["w"] * 0.1, "v": one["w"]}, 1.0, 1.0)
    assert torch.equal(edited["v"], weights["v"])
    assert torch.allclose(edited["w"], weights["w"] * 0.1)


@given(arrays("float64", 50, elements=st.floats(1e-3, 1e3), unique=True))
def test_thresholds_select_more_and_more_weights_up_to_all(ratio: object) -> None:
    m = torch.as_tensor(ratio)
    alphas = thresholds({"w": m}, {"w": torch.ones_like(m)}, 8)
    selected = [int((m > a).sum()) for a in alphas]
    assert selected == sorted(set(selected))
    assert selected[0] == 1
    assert selected[-1] == 50


def test_merged_evidence_of_two_roots_is_the_maximum() -> None:
    a, b = {"w": torch.tensor([1.0, 5.0])}, {"w": torch.tensor([2.0, 3.0])}
    assert FIUn().merge([a, b])["w"].tolist() == [2.0, 5.0]


def test_the_mask_makes_a_class_lose_whatever_the_input() -> None:
    weights = {"head.weight": torch.randn(3, 2), "head.bias": torch.randn(3)}
    edited = make("logit_mask").edit(weights, Case({}, {}, HEAD, ("b",)), {})
    out = torch.randn(100, 2) * 50 @ edited["head.weight"].T + edited["head.bias"]
    assert not (out.argmax(1) == 1).any()
    assert torch.equal(edited["head.weight"][[0, 2]], weights["head.weight"][[0, 2]])


def test_the_mask_says_when_it_cannot() -> None:
    weights = {"head.weight": torch.randn(3, 2)}
    with pytest.raises(InputError, match="all 3 outputs would be masked; retire the model"):
        make("logit_mask").edit(weights, Case({}, {}, HEAD, ("a", "b", "c")), {})
    with pytest.raises(InputError, match="the head 'head' has no bias"):
        make("logit_mask").edit(weights, Case({}, {}, HEAD, ("a",)), {})
    assert "no output to mask" in str(make("logit_mask").misses(Case({}, {}, HEAD, ("z",))))
    assert "retire the model" in str(make("logit_mask").misses(Case({}, {}, HEAD, ("a", "b", "c"))))
    assert make("logit_mask").misses(Case({}, {}, HEAD, ("a", "z"))) is None


@pytest.mark.parametrize(
    ("name", "given_", "message"),
    [
        ("fiunn", {}, "unknown method 'fiunn'; did you mean 'fiun'"),
        ("fiun", {"alhpa": 1}, "method fiun: unknown setting 'alhpa'; did you mean 'alpha'"),
        ("fiun", {"alpha": "much"}, "alpha is 'much', expected a number from 0 up, or 'auto'"),
        ("fiun", {"lam": -1}, "lam is -1, expected a number from 0 up"),
        ("fiun", {"alpha": "nan"}, "alpha is nan"),
        ("logit_mask", {"alpha": 1}, "method logit_mask: unknown setting 'alpha'"),
        ("fedunlearn.methods:Method", {}, "cannot be made: Can't instantiate abstract class"),
        ("torch:nn", {}, "is a module, expected something to call"),
        ("torch:Tensor", {}, "expected a subclass of fedunlearn.methods.Method"),
    ],
)
def test_wrong_methods_are_refused(name: str, given_: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(name, given_)


def test_settings_may_come_as_text() -> None:
    assert make("fiun", {"alpha": "3.5", "layers": "last"}) == FIUn(alpha=3.5, layers="last")
    assert make("fiun", {"layers": "1"}) == FIUn(layers="1")


CURVE = {
    1: (0.9, 0.95, 0.1),
    2: (0.5, 0.95, 0.2),
    3: (0.04, 0.92, 0.3),
    4: (0.0, 0.88, 0.4),
    5: (0.0, 0.6, 0.5),
    6: (0.9, 0.95, 0.15),
}
STRENGTHS = [{"step": float(s)} for s in reversed(CURVE)]


def step(
    aim: float | None, before: tuple[float | None, float | None] = (0.9, 0.95), limits: tuple[float, float] = (1.0, 1.0)
) -> float:
    choice = calibrate(STRENGTHS, lambda s: CURVE[int(s["step"])], before, aim, limits)
    assert len(choice.curve) == len(CURVE)
    return choice.strength["step"]


def test_calibration_takes_what_forgets_at_the_least_cost_and_of_equals_the_smaller_edit() -> None:
    assert step(0.0) in (3, 4)
    assert step(0.5) == 2
    assert step(0.9) == 1


def test_calibration_prefers_what_the_gate_would_let_pass() -> None:
    better = {1: (0.04, 0.91, 0.1), 2: (0.0, 0.88, 0.2)}
    strengths = [{"step": 1.0}, {"step": 2.0}]

    def chosen(limits: tuple[float, float]) -> float:
        return calibrate(strengths, lambda s: better[int(s["step"])], (0.9, 0.95), 0.0, limits).strength["step"]

    assert chosen((1.0, 1.0)) == 2
    assert chosen((0.05, 0.05)) == 1


def test_without_rows_of_the_class_it_bounds_the_damage_and_takes_the_largest_edit_within() -> None:
    assert step(None) == 2
    assert step(0.0, (None, 0.95)) == 2


def test_a_single_strength_is_taken_as_given() -> None:
    choice = calibrate([{"alpha": 2.0}], lambda _: pytest.fail("not to be scored"), (0.9, 0.9), 0.0)
    assert choice.rule == "given"
