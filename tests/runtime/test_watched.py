"""A method of a user's own that returns what it should not: an error that says what, and a family as it was."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from fedunlearn.errors import FedUnlearnError, InputError, StoreError
from fedunlearn.methods import Case, Evidence, Method, Unguided, Want, make
from fedunlearn.methods.base import Strength
from fedunlearn.runtime import Family, InProcess, unlearn
from fedunlearn.scenario import Scenario, workers
from fedunlearn.tensors import Tensors
from tests.conftest import LEAVE, snapshot

HERE = __name__


@dataclass(frozen=True)
class Lowered(Method):
    """The bias of what is forgotten, lowered. Its parts are replaced by broken ones."""

    name = "lowered"
    own = None
    layers: str = "last"

    def misses(self, case: Case) -> str | None:
        return None if set(case.classes) & set(case.head.classes) else "has no output for it"

    def strengths(self, case: Case) -> Sequence[Strength]:
        return [{"by": 30.0}]

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
        bias = weights[case.head.names[1]].clone()
        bias[[case.head.classes.index(c) for c in case.classes if c in case.head.classes]] -= strength["by"]
        return {**weights, case.head.names[1]: bias}


def edited(change: Callable[[dict[str, Any], Case], Any]) -> Callable[..., Any]:
    """An edit whose result is changed."""
    right = Lowered.edit
    return lambda self, weights, case, strength: change(right(self, weights, case, strength), case)


def transposed(weights: dict[str, torch.Tensor], case: Case) -> dict[str, torch.Tensor]:
    return {**weights, case.head.names[0]: weights[case.head.names[0]].T}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing back": ({"edit": edited(lambda w, c: None)}, "edit returned None, expected a dict of all weights by name"),
    "the head alone": (
        {"edit": edited(lambda w, c: {n: w[n] for n in c.head.names})},
        r"edit returned no '[^']*' and \d+ more; expected all weights by name, changed or not",
    ),
    "one too many": (
        {"edit": edited(lambda w, c: {**w, "scale": torch.ones(1)})},
        "edit returned 'scale', which the model does not",
    ),
    "another shape": (
        {"edit": edited(transposed)},
        r"edit returned 'head.weight' as float32 of shape \(\d+, 10\), expected float32",
    ),
    "another type": (
        {"edit": edited(lambda w, c: {n: t.double() for n, t in w.items()})},
        r"edit returned '.*' as float64 of shape .*, expected float32 of shape .* as it was",
    ),
    "no tensor": ({"edit": edited(lambda w, c: {n: t.numpy() for n, t in w.items()})}, r"expected a tensor"),
    "other layers": (
        {"edit": edited(lambda w, c: {n: t + 1 for n, t in w.items()})},
        r"edit changed '.*', which is not in its layers \('last'\)",
    ),
    "it raises": (
        {"edit": edited(lambda w, c: w["nowhere"])},
        r"east \(parallel, eastern\).*: method lowered: edit raised KeyError: 'nowhere' \(test_watched.py, line \d+\)",
    ),
    "no strength": ({"strengths": lambda s, c: []}, r"strengths returned \[\] \(list\), expected a list of one or more"),
    "a bare strength": ({"strengths": lambda s, c: {"by": 1.0}}, "strengths returned .*dict.*, expected a list of one or more"),
    "numbers": (
        {"strengths": lambda s, c: [1.0, 2.0]},
        r"strengths returned 1.0 \(float\) as a strength, expected numbers by name",
    ),
    "words": (
        {"strengths": lambda s, c: [{"by": 1.0, "how": "hard"}]},
        "the strength 'how': 'hard'.*, expected a finite int or float",
    ),
    "truth": ({"strengths": lambda s, c: [{"by": True}]}, "the strength 'by': True"),
    "of numpy": ({"strengths": lambda s, c: [{"by": np.float32(1)}]}, "the strength 'by'"),
    "beyond": ({"strengths": lambda s, c: [{"by": 10**400}]}, "the strength 'by'"),
    "sent in words": ({"sent": lambda s, c: {"by": "much"}}, "sent returned the strength 'by': 'much'"),
    "a merge of one": ({"merge": lambda s, e: e[0]}, r"merge returned Evidence\(.*, expected a tuple of Evidence"),
    "a merge that raises": ({"merge": lambda s, e: e[99]}, "merge raised IndexError"),
    "misses by a flag": (
        {"misses": lambda s, c: False},
        r"misses returned False \(bool\), expected words that say why, or None",
    ),
    "half a letter": (
        {"misses": lambda s, c: "\ud800" if c.head.classes[0] == "0" else None},
        "could not be read again|surrogate|no heir",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_and_nothing_is_changed(
    what: str, hospitals: Scenario, family: Family, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, says = WRONG[what]
    for part, how in parts.items():
        monkeypatch.setattr(Lowered, part, how)
    before = family.ledger.path.read_bytes()
    with pytest.raises(FedUnlearnError, match=says) as told:
        unlearn(family, LEAVE, Lowered(), InProcess(workers(hospitals, family)))
    assert "lowered" in str(told.value) or "could not be read again" in str(told.value)
    assert Family.open(folder).ledger.path.read_bytes() == before


def test_what_is_right_is_taken(hospitals: Scenario, family: Family, folder: Path) -> None:
    record = unlearn(family, LEAVE, Lowered(), InProcess(workers(hospitals, family)))
    assert "committed" in {one["status"] for one in record.facts["models"]}
    assert Family.open(folder).ledger.lines[-1].kind == "unlearned"


def test_the_ledger_takes_no_line_that_it_could_not_read_again(family: Family, folder: Path) -> None:
    """It would be taken for damage, and lock the family for good."""
    with family.ledger.alone():
        before = snapshot(folder)
    for body in ({"heads": {}, "request": "x"}, {"heads": {"shared": 3}, "request": "x"}, {"request": "\ud800"}):
        with pytest.raises(StoreError, match=r"a 'unlearned' line could not be read again .*; nothing was written or changed"):
            family.ledger.append("unlearned", body)
    assert snapshot(folder) == before
    assert Family.open(folder).ledger.lines == family.ledger.lines


@dataclass(frozen=True)
class Held(Lowered):
    """Settings of every kind."""

    keep: Any = 1
    mode: float | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.keep == 2:
            raise ValueError("no two")


class Bare(Lowered):
    """No dataclass."""

    beta: float = 1.0


class Moments(Unguided):
    name = "moments"
    evidence = Want("moment")

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
        return dict(weights)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("Held", {"keep": Path("x")}, r"its setting keep is PosixPath\('x'\) \(PosixPath\), expected plain data"),
        ("Held", {"keep": torch.ones(1)}, "expected plain data"),
        ("Held", {"keep": 2}, r"cannot be made: ValueError: no two \(test_watched.py, line \d+\)"),
        ("Bare", {"beta": 2}, "has no setting 'beta': its class is no dataclass; put @dataclass"),
        ("Moments", {}, "evidence is of 'moment', which one model cannot hand on to another"),
        ("Lowerd", {}, r"unknown name in module .* 'Lowerd'; did you mean 'Lowered'\?"),
    ],
)
def test_what_makes_no_method_is_refused(name: str, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make(f"{HERE}:{name}", settings)


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("needs", "the rest", "needs is 'the rest', expected a frozenset"),
        (
            "needs",
            frozenset({"the retained data"}),
            "unknown need 'the retained data'; did you mean .the retained data at every",
        ),
        ("evidence", "squares", r"evidence is 'squares', expected a Want, such as Want\('squares'\), or None"),
        ("own", Want("sqares"), "own: unknown statistic 'sqares'; did you mean 'squares'"),
        ("evidence", Want("squares", "label"), "evidence: unknown loss 'label'; did you mean 'labels'"),
        ("name", "", "has no name"),
        ("wants", lambda self, classes: Want("squares") if classes else None.loss, r"wants\(\(\)\) raised AttributeError"),
        ("wants", lambda self, classes: "squares", r"wants\(\(\)\) is 'squares', expected a Want"),
    ],
)
def test_attributes_that_are_not_what_they_should_be_are_refused(
    part: str, value: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lowered, part, value)
    with pytest.raises(InputError, match=says):
        make(f"{HERE}:Lowered")


def test_names_that_are_no_method_say_how_one_is_written() -> None:
    with pytest.raises(InputError, match=r"unknown method 'Lowered'; .*; one of your own is written 'their.module:Class'"):
        make("Lowered")
    with pytest.raises(InputError, match=r"'mine\.py' is a file, expected a module's name, 'mine:Mine'"):
        make("mine.py:Mine")
    with pytest.raises(
        InputError, match="No module named 'nowhere_at_all'; its folder must be the current one, or on PYTHONPATH"
    ):
        make("nowhere_at_all:Mine")


@pytest.mark.parametrize("mode", ["atuo", ""])
def test_a_word_that_is_none_of_a_settings_is_refused_before_anything_is_measured(mode: str) -> None:
    with pytest.raises(InputError, match=f"mode is '{mode}', expected a number or 'auto'"):
        make(f"{HERE}:Held", {"mode": mode})
    assert vars(make(f"{HERE}:Held", {"mode": "0.5"}))["mode"] == 0.5


def test_evidence_of_what_a_request_wants_reaches_the_heirs(
    hospitals: Scenario, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the shapes of that statistic, and not of what the class asks for in general."""
    seen: list[dict[str, tuple[int, ...]]] = []

    def merge(self: Method, evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
        seen.extend({n: tuple(t.shape) for n, t in e.means.items()} for e in evidence)
        return tuple(evidence[:1])

    monkeypatch.setattr(Lowered, "wants", lambda self, classes: Want("activation"))
    monkeypatch.setattr(Lowered, "merge", merge)
    unlearn(family, LEAVE, Lowered(), InProcess(workers(hospitals, family)))
    assert seen
    assert all(len(shape) == 1 for found in seen for shape in found.values())  # a unit each
    assert any(seen)
