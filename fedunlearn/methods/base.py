"""What a method is: what it measures, how it merges, how it edits."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from fedunlearn.tensors import Head, Tensors

Strength = Mapping[str, float]  # settings of an edit, by name


@dataclass(frozen=True)
class Case:
    """One heir, as a method sees it.

    Args:
        evidence: merged evidence of its roots, in the heir's own names and shapes, for the parameters it shares with them.
        own: mean importances of the heir on its own data, for the same parameters.
        head: the heir's outputs.
        classes: the classes to be forgotten; empty where the request is about samples or whole sites.
    """

    evidence: Tensors
    own: Tensors
    head: Head
    classes: tuple[str, ...]


class Method(ABC):
    """A way to forget. Its fields are its settings.

    `statistic` is what it has measured for it, `layers` which parameters it edits ("all", "last", or names), and `needs`
    what it cannot do without beyond evidence (a backend that cannot grant it refuses).
    """

    name: str
    statistic: str | None = "squares"
    layers: str = "all"
    needs: frozenset[str] = frozenset()

    @abstractmethod
    def merge(self, evidence: Sequence[Tensors]) -> dict[str, torch.Tensor]:
        """Evidence of several models, already aligned to one heir, as one."""

    @abstractmethod
    def misses(self, case: Case) -> str | None:
        """Why there is nothing in this heir for the method to edit; None where there is. `case.own` may still be empty."""

    @abstractmethod
    def strengths(self, case: Case) -> Sequence[Strength]:
        """The strengths to choose from for this heir; a single one leaves no choice."""

    @abstractmethod
    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
        """The edited weights; those passed in stay as they are, and so do names, shapes and dtypes."""
