"""What a method is given, which must stay as it is: strengths are tried one after another on the same tensors."""

from fedunlearn.errors import InputError
from fedunlearn.methods import METHODS, Case, Method
from fedunlearn.store.hashing import hashes_of
from fedunlearn.tensors import Tensors


class Given:
    """The tensors that a method sees of one model, and hashes of what they are before it sees them.

    Hashes, as no counter tells what is written through numpy or `.data`. Of methods of the menu nothing is hashed: they obey
    the laws, which ask for the same.

    Args:
        method: sees them.
        weights: of the model.
        case: the evidence about it, and means on its own data.
    """

    def __init__(self, method: Method, weights: Tensors, case: Case) -> None:
        self.method, self.weights, self.case = method, weights, case
        self._before = self._hashes()

    def check(self) -> None:
        """Refuse a method that has written into any of them.

        Raises:
            InputError: it has; says into what.
        """
        for what, hashes in self._hashes().items():
            if hashes != self._before[what]:
                raise InputError(
                    f"method {self.method.name} has changed the {what} that it was given; let it return new tensors: "
                    f".numpy(), .data and operations in place write into the very ones that it was given (clone them first)"
                )

    def _hashes(self) -> dict[str, dict[str, str]]:
        """By name, of each kind; none for a method of the menu."""
        if type(self.method) in METHODS.values():
            return {}
        evidence = {f"{i} {name}": tensor for i, e in enumerate(self.case.evidence) for name, tensor in e.means.items()}
        kinds: dict[str, Tensors] = {
            "weights": self.weights,
            "evidence": evidence,
            "means of the model's own data (own)": self.case.own.means,
        }
        return {what: dict(zip(of, hashes_of(of.values()), strict=True)) for what, of in kinds.items()}
