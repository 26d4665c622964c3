"""ActivationMask, the baseline of FisherMask (arXiv 2310.05331) that looks at activations instead of gradients.

Score of a unit: its mean activation on what is forgotten less that on what is retained, a channel's over positions too, behind
the normalisation and the nonlinearity that follow. The
top `ratio` of all units (channels of convolutions, outputs of linear layers) are silenced: their weights, their bias, and the
BatchNorm that follows.

Differs: the last layer is left alone (its outputs are the classes; silencing them is the logit mask); units that are no more
active on what is forgotten are never silenced. The paper's ratio is that of FisherMask; "auto" chooses it.
"""

from dataclasses import dataclass

from torch import Tensor

from fedunlearn.methods.base import Case, Strength, Want
from fedunlearn.methods.masks import ByRatio, names_of, top, zeroed
from fedunlearn.tensors import Tensors


@dataclass(frozen=True)
class ActivationMask(ByRatio):
    """Silence units that are active on what is forgotten and not on the rest.

    Args:
        ratio: share of units, or "auto".
        per_heir: evidence of each heir itself, as in the paper; or of its roots.
        layers: "all", or the name of a layer.

    Raises:
        InputError: a setting is out of range.
    """

    per_heir: bool = False
    layers: str = "all"
    name = "activation_mask"
    evidence = Want("activation")
    own = Want("activation")
    retained = True
    ordered = True

    def misses(self, case: Case) -> str | None:
        """An heir that shares no hidden layer with the evidence."""
        hidden = set(case.merged) - set(case.head.names)
        return None if hidden else f"needs deeper layers; it shares no hidden layer with the evidence in layers {self.layers!r}"

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, Tensor]:
        """Silence."""
        forgotten, rest = case.merged, case.own.means
        hidden = [n for n in names_of([forgotten, rest], weights) if n not in case.head.names]
        chosen = top({n: forgotten[n] - rest[n] for n in hidden}, strength["ratio"])
        return zeroed(weights, {n: unit for layer, unit in chosen.items() for n in (layer, *_along(layer, weights))})


def _along(layer: str, weights: Tensors) -> list[str]:
    """What else shapes a layer's output by unit: its bias, and the BatchNorm that stands next in the net's own order."""
    names = [n for n in weights if not n.endswith("num_batches_tracked")]
    prefix = layer.removesuffix("weight")
    found = [n for n in (prefix + "bias",) if n in weights]
    after = names[names.index(layer) + 1 + len(found) :][:4]
    norm = after[0].removesuffix("weight") if after and after[0].endswith("weight") else ""
    is_norm = norm and [norm + x for x in ("weight", "bias", "running_mean", "running_var")] == after
    if is_norm and len(weights[after[0]]) == len(weights[layer]):
        found += after[:2]
    return found
