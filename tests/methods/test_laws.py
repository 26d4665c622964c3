"""Laws that every method of the menu obeys, and that they would find what breaks them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from fedunlearn.methods import METHODS, Case, Evidence, Method, Want, laws, make
from fedunlearn.methods.base import FORGOTTEN_AT_HEIRS, RETAINED_AT_HEIRS, Strength
from fedunlearn.methods.laws import LAWS, Law
from fedunlearn.tensors import Tensors

UNTOLD = {"random_mask", "fisher_noise"}  # baselines that hear of nothing that is to be forgotten


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_obeys(name: str, law: Law) -> None:
    if name in UNTOLD and law is laws.forgetting_nothing_changes_nothing:
        with pytest.raises(AssertionError, match="nothing was to be forgotten"):
            law(make(name))
    else:
        law(make(name))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    "settings",
    [{"weigh": "fisher", "share": 0.3}, {"weigh": "none"}, {"layers": "all", "share": 0.3}, {"merging": "median"}],
    ids=str,
)
def test_steer_obeys_with_other_settings(settings: dict[str, Any], law: Law) -> None:
    law(make("steer", settings))


@pytest.mark.parametrize("name", METHODS)
def test_a_name_with_its_settings_makes_the_method_again(name: str) -> None:
    method = make(name)
    assert make(name, laws.settings_of(method)) == method
    assert method.name == name


@dataclass(frozen=True)
class Scaled(Method):
    """Weights times a number where there is evidence: obeys. Its parts can be replaced by broken ones."""

    by: float = 0.5
    name = "scaled"
    evidence = Want("squares")
    own = None

    def merge(self, evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
        return (max(evidence, key=lambda e: (e.rows, float(sum(t.sum() for t in e.means.values())))),)

    def misses(self, case: Case) -> str | None:
        return None if case.merged else "nothing here"

    def strengths(self, case: Case) -> Sequence[Strength]:
        return [{"by": self.by}]

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
        return {
            n: torch.where(case.merged[n] > 0, t * strength["by"], t) if n in case.merged else t for n, t in weights.items()
        }


def in_place(self: Method, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
    for tensor in weights.values():
        tensor.mul_(1).add_(1)
    return dict(weights)


def drawn(self: Method, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
    return {n: t + torch.rand(()) if t.is_floating_point() else t for n, t in weights.items()}


def kept_at_home(self: Method, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
    """Drawn once, and remembered where trainings are."""
    assert case.home is not None
    key: Any = "drawn"
    if key not in case.home.begun:
        case.home.begun[key] = drawn(self, weights, case, strength)  # type: ignore[assignment]
    return case.home.begun[key]  # type: ignore[return-value]


@dataclass(frozen=True)
class Forgetful(Scaled):
    """A setting that does not come out as it went in."""

    others: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", self.by / 2)


def summed(self: Method, evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    return (Evidence({n: sum((e.means[n] for e in evidence), torch.zeros(())) for n in evidence[0].means}),)


def into_the_first(self: Method, evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """A maximum that saves memory."""
    for e in evidence[1:]:
        for n, t in e.means.items():
            evidence[0].means[n].copy_(torch.maximum(evidence[0].means[n], t))
    return (evidence[0],)


def by_evidence(self: Method, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
    return {n: t + case.merged[n].float() if n in case.merged else t for n, t in weights.items()}


def remembering(self: Method, evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """What an edit elsewhere will not know."""
    object.__setattr__(self, "seen", len(evidence))
    return tuple(evidence[:1])


def as_remembered(self: Method, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
    return times(weights, 1.0 + getattr(self, "seen", 0))


def times(weights: Tensors, by: float) -> dict[str, torch.Tensor]:
    return {n: t * by if n.endswith(("weight", "bias")) else t for n, t in weights.items()}


def lowered(weights: Tensors, output: int) -> dict[str, torch.Tensor]:
    bias = weights["head.bias"].clone()
    bias[output] -= 1
    return {**weights, "head.bias": bias}


RETAINED: Any = frozenset({RETAINED_AT_HEIRS})
PURE, NOTHING, LINE, ANEW, ORDER, AGAIN, MERGE, COUNTS, CLASSES, OUTPUTS, SAMPLES, SAYS, SHARED, MISSES = LAWS
BREAKS: list[tuple[Law, str, dict[str, Any]]] = [
    (PURE, "the weights passed in were changed", {"edit": in_place}),
    (PURE, "the same edit again gave another model", {"edit": drawn}),
    (PURE, "the same edit again gave another model", {"edit": kept_at_home, "needs": RETAINED}),
    (PURE, "names are ", {"edit": lambda s, w, c, k: {n: t for n, t in w.items() if n != "head.bias"}}),
    (PURE, "was .*float32", {"edit": lambda s, w, c, k: {n: t.double() for n, t in w.items()}}),
    (PURE, "head.bias is not finite", {"edit": lambda s, w, c, k: {**w, "head.bias": w["head.bias"] / 0}}),
    (PURE, "what was measured was changed", {"edit": lambda s, w, c, k: [t.add_(1) for t in c.merged.values()] and dict(w)}),
    (NOTHING, "nothing was to be forgotten", {"edit": lambda s, w, c, k: {**w, "body.weight": w["body.weight"] + 1}}),
    (LINE, "there is no strength", {"strengths": lambda s, c: []}),
    (LINE, "edits more than .*, behind it", {"strengths": lambda s, c: [{"by": 0.5}, {"by": 0.9}]}),
    (ORDER, "in another order", {"merge": lambda s, evidence: tuple(evidence[:1]), "edit": by_evidence}),
    (AGAIN, "the same evidence twice", {"merge": summed, "edit": by_evidence}),
    (MERGE, "its merge changed the evidence", {"merge": into_the_first}),
    (MERGE, "its merge changed the evidence", {"merge": lambda s, evidence: (evidence.pop(),)}),
    (LINE, "a strength is '0.5'", {"strengths": lambda s, c: [{"by": "0.5"}]}),
    (LINE, "a strength is tensor", {"strengths": lambda s, c: [{"by": torch.tensor(0.5)}]}),
    (ANEW, "made again, it gives another edit", {"merge": remembering, "edit": as_remembered}),
    (COUNTS, "ten times as many rows", {"edit": lambda s, w, c, k: times(w, c.evidence[0].rows)}),
    (COUNTS, "ten times as many rows", {"own": Want("squares"), "edit": lambda s, w, c, k: times(w, c.own.rows)}),
    (CLASSES, "the same classes in another order", {"edit": lambda s, w, c, k: lowered(w, c.head.classes.index(c.classes[0]))}),
    (CLASSES, "names differ where", {"edit": lambda s, w, c, k: {} if "z" in c.classes else dict(w)}),
    (OUTPUTS, "outputs in another order", {"edit": lambda s, w, c, k: lowered(w, 1)}),
    (OUTPUTS, "outputs in another order", {"edit": lambda s, w, c, k: lowered(w, sorted(c.head.classes).index("b"))}),
    (SAMPLES, "samples are to be forgotten", {"edit": lambda s, w, c, k: times(w, 1 if c.classes else float("nan"))}),
    (SAYS, "wants", {"wants": lambda s, classes: Want("sqares")}),
    (SAYS, "wants", {"wants": lambda s, classes: "squares" if not classes else Want("squares")}),
    (SAYS, "misses says False", {"misses": lambda s, c: not c.merged}),
    (SAYS, "strength that is sent", {"sent": lambda s, c: {"by": -1.0}, "edit": lambda s, w, c, k: w if k["by"] > 0 else {}}),
    (SAYS, "enough is -1", {"enough": lambda *_: -1.0}),
    (SHARED, "head.bias.* changed", {"edit": lambda s, w, c, k: {**w, "head.bias": w["head.bias"] + bool(c.merged)}}),
    (SHARED, "body.weight.* changed", {"edit": lambda s, w, c, k: {**w, "body.weight": w["body.weight"] + bool(c.merged)}}),
    (
        SHARED,
        "norm.running_mean.* changed",
        {"edit": lambda s, w, c, k: {**w, "norm.running_mean": w["norm.running_mean"] + 1}},
    ),
    (SHARED, "body.weight.* changed", {"layers": "last", "edit": lambda s, w, c, k: times(w, 2.0)}),
    (MISSES, "it misses nothing", {"misses": lambda s, c: None}),
]


def test_what_keeps_the_laws_passes() -> None:
    for law in LAWS:
        law(Scaled())


@pytest.mark.parametrize(("law", "broken", "wrong"), BREAKS)
def test_what_breaks_a_law_is_found(law: Law, broken: str, wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for part, how in wrong.items():
        monkeypatch.setattr(Scaled, part, how)
    with pytest.raises(AssertionError, match=broken):
        law(Scaled())


def homed(needs: frozenset[str], weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
    """Adds what the rows there say; fails without a home, and without a row of what is needed."""
    assert case.home is not None, "no home"
    for rows, need in ((case.home.forgotten, FORGOTTEN_AT_HEIRS), (case.home.retained, RETAINED_AT_HEIRS)):
        assert (len(rows) > 0) == (need in needs), f"rows of {need}: {len(rows)}"
    return {n: t + 1 if t.is_floating_point() else t for n, t in weights.items()}


@pytest.mark.parametrize("needs", [{FORGOTTEN_AT_HEIRS}, {RETAINED_AT_HEIRS}, {FORGOTTEN_AT_HEIRS, RETAINED_AT_HEIRS}])
def test_a_method_has_the_home_that_it_says_it_needs_and_no_other(needs: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    said = frozenset(needs)
    monkeypatch.setattr(Scaled, "edit", lambda self, *args: homed(said, *args))
    with pytest.raises(AssertionError, match="no home"):
        PURE(Scaled())
    monkeypatch.setattr(Scaled, "needs", said)
    PURE(Scaled())


def test_settings_that_come_out_otherwise_are_found() -> None:
    with pytest.raises(AssertionError, match="make Forgetful"):
        laws.its_settings_make_it_again(Forgetful())
