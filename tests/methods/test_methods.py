"""What each method's own equations say, and what is refused of names and settings."""

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from fedunlearn.data import Rows
from fedunlearn.errors import InputError
from fedunlearn.methods import Case, Evidence, FIUn, LogitMask, make
from fedunlearn.methods.base import Home
from fedunlearn.methods.damp import _apart
from fedunlearn.methods.dampening import dampen, thresholds
from fedunlearn.methods.masks import top, units, zeroed
from fedunlearn.tensors import Head

HEAD = Head("head", ("a", "b", "c"))
values = arrays("float32", (3, 2), elements=st.floats(-4, 4, width=32)).map(torch.from_numpy)
importances = arrays("float64", (3, 2), elements=st.floats(0, 1e3, allow_subnormal=False)).map(torch.from_numpy)


@settings(max_examples=50)
@given(data=st.data(), alpha=st.floats(0, 20), lam=st.floats(0, 2))
def test_dampening_is_equations_3_and_4_of_ssd(data: st.DataObject, alpha: float, lam: float) -> None:
    weights, evidence, own = data.draw(values), data.draw(importances), data.draw(importances)
    edited = dampen({"body": weights}, {"body": evidence}, {"body": own}, alpha, lam)["body"]
    for i, w in enumerate(weights.flatten().tolist()):
        m, f = float(evidence.flatten()[i]), float(own.flatten()[i])
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
    a, b = Evidence({"w": torch.tensor([1.0, 5.0])}, 3), Evidence({"w": torch.tensor([2.0, 3.0])}, 5)
    for how, expected in {"max": [2.0, 5.0], "mean": [1.5, 4.0], "sum": [3.0, 8.0]}.items():
        (merged,) = FIUn(merging=how).merge([a, b])
        assert merged.means["w"].tolist() == expected
    with pytest.raises(InputError, match="unknown merging 'maximum'; did you mean 'max'"):
        FIUn(merging="maximum")


def test_the_mask_makes_a_class_lose_whatever_the_input() -> None:
    weights = {"head.weight": torch.randn(3, 2), "head.bias": torch.randn(3)}
    edited = make("logit_mask").edit(weights, Case((), Evidence(), HEAD, ("b",)), {})
    out = torch.randn(100, 2) * 50 @ edited["head.weight"].T + edited["head.bias"]
    assert not (out.argmax(1) == 1).any()
    assert torch.equal(edited["head.weight"][[0, 2]], weights["head.weight"][[0, 2]])


def test_the_mask_says_when_it_cannot() -> None:
    weights = {"head.weight": torch.randn(3, 2)}
    with pytest.raises(InputError, match="all 3 outputs would be masked; retire the model"):
        make("logit_mask").edit(weights, Case((), Evidence(), HEAD, ("a", "b", "c")), {})
    with pytest.raises(InputError, match="the head 'head' has no bias"):
        make("logit_mask").edit(weights, Case((), Evidence(), HEAD, ("a",)), {})
    assert "no output to mask" in str(make("logit_mask").misses(Case((), Evidence(), HEAD, ("z",))))
    assert "retire the model" in str(make("logit_mask").misses(Case((), Evidence(), HEAD, ("a", "b", "c"))))
    assert make("logit_mask").misses(Case((), Evidence(), HEAD, ("a", "z"))) is None


class Nameless(LogitMask):
    """A method whose author forgot its name."""

    name = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Numbered(LogitMask):
    """A method whose author checks no setting."""

    many: int = 1
    limit: float | None = None
    free: float | Literal["auto"] = "auto"
    odd: tuple[int, ...] = ()
    name = "numbered"


OWN = "tests.methods.test_methods:Numbered"


@pytest.mark.parametrize(
    ("name", "given_", "message"),
    [
        ("lfssd", {"per_heir": "0"}, "method lfssd: per_heir is '0', expected true or false"),
        ("ssd", {"per_heir": "maybe"}, "method ssd: per_heir is 'maybe', expected true or false"),
        ("random_mask", {"seed": "x"}, "method random_mask: seed is 'x', expected a whole number"),
        ("fine_tune", {"lr": "abc"}, "method fine_tune: lr is 'abc', expected a number"),
        (OWN, {"many": "2.5"}, f"method {OWN}: many is '2.5', expected a whole number"),
        (OWN, {"limit": "much"}, f"method {OWN}: limit is 'much', expected a number or none"),
        ("fiunn", {}, "unknown method 'fiunn'; did you mean 'fiun'"),
        ("fiun", {"alhpa": 1}, "method fiun: unknown setting 'alhpa'; did you mean 'alpha'"),
        ("fiun", {"alpha": "much"}, "alpha is 'much', expected a number from 0 up, or 'auto' or 'percentile'"),
        ("fiun", {"lam": -1}, "lam is -1, expected a number from 0 up"),
        ("fiun", {"alpha": "nan"}, "alpha is nan"),
        ("logit_mask", {"alpha": 1}, "method logit_mask: unknown setting 'alpha'"),
        ("fedunlearn.methods:Method", {}, "cannot be made: Can't instantiate abstract class"),
        ("tests.methods.test_methods:Nameless", {}, 'has no name; give its class one, such as name = "nameless"'),
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
    assert make("lfssd", {"per_heir": "True"}) == make("lfssd", {"per_heir": True})
    assert make(OWN, {"many": "3", "limit": "2", "free": "auto"}) == Numbered(many=3, limit=2.0)
    assert make(OWN, {"limit": "None"}) == Numbered()
    assert make(OWN, {"odd": "1,2"}) == Numbered(odd="1,2")  # type: ignore[arg-type]  # what is neither is the method's to read


def test_the_percentile_is_that_of_assd() -> None:
    m = torch.arange(1.0, 1002.0, dtype=torch.float64)
    case = Case((Evidence({"w": m}, 50),), Evidence({"w": torch.ones_like(m)}, 500), HEAD, ("b",))
    (strength,) = make("fiun", {"alpha": "percentile"}).strengths(case)
    assert strength["lam"] == 1
    assert strength["alpha"] == pytest.approx(float(np.percentile(m.numpy(), 100 - math.log(1 + 100 * 50 / 500))), abs=1.0)


def test_projected_outputs_do_not_see_the_class_and_a_collapsed_net_keeps_the_others() -> None:
    """On a simplex: rows of the class get equal outputs, and the others keep their order with margins to spare."""
    simplex = torch.eye(3) - 1 / 3
    weights = {"head.weight": simplex, "head.bias": torch.zeros(3)}
    edited = make("pour").edit(weights, Case((), Evidence(), HEAD, ("b",)), {})
    out = simplex @ edited["head.weight"].T
    assert torch.allclose(out[1], torch.zeros(3), atol=1e-6)
    assert out[[0, 2]].argmax(1).tolist() == [0, 2]
    both = make("pour").edit(weights, Case((), Evidence(), HEAD, ("a", "b")), {})
    assert torch.allclose(both["head.weight"], torch.zeros(3, 3), atol=1e-6)  # of a simplex of three, two span all


def test_damp_takes_the_way_that_only_the_class_goes_and_keeps_what_is_made_of_the_others() -> None:
    """Rows that are their prototypes are told apart perfectly, so that all of the direction goes."""
    prototypes = torch.eye(4)[:3] + 0.3
    net = torch.nn.Sequential()
    net.add_module("body", torch.nn.Linear(4, 4))
    net.add_module("head", torch.nn.Linear(4, 3))
    weights = {n: t.detach().clone() for n, t in net.state_dict().items()}

    def rows(*labels: int) -> Rows:
        y = torch.tensor(labels)
        return Rows(prototypes[y], y, tuple(map(str, range(len(y)))), HEAD.classes)

    case = Case((), Evidence(), HEAD, ("b",), Home(deepcopy(net).eval(), rows(1, 1), rows(0, 2, 0)))
    edited = make("damp").edit(weights, case, {})
    assert {n for n in weights if not torch.equal(edited[n], weights[n])} == {"body.weight", "head.weight"}
    before, after = (prototypes @ w["body.weight"].T for w in (weights, edited))
    assert torch.allclose(after[[0, 2]], before[[0, 2]], atol=1e-5)
    spanned = prototypes[[0, 2]].T @ torch.linalg.lstsq(prototypes[[0, 2]].T, prototypes[1]).solution
    assert torch.allclose(after[1], edited["body.weight"] @ spanned, atol=1e-5)  # it is taken for its share in the others


def test_damp_scales_with_how_well_the_sides_are_told_apart() -> None:
    x = torch.tensor([[0.0, 0.0], [0.0, 2.0], [1.0, 0.0], [1.0, 2.0]])
    for far, scale in ((torch.tensor([5.0, 0.0]), 1.0), (torch.tensor([0.0, 0.0]), 0.0)):
        assert _apart(x + far, x, (x + far).mean(0, keepdim=True), x.mean(0, keepdim=True)) == scale


def test_masks_take_the_units_with_the_highest_scores_over_all_layers() -> None:
    scores = {"a": torch.tensor([[5.0, 1.0], [-1.0, 4.0]]), "b": torch.tensor([3.0, 2.0, -7.0, 0.0])}
    chosen = top(scores, 3 / 8)
    assert chosen["a"].tolist() == [[True, False], [False, True]]
    assert chosen["b"].tolist() == [True, False, False, False]
    assert sum(int(t.sum()) for t in top(scores, 1.0).values()) == 5  # those at or below 0 never
    kernels = torch.randn(2, 3, 4, 4)
    assert torch.allclose(units(kernels), kernels.mean((2, 3)))
    masked = zeroed({"w": kernels}, {"w": torch.tensor([[True, False, False], [False, False, True]])})["w"]
    assert float(masked[0, 0].abs().max() + masked[1, 2].abs().max()) == 0
    assert torch.equal(masked[0, 1:], kernels[0, 1:])


def test_silencing_a_channel_silences_its_batch_norm() -> None:
    conv, norm, last = torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(3, 3)
    net = torch.nn.Sequential()
    for name, part in {"conv": conv, "norm": norm, "pool": torch.nn.AdaptiveAvgPool2d(1), "flat": torch.nn.Flatten(),
                       "head": last}.items():  # fmt: skip
        net.add_module(name, part)
    torch.nn.init.normal_(norm.bias)
    net.eval()
    weights = {n: t.detach().clone() for n, t in net.state_dict().items()}
    told = (Evidence({"conv.weight": torch.tensor([0.0, 2.0, 0.0]).double()}, 1),)
    own = Evidence({"conv.weight": torch.zeros(3).double()}, 1)
    edited = make("activation_mask").edit(weights, Case(told, own, HEAD, ("b",)), {"ratio": 1 / 3})
    net.load_state_dict(edited)
    with torch.no_grad():
        out = norm(conv(torch.randn(5, 2, 6, 6)))
    assert float(out[:, 1].abs().max()) == 0
    assert float(out[:, [0, 2]].abs().min()) > 0
    changed = {n for n in weights if not torch.equal(edited[n], weights[n])}
    assert changed == {"conv.weight", "conv.bias", "norm.weight", "norm.bias"}


def test_fisher_mask_scores_what_matters_to_the_forgotten_and_not_to_the_rest() -> None:
    weights = {"body.weight": torch.ones(2, 2), "head.weight": torch.ones(3, 2), "head.bias": torch.ones(3)}
    forgotten = {"body.weight": torch.tensor([[9.0, 1.0], [8.0, 0.0]]).double(), "head.bias": torch.full((3,), 99.0).double()}
    rest = {"body.weight": torch.tensor([[8.5, 0.0], [0.0, 5.0]]).double(), "head.bias": torch.zeros(3).double()}
    case = Case((Evidence(forgotten, 1),), Evidence(rest, 1), HEAD, ("b",))
    edited = make("fisher_mask").edit(weights, case, {"ratio": 0.5})
    assert edited["body.weight"].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert torch.equal(edited["head.bias"], weights["head.bias"])  # biases stay


def test_training_backwards_moves_no_further_than_its_steps_however_large_the_gradients_are() -> None:
    """Unbounded, two layers and inputs this large reach infinity within the first steps."""
    torch.manual_seed(0)
    net = torch.nn.Sequential()
    net.add_module("body", torch.nn.Linear(2, 8))
    net.add_module("head", torch.nn.Linear(8, 3))
    weights = {n: t.detach().clone() for n, t in net.state_dict().items()}
    x = 1e4 * torch.randn(256, 2)
    forgotten = Rows(x, torch.zeros(256, dtype=torch.int64), tuple(map(str, range(256))), HEAD.classes)
    case = Case((), Evidence(), HEAD, ("a",), Home(deepcopy(net).eval(), forgotten, Rows.empty(HEAD.classes)))
    edited = make("gradient_ascent").edit(weights, case, {"steps": 24})
    moved = math.sqrt(sum(float((edited[n] - t).square().sum()) for n, t in weights.items()))
    assert 0 < moved <= 12 * 2 * 0.02 / (1 - 0.9) * 1.01  # steps of at most lr, by momentum at most ten times as long; decay
