"""Rewrite: the last layer is told what to say about the mean feature of a class. Closed form, no strength at all.

The least change, in the damage it does on the heir's own data, after which the forgotten outputs say about the class what they
say on average about the heir's own rows:

    W_F <- W_F + (W_F m_o 1' - W_F M) (M' A^-1 M)^-1 M' A^-1

W_F: the forgotten rows of the last layer, bias included; A: second moment of its inputs on the heir's own data (with a ridge);
m_o: their mean; M: one column a class, the mean of the class's inputs at its roots. That mean needs no statistic of its own:
for the divergence from the masked outputs, the gradient of the class's row is the mean of p h and that of its bias the mean of
p, p being the root's own certainty, so that their ratio is the p-weighted mean of h.

It is a rank-one model edit (as ROME's, Meng et al. 2022, arXiv 2202.05262, equation 2) towards forgetting. Outputs that stay
are left alone, so that their rows keep to the bit; nothing below the last layer changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedunlearn.methods.base import Case, Evidence, Method, Strength, Want
from fedunlearn.methods.logit_mask import no_output
from fedunlearn.methods.steer import LAST, ROWS, kept_apart
from fedunlearn.tensors import Tensors


@dataclass(frozen=True)
class Rewrite(Method):
    """Say about the class what is said on average."""

    name = "rewrite"
    layers = "last"
    evidence = Want("sum", "masked")
    own = Want("moment", rows=ROWS)
    apart = True
    retained = True

    def wants(self, classes: Sequence[str]) -> Want | None:
        """Nothing where no class is to be masked."""
        return self.evidence if classes else None

    def merge(self, evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
        """Kept apart."""
        return kept_apart(evidence)

    def misses(self, case: Case) -> str | None:
        """A request without classes, an heir without their outputs or without a bias, or one that shares nothing."""
        if not case.classes:
            return "cannot be rewritten: the request names no class"
        if why := no_output(case, "rewrite"):
            return why
        told = any(set(case.head.names) <= set(e.means) for e in case.evidence)
        return None if told else "needs deeper layers; it shares no last layer with a bias with the evidence"

    def strengths(self, case: Case) -> Sequence[Strength]:
        """There is nothing to choose."""
        del case
        return [{}]

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, Tensor]:
        """Rewrite."""
        del strength
        (weight, bias), edited, means = case.head.names, dict(weights), _means(case)
        rows = [i for i, c in enumerate(case.head.classes) if c in means]
        if not rows or bias not in weights or weight not in case.own.means:
            return edited
        moment = case.own.means[weight]
        damped = moment + LAST * (float(moment.diagonal().mean()) or 1.0) * torch.eye(len(moment), dtype=moment.dtype)
        m = torch.stack([means[case.head.classes[i]] for i in rows], 1)  # [K, classes]
        w = torch.cat([weights[weight], weights[bias][:, None]], 1)[rows].double()
        ways = torch.linalg.solve(damped, m)  # A^-1 M
        w = w + (w @ moment[:, -1:] - w @ m) @ torch.linalg.lstsq(m.T @ ways, ways.T).solution
        for name, part in ((weight, w[:, :-1]), (bias, w[:, -1])):
            edited[name] = weights[name].clone()
            edited[name][rows] = part.to(weights[name].dtype)
        return edited


def _means(case: Case) -> dict[str, Tensor]:
    """Class -> mean input of the last layer with an entry 1 for its bias; over roots, of classes that a root knows at all."""
    weight, bias = case.head.names
    found: dict[str, list[Tensor]] = {}
    for one in case.evidence:
        if one.about in case.head.classes and {weight, bias} <= one.means.keys():
            row = case.head.classes.index(one.about)
            certain = one.means[bias][row]
            if certain > 0:
                found.setdefault(one.about, []).append(torch.cat([one.means[weight][row] / certain, torch.ones(1).double()]))
    return {c: torch.stack(of).mean(0) for c, of in found.items()}
