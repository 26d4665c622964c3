"""FisherMask (Liu et al., "Fisher Information-based Machine Unlearning", arXiv 2310.05331).

Importance: F_i(D) = mean of sum over y of p(y|x) (d log p(y|x) / d theta_i)^2, the model's own outputs standing in for labels.
Score: F_i(forgotten) - F_i(retained). Units: a kernel (out, in) of a convolution, by its mean; a single weight of a linear
layer; biases and normalisations stay. The top `ratio` of all units are set to zero; then, optionally, fine-tuning on what is
retained, with the training's learning rate and its two drops compressed into a few epochs.

Differs: squares are taken per sample (the public code squares batch means); units that matter no more to what is forgotten
than to the rest are never masked; in the paper every model has evidence of its own (`per_heir`), here by default that of the
roots is inherited. The paper's ratio is 0.02 on CIFAR and 0.04 on MNIST and TinyImageNet; "auto" chooses it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fedunlearn.errors import InputError
from fedunlearn.methods.base import RETAINED_AT_HEIRS, Case, Strength, Want, shares_nothing
from fedunlearn.methods.masks import ByRatio, names_of, steps, top, units, zeroed
from fedunlearn.methods.tuning import labels, tuned, whole
from fedunlearn.tensors import Tensors

DROPS = (0.5, 0.75)  # of the epochs: where the learning rate falls to a tenth (epochs 80 and 120 of 160 in the paper)
TRIED = 5  # ratios that "auto" tries where each costs a fine-tuning


@dataclass(frozen=True)
class FisherMask(ByRatio):
    """Zero units that matter to what is forgotten and not to the rest.

    Args:
        ratio: share of units, or "auto".
        tune: epochs of fine-tuning afterwards; 0 for none, 5 in the paper.
        lr: its first learning rate.
        per_heir: evidence of each heir itself, as in the paper; or of its roots.
        layers: "all", "last", or the name of a layer or parameter.

    Raises:
        InputError: a setting is out of range.
    """

    tune: int = 0
    lr: float = 0.1
    per_heir: bool = False
    layers: str = "all"
    name = "fisher_mask"
    evidence = Want("squares", "own")
    own = Want("squares", "own")
    retained = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not whole(self.tune) or not self.lr > 0:
            raise InputError(
                f"{self.name}: tune is {self.tune!r} and lr {self.lr}, expected a whole number from 0 up and above 0"
            )

    @property
    def needs(self) -> frozenset[str]:
        """Retained data for fine-tuning."""
        return super().needs | ({RETAINED_AT_HEIRS} if self.tune else set())

    def misses(self, case: Case) -> str | None:
        """An heir that shares no parameter with the evidence."""
        return None if case.merged else shares_nothing(self.layers)

    def strengths(self, case: Case) -> Sequence[Strength]:
        """Shares of units; few where each costs a fine-tuning."""
        return steps(TRIED) if self.tune and self.ratio == "auto" else super().strengths(case)

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, Tensor]:
        """Mask, and fine-tune."""
        edited = zeroed(weights, top(unit_scores(case, weights), strength["ratio"]))
        if not self.tune or case.home is None:
            return edited
        return tuned(case.home, edited, case.home.retained, labels, epochs=int(self.tune), lr=self.lr, drops=DROPS)


def unit_scores(case: Case, weights: Tensors) -> dict[str, Tensor]:
    """How much more each unit of some weights matters to what is forgotten than to the rest."""
    forgotten, rest = case.merged, case.own.means
    return {n: units(forgotten[n]) - units(rest[n]) for n in names_of([forgotten, rest], weights)}
