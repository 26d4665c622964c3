"""POUR-P: projection of the last features away from the forgotten classes (Le et al., arXiv 2511.19339). Needs no data.

Where features have collapsed to one point a class (neural collapse), those points and the rows of the last layer are the
vertices of one simplex. Projecting features orthogonally to a vertex leaves the simplex of the other classes, and the outputs
of the forgotten one carry nothing: h <- (I - V V') h, V an orthonormal basis of the forgotten classes' directions.

Built from the paper's abstract, not from its equations. Differs: directions are the centred rows of the heir's own last
layer, which neural collapse says are those of the class means, so that no row of data is read; and the projection is folded
into the last layer, W <- W (I - V V'), which gives the same outputs and leaves the layers below as they are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedunlearn.methods.base import Case, Strength, Unguided
from fedunlearn.methods.logit_mask import no_output
from fedunlearn.tensors import Tensors

RANK = 1e-6  # relative: singular values below that are no direction


@dataclass(frozen=True)
class Pour(Unguided):
    """Project the forgotten classes' directions out of the last layer."""

    name = "pour"
    layers = "last"

    def misses(self, case: Case) -> str | None:
        """An heir without an output of the classes, or with no other."""
        return no_output(case, "project")

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, Tensor]:
        """Project; a head without the classes stays as it is."""
        del strength
        rows = [i for i, c in enumerate(case.head.classes) if c in case.classes]
        edited, name = dict(weights), case.head.names[0]
        weight = weights[name].double()
        _, size, ways = torch.linalg.svd((weight - weight.mean(0))[rows], full_matrices=False)
        basis = ways[size > RANK * size.max()] if len(rows) else ways
        if len(basis):
            edited[name] = (weight - weight @ basis.T @ basis).to(weights[name].dtype)
        return edited
