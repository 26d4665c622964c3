"""Laws that every method obeys, as functions that a test suite calls with a method; they need no test framework.

    @pytest.mark.parametrize("law", LAWS)
    def test_mine_obeys(law):
        law(Mine())

Each law goes through small heirs, drawn by seeds: weights, evidence in the shapes and signs that the method asks for, and
a home with the rows that it says it `needs`, as in earnest. One that is broken is an AssertionError in words.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from fedunlearn.data import Rows
from fedunlearn.methods.base import AT_HEIRS, Case, Evidence, Home, Method, Strength, Want
from fedunlearn.methods.calibration import evenly
from fedunlearn.methods.menu import make, settings_of
from fedunlearn.nets import load
from fedunlearn.tensors import Head, Tensors, equal

SEEDS = range(25)
HEAD = Head("head", ("a", "b", "c"))  # of the heirs; b is to be forgotten
SHAPES = {"body.weight": (2, 2), "norm.weight": (2,), "norm.bias": (2,), "head.weight": (3, 2), "head.bias": (3,)}
BUFFERS = {"norm.running_mean": torch.zeros(2), "norm.running_var": torch.ones(2), "norm.num_batches_tracked": torch.tensor(4)}
BLANK = 0.1  # how many tensors, and how many entries of the others, are zero
CLOSE = 1e-3  # of the edit: what rounding may do to it
Law = Callable[[Method], None]


class Net(nn.Module):
    """A layer, a BatchNorm, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [N, 3] of inputs [N, 2]."""
        out: Tensor = self.head(torch.relu(self.norm(self.body(x))))
        return out


class Draw:
    """Small heirs of a method, by a seed."""

    def __init__(self, method: Method, seed: int) -> None:
        self.method, self.generator = method, torch.Generator().manual_seed(seed)

    def numbers(self, shape: Sequence[int], low: int, high: int) -> Tensor:
        """Float64 in thousandths, some of them 0: numbers so small that their squares vanish tell nothing about a method."""
        found = torch.randint(1000 * low, 1000 * high + 1, tuple(shape), generator=self.generator).double() / 1000
        blank = torch.rand(tuple(shape), generator=self.generator) < BLANK
        return found.masked_fill(blank | (torch.rand((), generator=self.generator) < BLANK), 0.0)

    def weights(self) -> dict[str, Tensor]:
        """Of a `Net`, in its own order."""
        drawn = {n: self.numbers(s, -4, 4).float() for n, s in SHAPES.items()}
        return {n: (drawn | BUFFERS)[n].clone() for n in Net().state_dict()}

    def means(self, want: Want | None) -> dict[str, Tensor]:
        """Of a statistic, in its own shapes and signs."""
        if want is None:
            return {}
        if want.statistic == "activation":
            return {n: self.numbers(s[:1], -5, 5) for n, s in SHAPES.items() if len(s) == 2}
        if want.statistic == "moment":
            inputs = {"body.weight": self.numbers((4, 2), -3, 3), "head.weight": self.numbers((4, 3), -3, 3)}
            return {n: h.T @ h / len(h) for n, h in inputs.items()}
        low, high = (-3, 3) if want.statistic == "sum" else (0, 1000)
        return {n: self.numbers(s, low, high) for n, s in SHAPES.items()}

    def evidence(self, about: str) -> Evidence:
        """Of one root, about a class where the method keeps classes apart."""
        rows = int(torch.randint(1, 51, (), generator=self.generator))
        enough = float(self.numbers((), 0, 20).abs()) + 0.1 if self.method.apart else None
        return Evidence(self.means(self.method.evidence), rows, about if self.method.apart else "", enough)

    def home(self, weights: Tensors) -> Home | None:
        """Rows at the heir, those that the method needs; none where it needs none."""

        def rows(labels: Sequence[int]) -> Rows:
            x = self.numbers((len(labels), 2), -2, 2).float()
            return Rows(x, torch.tensor(labels), tuple(map(str, range(len(labels)))), HEAD.classes)

        net = load(Net(), weights).eval()
        return Home.granted(self.method.needs, net, rows([1, 1]), rows([0, 2, 0, 2]))

    def heir(self, abouts: Sequence[str] = ("b",)) -> tuple[dict[str, Tensor], Case]:
        """An heir that is to forget class b, as the method sees it after its merge."""
        weights = self.weights()
        evidence = [self.evidence(about) for about in abouts] if self.method.evidence else []
        own = Evidence(self.means(self.method.own), int(torch.randint(1, 501, (), generator=self.generator)))
        return weights, Case(self.method.merge(evidence) if evidence else (), own, HEAD, ("b",), self.home(weights))


def what_is_passed_in_stays_and_names_shapes_and_dtypes_stay(method: Method) -> None:
    """An edit is a pure function: the same again gives the same, and all of it is finite."""
    for seed in SEEDS:
        weights, case = Draw(method, seed).heir(("b",) * (1 + seed % 2))
        before = {n: t.clone() for n, t in weights.items()}
        measured = [*(e.means for e in case.evidence), case.own.means]
        kept = [{n: t.clone() for n, t in means.items()} for means in measured]
        for strength in _some(method, case):
            edited = method.edit(weights, case, strength)
            _demand(equal(weights, before), method, seed, "the weights passed in were changed")
            _demand(all(map(equal, measured, kept)), method, seed, "what was measured was changed")
            _demand(list(edited) == list(weights), method, seed, f"names are {list(edited)}, were {list(weights)}")
            for name, tensor in edited.items():
                is_, was = ((tuple(t.shape), t.dtype) for t in (tensor, weights[name]))
                _demand(is_ == was, method, seed, f"{name} is {is_}, was {was}")
                _demand(bool(torch.isfinite(tensor).all()), method, seed, f"{name} is not finite after {dict(strength)}")
            anew = replace(case, home=replace(case.home, begun={})) if case.home else case  # of what it began there, nothing
            again = method.edit(weights, anew, strength)
            _demand(equal(again, edited), method, seed, "the same edit again gave another model")


def forgetting_nothing_changes_nothing(method: Method) -> None:
    """No class, and evidence that says nothing. Methods that train on rows are passed over: they are not one-shot."""
    if method.needs & AT_HEIRS:
        return
    for seed in SEEDS:
        weights, case = Draw(method, seed).heir()
        same = method.evidence is not None and method.evidence.statistic == "activation"  # as active as on the rest
        silent = [case.own.means if same else {n: torch.zeros_like(t) for n, t in e.means.items()} for e in case.evidence]
        evidence = tuple(replace(e, means=means) for e, means in zip(case.evidence, silent, strict=True))
        nothing = replace(case, evidence=evidence, classes=())
        for strength in _some(method, nothing):
            _demand(equal(method.edit(weights, nothing, strength), weights), method, seed, "nothing was to be forgotten")


def strengths_go_from_small_edits_to_large(method: Method) -> None:
    """One or more, in the order in which they are searched by halving. Methods that train are passed over."""
    for seed in SEEDS:
        weights, case = Draw(method, seed).heir()
        _demand(len(method.strengths(case)) >= 1, method, seed, "there is no strength")
        if method.needs & AT_HEIRS:
            continue
        sizes = [(_apart(method.edit(weights, case, strength), weights), strength) for strength in _some(method, case)]
        for (less, small), (more, large) in pairwise(sizes):
            _demand(less <= more * (1 + CLOSE) + 1e-6, method, seed, f"{dict(small)} edits more than {dict(large)}, behind it")


def its_settings_make_it_again(method: Method) -> None:
    """They travel by name, as plain data or text: fields of a dataclass."""
    path = f"{type(method).__module__}:{type(method).__qualname__}"
    for settings in (settings_of(method), {k: str(v) for k, v in settings_of(method).items()}):
        again = make(path, settings)
        same = type(again) is type(method) and settings_of(again) == settings_of(method)
        _demand(same, method, 0, f"{settings} make {again!r}")


def the_order_of_roots_does_not_matter(method: Method) -> None:
    """A merge commutes."""
    for seed in SEEDS if method.evidence else ():
        draw = Draw(method, seed)
        drawn = [draw.evidence(about) for about in ("b", "c", "b")]
        _agree(method, seed, drawn, random.Random(seed).sample(drawn, 3), "in another order roots gave another edit")


def a_root_that_says_the_same_again_changes_nothing(method: Method) -> None:
    """A merge is idempotent."""
    for seed in SEEDS if method.evidence else ():
        draw = Draw(method, seed)
        drawn = [draw.evidence(about) for about in ("b", "c")]
        _agree(method, seed, drawn, [*drawn, *drawn], "the same evidence twice gave another edit")


def a_merge_leaves_what_it_is_given(method: Method) -> None:
    """Heirs of the same roots share their evidence: what the merge for one writes into it, the next would take for measured."""
    for seed in SEEDS if method.evidence else ():
        draw = Draw(method, seed)
        drawn = [draw.evidence(about) for about in ("b", "c", "b")]
        before = [replace(e, means={n: t.clone() for n, t in e.means.items()}) for e in drawn]
        given = [*drawn]
        method.merge(given)
        same = len(given) == len(before) and all(map(_alike, given, before))
        _demand(same, method, seed, "its merge changed the evidence that it was given")


def what_is_not_shared_with_the_roots_stays_to_the_bit(method: Method) -> None:
    """Evidence without the head leaves the head."""
    for seed in SEEDS if method.evidence else ():
        weights, case = Draw(method, seed).heir()
        bare = [replace(e, means={n: t for n, t in e.means.items() if n not in HEAD.names}) for e in case.evidence]
        partial = replace(case, evidence=tuple(bare))
        for strength in _some(method, partial):
            edited = method.edit(weights, partial, strength)
            stays = all(torch.equal(edited[n], weights[n]) for n in HEAD.names)
            _demand(stays, method, seed, "the head was changed, of which the evidence says nothing")


def an_heir_that_shares_nothing_is_said_to_miss(method: Method) -> None:
    """In words; else a request would look done."""
    if method.evidence is not None:
        nothing = Case(method.merge([Evidence({}, 1, "b" * method.apart, 1.0)]), Evidence(), HEAD, ("b",))
        _demand(bool(method.misses(nothing)), method, 0, "it misses nothing in an heir that shares no parameter with its roots")


LAWS: tuple[Law, ...] = (
    what_is_passed_in_stays_and_names_shapes_and_dtypes_stay,
    forgetting_nothing_changes_nothing,
    strengths_go_from_small_edits_to_large,
    its_settings_make_it_again,
    the_order_of_roots_does_not_matter,
    a_root_that_says_the_same_again_changes_nothing,
    a_merge_leaves_what_it_is_given,
    what_is_not_shared_with_the_roots_stays_to_the_bit,
    an_heir_that_shares_nothing_is_said_to_miss,
)


def _some(method: Method, case: Case, number: int = 8) -> Sequence[Strength]:
    """Strengths to try, evenly spread; one where each costs a training."""
    found = method.strengths(case)
    few = 1 if method.needs & AT_HEIRS else number
    return [found[i] for i in evenly(len(found), few)]


def _agree(method: Method, seed: int, one: list[Evidence], other: list[Evidence], broken: str) -> None:
    weights, case = Draw(method, seed).heir()
    first, second = (replace(case, evidence=method.merge(e)) for e in (one, other))
    for strength in _some(method, first, 3):
        a, b = (method.edit(weights, c, strength) for c in (first, second))
        _demand(_apart(a, b) <= CLOSE * _apart(a, weights) + 1e-6, method, seed, broken)


def _alike(one: Evidence, other: Evidence) -> bool:
    return equal(one.means, other.means) and (one.rows, one.about, one.enough) == (other.rows, other.about, other.enough)


def _apart(one: Tensors, other: Tensors) -> float:
    """The Euclidean distance."""
    return math.sqrt(sum(float((t.double() - other[n].double()).square().sum()) for n, t in one.items()))


def _demand(kept: bool, method: Method, seed: int, broken: str) -> None:
    if not kept:  # no assert statement: laws hold under `python -O`, too
        raise AssertionError(f"{method!r}, seed {seed}: {broken}")
