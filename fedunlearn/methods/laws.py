"""Laws that every method obeys, as functions that a test suite calls with a method; they need no test framework.

    @pytest.mark.parametrize("law", LAWS)
    def test_mine_obeys(law):
        law(Mine())

Each law goes through small heirs (`drawn.Draw`): weights, evidence in the shapes and signs and of the layers that the method
asks for, and a home with the rows that it says it `needs`, as in earnest. One that is broken is an AssertionError in words.

Not shown by them: that a method forgets, and forgets the right class (the gate judges that, model by model); convolutions,
heads without bias, other types than float32, a GPU, homes without rows.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from fedunlearn.importance import LOSSES, STATISTICS
from fedunlearn.methods.base import AT_HEIRS, Case, Evidence, Method, Strength, Want
from fedunlearn.methods.calibration import evenly
from fedunlearn.methods.drawn import BUFFERS, HEAD, Draw
from fedunlearn.methods.menu import make, settings_of
from fedunlearn.tensors import Tensors, equal

SEEDS = range(25)
CLOSE = 1e-3  # of the edit: what rounding may do to it
Law = Callable[[Method], None]


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
        strengths = method.strengths(case)
        _demand(len(strengths) >= 1, method, seed, "there is no strength")
        for value in (v for one in strengths for v in one.values()):
            plain = type(value) in (int, float) and math.isfinite(value)
            _demand(plain, method, seed, f"a strength is {value!r}, expected an int or a float, as the ledger says it")
        if method.needs & AT_HEIRS:
            continue
        sizes = [(_apart(method.edit(weights, case, strength), weights), strength) for strength in _some(method, case)]
        for (less, small), (more, large) in pairwise(sizes):
            _demand(less <= more * (1 + CLOSE) + 1e-6, method, seed, f"{dict(small)} edits more than {dict(large)}, behind it")


def its_settings_make_it_again(method: Method) -> None:
    """They travel by name, as plain data or text: fields of a dataclass. Each place makes its own of them."""
    path = f"{type(method).__module__}:{type(method).__qualname__}"
    for seed in SEEDS:
        weights, case = Draw(method, seed).heir()
        _, likewise = Draw(method, seed).heir()  # with a home of its own
        for strength in _some(method, case, 3):
            there = make(path, settings_of(method)).edit(weights, likewise, strength)
            _demand(equal(there, method.edit(weights, case, strength)), method, seed, "made again, it gives another edit")
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


def counts_of_rows_do_not_matter(method: Method) -> None:
    """Evidence is a mean: over ten times the rows everywhere, it says the same."""

    def more(of: Evidence) -> Evidence:
        return replace(of, rows=10 * of.rows)

    for seed in SEEDS:
        weights, case = Draw(method, seed).heir()
        draw = Draw(method, seed)
        drawn = [draw.evidence(about) for about in ("b", "c")] if method.evidence else []
        one = replace(case, evidence=method.merge(drawn)) if drawn else case
        ten = replace(one, own=more(case.own), evidence=method.merge([*map(more, drawn)]) if drawn else case.evidence)
        _same(method, seed, weights, one, ten, "with ten times as many rows everywhere it gave another edit")


def the_order_of_classes_does_not_matter(method: Method) -> None:
    """Of those that are to be forgotten. An heir without an output for one of them is edited all the same, or said to miss."""
    for seed in SEEDS:
        weights, case = Draw(method, seed).heir(("b", "c"))
        one, other = (replace(case, classes=classes) for classes in (("b", "c"), ("c", "b")))
        _same(method, seed, weights, one, other, "with the same classes in another order it gave another edit")
        for classes in (("z",), ("b", "z")):
            if not method.misses(lacking := replace(case, classes=classes)):
                for strength in _some(method, lacking, 3):
                    kept = method.edit(weights, lacking, strength).keys() == weights.keys()
                    _demand(kept, method, seed, f"names differ where the heir has no output for one of {classes}")


def the_order_of_outputs_does_not_matter(method: Method) -> None:
    """With the rows of the head in another order, so are those of the edit. Passed over: what trains, or draws."""
    if method.needs & AT_HEIRS or method.evidence is None:
        return
    for seed in SEEDS:
        order = random.Random(seed).sample(range(3), 3)

        def moved(tensors: Tensors, statistic: str = "", order: list[int] = order) -> dict[str, Tensor]:
            return {n: t[order] if n in HEAD.names and statistic != "moment" else t for n, t in tensors.items()}

        weights, case = Draw(method, seed).heir()
        evidence = tuple(replace(e, means=moved(e.means)) for e in case.evidence)
        own = replace(case.own, means=moved(case.own.means, method.own.statistic if method.own else ""))
        other = replace(case, evidence=evidence, own=own, head=replace(HEAD, classes=tuple(HEAD.classes[i] for i in order)))
        for strength in _some(method, case, 3):
            straight, across = moved(method.edit(weights, case, strength)), method.edit(moved(weights), other, strength)
            near = _apart(straight, across) <= CLOSE * _apart(straight, moved(weights)) + 1e-6
            _demand(near, method, seed, "with its outputs in another order the heir got another edit")


def samples_are_forgotten_like_classes(method: Method) -> None:
    """A request may name no class; `wants` then says what is measured. The edit is finite, or the heir is said to miss."""
    for seed in SEEDS:
        draw = Draw(method, seed)
        weights, case = draw.heir()
        evidence = method.merge([draw.evidence(""), draw.evidence("")]) if method.wants(()) else ()
        rows = replace(case, classes=(), evidence=evidence)
        for strength in [] if method.misses(rows) else _some(method, rows, 3):
            edited = method.edit(weights, rows, strength)
            well = edited.keys() == weights.keys() and all(bool(torch.isfinite(t).all()) for t in edited.values())
            _demand(well, method, seed, "it breaks the model where samples are to be forgotten")


def what_it_says_besides_is_what_is_asked(method: Method) -> None:
    """What is measured, why an heir is missed, the number that is enough, and the strength that is sent."""
    for classes in (("b",), ()):
        want = method.wants(classes)
        known = want is None or (isinstance(want, Want) and want.statistic in STATISTICS and want.loss in LOSSES)
        _demand(known, method, 0, f"wants({classes}) is {want!r}")
        _demand(bool(classes) or want is None or want.loss != "masked", method, 0, "without classes, there is none to mask")
    for seed in SEEDS:
        weights, case = Draw(method, seed).heir()
        said, sent = method.misses(case), method.sent(case)
        _demand(said is None or (isinstance(said, str) and bool(said)), method, seed, f"misses says {said!r}, not why")
        if sent is not None and not said:
            names = method.edit(weights, case, sent).keys()
            _demand(names == weights.keys(), method, seed, "names differ after the strength that is sent")
        if method.evidence is not None:
            root = replace(case, evidence=(Draw(method, seed).evidence("b"),))
            for gap in (None, 0.5):
                enough = method.enough(weights, root, lambda _: 0.5, gap)
                well = enough is None or (type(enough) in (int, float) and 0 <= enough < math.inf)
                _demand(well, method, seed, f"enough is {enough!r}")


def what_is_not_shared_with_the_roots_stays_to_the_bit(method: Method) -> None:
    """Evidence without a layer leaves it. What is outside the method's layers stays in any case, and so do buffers."""
    for seed in SEEDS if method.evidence else ():
        draw = Draw(method, seed)
        weights, case = draw.heir()
        for gone in ("head.", "body.", "-"):
            bare = [replace(e, means={n: t for n, t in e.means.items() if not n.startswith(gone)}) for e in case.evidence]
            partial = replace(case, evidence=tuple(bare))
            stay = [n for n in weights if n.startswith(gone) or n not in draw.layers or (n in BUFFERS and not method.needs)]
            for strength in [] if method.misses(partial) else _some(method, partial):
                edited = method.edit(weights, partial, strength)
                changed = [n for n in stay if not torch.equal(edited[n], weights[n])]
                _demand(not changed, method, seed, f"{changed} changed, of which the evidence says nothing")


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
    counts_of_rows_do_not_matter,
    the_order_of_classes_does_not_matter,
    the_order_of_outputs_does_not_matter,
    samples_are_forgotten_like_classes,
    what_it_says_besides_is_what_is_asked,
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
    _same(method, seed, weights, first, second, broken)


def _same(method: Method, seed: int, weights: Tensors, one: Case, other: Case, broken: str) -> None:
    """The same edit of both, up to rounding."""
    for strength in _some(method, one, 3):
        a, b = (method.edit(weights, replace(c, home=Draw(method, seed).home(weights)), strength) for c in (one, other))
        _demand(_apart(a, b) <= CLOSE * _apart(a, weights) + 1e-6, method, seed, broken)


def _alike(one: Evidence, other: Evidence) -> bool:
    return equal(one.means, other.means) and (one.rows, one.about, one.enough) == (other.rows, other.about, other.enough)


def _apart(one: Tensors, other: Tensors) -> float:
    """The Euclidean distance."""
    return math.sqrt(sum(float((t.double() - other[n].double()).square().sum()) for n, t in one.items()))


def _demand(kept: bool, method: Method, seed: int, broken: str) -> None:
    if not kept:  # no assert statement: laws hold under `python -O`, too
        raise AssertionError(f"{method!r}, seed {seed}: {broken}")
