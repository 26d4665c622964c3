"""What a method is: what it measures, how it merges, how it edits."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any

from torch import Tensor, nn

from fedunlearn.data import Rows
from fedunlearn.errors import InputError
from fedunlearn.importance import merge
from fedunlearn.methods.course import Course
from fedunlearn.tensors import Head, Tensors

Strength = Mapping[str, float]  # settings of an edit, by name

# What a method may need beyond evidence. No deployment grants these by itself: rows stay where they are.
HEIRS_AT_ROOTS = "every heir's weights at the sites of what is forgotten"
FORGOTTEN_AT_HEIRS = "what is forgotten at every heir's home"
RETAINED_AT_HEIRS = "the retained data at every heir's home"
AT_HEIRS = frozenset({FORGOTTEN_AT_HEIRS, RETAINED_AT_HEIRS})  # what makes a home
NEEDS = AT_HEIRS | {HEIRS_AT_ROOTS}


@dataclass(frozen=True)
class Want:
    """What is to be measured.

    Args:
        statistic: of the menu in `fedunlearn.importance`.
        loss: what is differentiated; a statistic of a forward pass alone reads none.
        rows: at most so many of each shard, evenly spread; 0 for all.
    """

    statistic: str
    loss: str = "labels"
    rows: int = 0


@dataclass(frozen=True)
class Evidence:
    """Means of a statistic over rows, by parameter, of those that are in the method's layers.

    Args:
        means: per row, float64. Of "squares" and "sum" (of the gradient of the loss, which training makes smaller) each in its
            parameter's shape; of "activation" one number a unit, by the weight's name; of "moment" [K, K] for a layer with K
            inputs, its bias counted as one. Rows of a head for classes that the root did not have are zero.
        rows: over how many rows.
        about: the class that the rows are of; empty where they are not told apart.
        enough: a number that was calibrated where it was measured, and travels along.

    Raises:
        InputError: the number is not finite, or below zero.
    """

    means: Tensors = field(default_factory=dict)
    rows: int = 0
    about: str = ""
    enough: float | None = None

    def __post_init__(self) -> None:
        if self.enough is not None and not (isfinite(self.enough) and self.enough >= 0):
            raise InputError(f"evidence about {self.about!r}: the number that is enough is {self.enough}, expected 0 or more")


@dataclass(frozen=True)
class Home:
    """What lies at an heir's home, for methods that train there.

    Args:
        net: a copy of the heir, in eval mode, on the device of the place (`next(net.parameters()).device`); it may be changed.
        forgotten: rows to be forgotten, labelled by the heir's outputs, on the CPU; none where the method has no need of them.
        retained: the heir's own rows without those, on the CPU; there may be none.
        begun: trainings from the heir's weights, which another strength goes on with (see `Course`).
    """

    net: nn.Module
    forgotten: Rows
    retained: Rows
    begun: dict[Hashable, Course] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def granted(cls, needs: Collection[str], net: nn.Module, forgotten: Rows, retained: Rows) -> "Home | None":
        """With the rows that a method says it needs, and no others; None where it needs none."""
        if AT_HEIRS.isdisjoint(needs):
            return None
        gone = forgotten if FORGOTTEN_AT_HEIRS in needs else Rows.empty(forgotten.classes)
        return cls(net, gone, retained if RETAINED_AT_HEIRS in needs else Rows.empty(retained.classes))


@dataclass(frozen=True)
class Case:
    """One heir, as a method sees it.

    Args:
        evidence: of its roots, as the method merged it, in the heir's own names and shapes, for what it shares with them.
        own: means of the heir on its own data; empty where the method's `own` is None, or nothing is left of it.
        head: the heir's outputs.
        classes: the classes to be forgotten; empty where the request is about samples or whole sites.
        home: what lies at its home, for methods that need it.
        parameters: names of the heir's; known to `misses` and to edits of `ordered` methods; empty for others' edits.
        worked: what an edit has worked out that is the same at every strength, for the next one.
    """

    evidence: tuple[Evidence, ...]
    own: Evidence
    head: Head
    classes: tuple[str, ...]
    home: Home | None = None
    parameters: frozenset[str] = frozenset()
    worked: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def merged(self) -> Tensors:
        """The means of the only evidence, where a method merges all into one."""
        return self.evidence[0].means if self.evidence else {}


def merged(evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """The elementwise maximum, as one; it speaks for as many rows as the one that speaks for most."""
    return (Evidence(merge([e.means for e in evidence]), max(e.rows for e in evidence)),)


class Method(ABC):
    """A way to forget: a frozen dataclass whose fields are its settings, plain data each.

    Each place makes an instance of its own from the settings: what one function keeps on `self` does not reach another.

    Attributes:
        name: in the menu.
        evidence: what is measured of what is forgotten, at the roots; None for nothing.
        own: what is measured of each heir on its own data; None for nothing.
        layers: which parameters are measured and edited: "all", "last", or names.
        apart: evidence is measured class by class where a request names classes, and carries what `enough` says.
        farthest: the most that `enough` says where a request names classes; a site that says more is refused.
        retained: heirs are weighed on their own data without what is forgotten.
        per_heir: evidence is measured on each heir itself instead of on its roots (at the same sites).
        ordered: weights to edit come in the net's own order, which tells what follows what, and not just in any; a home then
            makes the net.
    """

    name: str
    evidence: Want | None = Want("squares")
    own: Want | None = Want("squares")
    layers: str = "all"
    apart: bool = False
    farthest: float = inf
    retained: bool = False
    per_heir: bool = False
    ordered: bool = False

    @property
    def needs(self) -> frozenset[str]:
        """What it cannot do without beyond evidence, out of `NEEDS`; a backend that cannot grant it refuses."""
        return frozenset({HEIRS_AT_ROOTS}) if self.per_heir else frozenset()

    @property
    def votes(self) -> bool:
        """Whether `merge` is over sites, one vote each, instead of over models on which sites are pooled."""
        return False

    def vote(self, evidence: Sequence[Evidence]) -> Sequence[Evidence]:
        """One site's vote: its evidence on several models as one; of each class, where a method keeps them apart."""
        return merged(evidence)

    def wants(self, classes: Sequence[str]) -> Want | None:
        """What is measured of what is forgotten, for a request about these classes (none: about samples or whole sites)."""
        return self.evidence

    def merge(self, evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
        """Evidence of several models (and classes, where they are apart), already aligned to one heir, as the edit takes it.

        By default the elementwise maximum (FIUn's MFIM).
        """
        return merged(evidence)

    @abstractmethod
    def misses(self, case: Case) -> str | None:
        """Why there is nothing in this heir for the method to edit; None where there is. `case.own` may still be empty."""

    @abstractmethod
    def strengths(self, case: Case) -> Sequence[Strength]:
        """What may be chosen for this heir, from the smallest edit to the largest; a single one leaves no choice.

        Many may be given: `calibrate` tries few of them.
        """

    @abstractmethod
    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, Tensor]:
        """The edited weights; those passed in stay as they are, and so do names, shapes and dtypes.

        Args:
            weights: parameters and buffers of the heir, on the CPU.
            case: the heir; `case.classes` may hold some that it has no output for.
            strength: one of `strengths`, or what `sent` gives.

        Returns:
            All of them by name, changed or not, finite; what is not in `layers` is unchanged.

        Raises:
            ShapeError: the model breaks at this strength; `auto` then goes on with others. Any other error ends the request.
        """

    def enough(self, weights: Tensors, case: Case, left: Callable[[Tensors], float], gap: float | None) -> float | None:
        """A number to be calibrated at a root, which travels with its evidence; None for methods without one.

        Args:
            weights: of the model that was measured.
            case: that model, with its evidence about one class (or about the samples), weighed on the data of the site that
                measures.
            left: accuracy of edited weights: on calibration rows of the class; on the samples themselves.
            gap: how much larger the model's mean loss is on calibration rows (of the same classes) than on the measured ones;
                None where there are none.
        """
        return None

    def sent(self, case: Case) -> Strength | None:
        """The strength that such numbers give at an heir; None where there are none."""
        return None


def shares_nothing(layers: str) -> str:
    """Why an heir that shares nothing with the evidence cannot be edited."""
    return f"needs deeper layers; it shares nothing with the evidence in layers {layers!r}"


class Unguided(Method, ABC):
    """Takes no evidence, so that nothing of it can be missing, and by itself leaves no strength to choose."""

    evidence = None
    own: Want | None = None

    def merge(self, evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
        """It uses none."""
        del evidence
        return ()

    def misses(self, case: Case) -> str | None:
        """Nothing."""
        del case
        return None

    def strengths(self, case: Case) -> Sequence[Strength]:
        """There is nothing to choose."""
        del case
        return [{}]
