"""DAMP, a baseline: project the forgotten classes' directions out of every layer (Hatami et al. 2026, arXiv 2604.15166).

At the input of each linear or convolutional layer every class has a prototype, its mean (over positions too). What the retained
classes' prototypes do not span of a forgotten class's prototype is its direction; U is a basis of those directions. The layer's
weights lose part of them,

    W <- W - a W U U',

at every tap of a kernel alike, so that what a layer makes of retained prototypes stays as it is. a grows with how well the two
sides can be told apart there: twice the balanced accuracy of the nearest prototype, less one; small early and large late. All
prototypes are of the model before the edit: one pass over the rows, and a closed form. It needs rows of the class at each
heir's home, which makes it a simulation.

Differs, perhaps: written after the paper's abstract, which takes the scale from the separability of probes. The nearest
prototype is our probe; the span by least squares is our reading, by which a layer of no more inputs than there are retained
classes stays as it is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedunlearn.data import Rows
from fedunlearn.methods.base import FORGOTTEN_AT_HEIRS, RETAINED_AT_HEIRS, Case, Home, Strength, Unguided
from fedunlearn.nets import batches, load
from fedunlearn.tensors import Tensors

RANK = 1e-6  # relative to a prototype: a residual below that is no direction
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Damp(Unguided):
    """Project the forgotten classes' directions out of every layer, the more the later."""

    name = "damp"

    @property
    def needs(self) -> frozenset[str]:
        """Both kinds of rows, for prototypes."""
        return frozenset({FORGOTTEN_AT_HEIRS, RETAINED_AT_HEIRS})

    def misses(self, case: Case) -> str | None:
        """A request without classes."""
        return None if case.classes else "cannot be projected: the request names no class"

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, Tensor]:
        """Project; an heir without rows of either side stays as it is."""
        del strength
        edited = dict(weights)
        if case.home is None or not len(case.home.forgotten) or not len(case.home.retained):
            return edited
        load(case.home.net, weights)
        forgotten, retained = (_inputs(case.home, rows) for rows in (case.home.forgotten, case.home.retained))
        for name in forgotten.keys() & retained.keys() & weights.keys():
            gone, kept = _prototypes(forgotten[name], case.home.forgotten), _prototypes(retained[name], case.home.retained)
            basis = _beyond(gone, kept)
            if len(basis):
                scale = _apart(forgotten[name], retained[name], gone, kept)
                weight = weights[name].double()
                along = torch.einsum("oi...,ki->ok...", weight, basis)
                edited[name] = (weight - scale * torch.einsum("ok...,ki->oi...", along, basis)).to(weights[name].dtype)
        return edited


def _inputs(home: Home, rows: Rows) -> dict[str, Tensor]:
    """Weight of a layer -> its inputs, means over positions, a row each [N, inputs]; layers in groups are left out."""
    found: dict[str, list[Tensor]] = {}
    hooks = []
    for layer, module in home.net.named_modules():
        if isinstance(module, nn.Linear) or (isinstance(module, CONVOLUTIONS) and module.groups == 1):

            def keep(module: nn.Module, given: tuple[Tensor, ...], name: str = f"{layer}.weight") -> None:
                x = given[0].movedim(1, -1) if isinstance(module, CONVOLUTIONS) else given[0]
                found.setdefault(name, []).append(x.double().flatten(1, -2).mean(1).cpu() if x.dim() > 2 else x.double().cpu())

            hooks.append(module.register_forward_pre_hook(keep))
    try:
        with torch.no_grad():
            for x in batches(home.net, rows.x):
                home.net(x)
    finally:
        for hook in hooks:
            hook.remove()
    return {n: torch.cat(parts) for n, parts in found.items() if sum(map(len, parts)) == len(rows)}


def _prototypes(inputs: Tensor, rows: Rows) -> Tensor:
    """The mean input of each class that has rows [classes, inputs]."""
    return torch.stack([inputs[rows.y == y].mean(0) for y in sorted(set(rows.y.tolist()))])


def _beyond(gone: Tensor, kept: Tensor) -> Tensor:
    """An orthonormal basis of what `gone` has and `kept` does not span [K, inputs]."""
    within = torch.linalg.lstsq(kept.T, gone.T, driver="gelsd").solution
    _, size, ways = torch.linalg.svd(gone - (kept.T @ within).T, full_matrices=False)
    basis: Tensor = ways[size > RANK * torch.linalg.vector_norm(gone)]
    return basis


def _apart(forgotten: Tensor, retained: Tensor, gone: Tensor, kept: Tensor) -> float:
    """How well the nearest prototype tells the sides apart: twice its balanced accuracy less one, at least 0."""
    right = [torch.cdist(x, torch.cat([gone, kept])).argmin(1) < len(gone) for x in (forgotten, retained)]
    return max(0.0, float(right[0].double().mean()) - float(right[1].double().mean()))
