"""A method at work on one model: what it is given stays as it is, and what it gives back is what was asked for.

Strengths are tried one after another on the same tensors, and what is chosen is written into the ledger. Methods of the menu
obey the laws, which ask for the same: only those of a user's own are watched.
"""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from fedunlearn.errors import FedUnlearnError, InputError, few, raised
from fedunlearn.methods import METHODS, Case, Evidence, Method
from fedunlearn.methods.base import Strength
from fedunlearn.store.hashing import hashes_of
from fedunlearn.tensors import Tensors, names_in

EXAMPLE = '[{"power": 0.5}, {"power": 1.0}]'


class Watched:
    """What a method says of one model, each as `Method` has it.

    Args:
        method: at work.
        weights: of the model.
        case: the evidence about it, and means on its own data.

    Raises:
        InputError: from every function: the method is of the user's own, and raised what is no error of this package, wrote
            into what it was given, or returned something else than what was asked for; says what.
    """

    def __init__(self, method: Method, weights: Tensors, case: Case) -> None:
        self.method, self.weights, self.case = method, weights, case
        self._own = own(method)
        self._before = self._hashes()

    def strengths(self) -> Sequence[Strength]:
        """What may be chosen."""
        found: Sequence[Strength] = called(self.method, "strengths", self.case)
        if self._own:
            if not isinstance(found, Sequence) or isinstance(found, str) or not found:
                raise self._wrong(f"strengths returned {_told(found)}, expected a list of one or more, such as {EXAMPLE}")
            for one in found:
                self._plain("strengths", one)
        return found

    def sent(self) -> Strength | None:
        """What was calibrated at the roots."""
        found: Strength | None = called(self.method, "sent", self.case)
        if self._own and found is not None:
            self._plain("sent", found)
        return found

    def enough(self, left: Callable[[Tensors], float], gap: float | None) -> float | None:
        """The number that is calibrated here."""
        found: float | None = called(self.method, "enough", self.weights, self.case, left, gap)
        self._check_given()
        if self._own and found is not None and not _number(found):
            raise self._wrong(f"enough returned {_told(found)}, expected a number, or None")
        return found

    def edit(self, strength: Strength) -> dict[str, Tensor]:
        """The edited weights."""
        found: dict[str, Tensor] = called(self.method, "edit", self.weights, self.case, strength)
        self._check_given()
        return self._edited(found) if self._own else found

    def _edited(self, found: Any) -> dict[str, Tensor]:
        if not isinstance(found, Mapping):
            raise self._wrong(f"edit returned {_told(found)}, expected a dict of all weights by name, changed or not")
        if missing := [n for n in self.weights if n not in found]:
            raise self._wrong(f"edit returned no {few(map(repr, missing), 1)}; expected all weights by name, changed or not")
        if strange := [n for n in found if n not in self.weights]:
            raise self._wrong(f"edit returned {strange[0]!r}, which the model does not have")
        edits = set(names_in(self.method.layers, self.weights, self.case.head))
        for name, tensor in self.weights.items():
            new = found[name]
            if not isinstance(new, Tensor):
                raise self._wrong(f"edit returned {_told(new)} as {name!r}, expected a tensor")
            if (new.shape, new.dtype) != (tensor.shape, tensor.dtype):
                is_, was = (f"{str(t.dtype).removeprefix('torch.')} of shape {tuple(t.shape)}" for t in (new, tensor))
                raise self._wrong(f"edit returned {name!r} as {is_}, expected {was} as it was")
            if name not in edits and not torch.equal(new.to(tensor.device), tensor):
                raise self._wrong(f"edit changed {name!r}, which is not in its layers ({self.method.layers!r})")
        return {name: found[name].detach() for name in self.weights}

    def _plain(self, what: str, strength: Any) -> None:
        """Refuse what no ledger line can say."""
        if not isinstance(strength, Mapping):
            raise self._wrong(f"{what} returned {_told(strength)} as a strength, expected numbers by name, such as {EXAMPLE}")
        for name, value in strength.items():
            if not isinstance(name, str) or not _number(value):
                raise self._wrong(f"{what} returned the strength {name!r}: {_told(value)}, expected a finite int or float")

    def _check_given(self) -> None:
        for what, hashes in self._hashes().items():
            if hashes != self._before[what]:
                raise self._wrong(
                    f"has changed the {what} that it was given; let it return new tensors: .numpy(), .data and operations in "
                    f"place write into the very ones that it was given (clone them first)"
                )

    def _hashes(self) -> dict[str, dict[str, str]]:
        """By name, of each kind: no counter tells what is written through numpy or `.data`."""
        if not self._own:
            return {}
        evidence = {f"{i} {name}": tensor for i, e in enumerate(self.case.evidence) for name, tensor in e.means.items()}
        kinds: dict[str, Tensors] = {
            "weights": self.weights,
            "evidence": evidence,
            "means of the model's own data (own)": self.case.own.means,
        }
        return {what: dict(zip(of, hashes_of(of.values()), strict=True)) for what, of in kinds.items()}

    def _wrong(self, what: str) -> InputError:
        return InputError(f"method {self.method.name}: {what}")


def own(method: Method) -> bool:
    """Whether a method is of the user's own."""
    return type(method) not in METHODS.values()


def merged(method: Method, evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """A method's merge.

    Raises:
        InputError: as `called`; or it returned something else than evidence.
    """
    found = called(method, "merge", evidence)
    if own(method) and not (isinstance(found, tuple) and all(isinstance(one, Evidence) for one in found)):
        raise InputError(f"method {method.name}: merge returned {_told(found)}, expected a tuple of Evidence")
    checked: tuple[Evidence, ...] = found
    return checked


def missed(method: Method, case: Case) -> str | None:
    """Why a method cannot edit an heir.

    Raises:
        InputError: as `called`; or it returned no text.
    """
    found = called(method, "misses", case)
    if own(method) and not (found is None or (isinstance(found, str) and found)):
        raise InputError(f"method {method.name}: misses returned {_told(found)}, expected words that say why, or None")
    said: str | None = found
    return said


def called(method: Method, function: str, *args: Any) -> Any:
    """What one of a method's functions returns.

    Raises:
        InputError: the method is of the user's own, and raised; says what, and where in its code.
    """
    try:
        return getattr(method, function)(*args)
    except FedUnlearnError:
        raise
    except Exception as error:
        if not own(method):
            raise
        raise InputError(f"method {method.name}: {function} raised {raised(error)}") from error


def _number(value: Any) -> bool:
    """Whether JSON has it as a number, and so has whoever reads it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return isfinite(value)
    except OverflowError:
        return False


def _told(value: Any) -> str:
    return "None" if value is None else f"{repr(value)[:60]} ({type(value).__name__})"
