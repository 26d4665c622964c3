"""What an attacker makes of evidence: scores of single rows, and what tells of the classes in it. See `evidence_leaks.py`."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedunlearn.data import Rows
from fedunlearn.runtime.place.guard import Guard

SHRINK = 0.5  # of an entry's spread, towards the mean of all
ROUNDING = 1e-5  # relative, of entries in single precision


def limited(gradients: Tensor, statistic: str, guard: Guard) -> Tensor:
    """What each row adds to the evidence."""
    if guard.clip:
        gradients = gradients * (guard.clip / gradients.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
    return gradients.square() if statistic == "squares" else gradients


def attacks(evidence: Tensor, n: int, rows: Tensor, known: Tensor, deviation: float, squares: bool) -> dict[str, Tensor]:
    """Scores of rows [N, P], larger for a member, from what known rows [K, P] of the class are like."""
    centre, spread = known.mean(0), known.var(0)
    spread = (1 - SHRINK) * spread + SHRINK * spread.mean()
    around = spread * max(n - 1, 1e-3) / n**2 + deviation**2 + 1e-20
    way = (rows - centre) / n
    found = {"filter": ((way / around) @ (evidence - centre)) - (way.square() / around).sum(1) / 2}
    cosine = rows @ evidence / (rows.norm(dim=1) * evidence.norm()).clamp(min=1e-300)
    found["cosine"] = -(1 - cosine + 1e-12).log()  # told apart at both ends
    share, heard = n / len(rows), rows / ((n * deviation) ** 2 + (ROUNDING * n * evidence).square() + 1e-30)
    normal = heard @ rows.T + torch.eye(len(rows)).double() / (share * (1 - share))
    found["pool"] = torch.linalg.solve(normal, heard @ (n * evidence) + 1 / (1 - share))
    if squares:
        least = rows.mean() * 1e-6
        found["bound"] = ((n * evidence + least) / (rows + least)).amin(1)
    return found


def mixed(rows: Rows, n: int, classes: int, draw: np.random.Generator) -> tuple[Any, Any]:
    """Which n rows, of some classes more than of others, and their histogram."""
    labels = rows.y.numpy()
    weights = draw.dirichlet(np.full(classes, 0.5))[labels] + 1e-9
    chosen = draw.choice(len(rows), n, replace=False, p=weights / weights.sum())
    return chosen, np.bincount(labels[chosen], minlength=classes) / n


def tamed(evidence: Any, usual: Any) -> Any:
    """Gradients of rows differ by orders of magnitude; a regression is to hear the small ones, too."""
    return np.sign(evidence) * np.log1p(np.abs(evidence) / usual)
