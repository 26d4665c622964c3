"""The rule that FIUn, SSD and LFSSD share: dampen weights that matter more to what is forgotten than to the model's own data.

Selective Synaptic Dampening (SSD, arXiv 2308.07707), equations 3 and 4: where M_i > alpha * F_i,
theta_i <- min(lam * F_i / M_i, 1) * theta_i. Its reference code squares gradients of batch means; here M and F are exact.
"""

import torch

from fedunlearn.tensors import Tensors


def dampen(weights: Tensors, evidence: Tensors, own: Tensors, alpha: float, lam: float) -> dict[str, torch.Tensor]:
    """Apply the rule to every parameter that both importances cover.

    Args:
        weights: the model.
        evidence: M, non-negative means, shaped as the weights.
        own: F, the same.
        alpha: weights are selected where M > alpha * F.
        lam: selected weights are multiplied by lam * F / M, never by more than 1.

    Returns:
        New weights; unselected entries are equal to the bit.
    """
    edited = dict(weights)
    for name in evidence.keys() & own.keys() & weights.keys():
        m, f, w = evidence[name], own[name], weights[name]
        factor = (lam * f / m).clamp(max=1.0)  # read only where selected, and there m > 0
        edited[name] = torch.where(m > alpha * f, (w.double() * factor).to(w.dtype), w)
    return edited


def thresholds(evidence: Tensors, own: Tensors, number: int) -> tuple[float, ...]:
    """Values of alpha that select about 1, ..., all weights, in geometric steps, fewest first.

    Any fixed grid is right by luck: the useful alpha differs 1000-fold between heirs. Steps in how many weights are
    selected fit every model.

    Args:
        evidence: M.
        own: F.
        number: how many, at least 2; fewer come back where weights are few.
    """
    ratios = [(evidence[n] / own[n]).flatten() for n in sorted(evidence.keys() & own.keys())]
    ratio = torch.cat(ratios) if ratios else torch.zeros(0)
    ratio = ratio[torch.isfinite(ratio) & (ratio > 0)].sort(descending=True).values
    n = len(ratio)
    ranks = sorted({round(n ** (i / (number - 1))) for i in range(number - 1)}) if n > 1 else []
    return (*dict.fromkeys(float(ratio[k]) for k in ranks if k < n), 0.0)
