"""The multipliers of the smallest change that keeps to several constraints at once."""

import torch
from torch import Tensor

SOFT = 1e-6  # of the diagonal: how soft the constraints are
TIGHT = 1e-12  # relative: what is taken for met


def multipliers(gram: Tensor, far: Tensor) -> Tensor:
    """The l >= 0 that minimises l' M l / 2 - d' l, by active sets (Lawson and Hanson 1974, "Solving Least Squares Problems").

    They are the multipliers of: the smallest change whose decrease along every constraint i is d_i or more. M's diagonal is
    raised by `SOFT`, so that constraints that contradict each other give a compromise instead of an endless step.

    Args:
        gram: M [K, K], positive semidefinite; constraints with a diagonal of 0 cannot be met and are left out.
        far: d [K], 0 or more.
    """
    scale = gram.diagonal().sqrt()
    able = scale > 0
    scale = torch.where(able, scale, 1.0)
    m, d = gram / scale / scale[:, None] + SOFT * torch.eye(len(far), dtype=gram.dtype), torch.where(able, far / scale, 0.0)
    found, held = torch.zeros_like(d), torch.zeros(len(d), dtype=torch.bool)
    for _ in range(3 * len(d)):
        short = torch.where(held, -torch.inf, d - m @ found)
        if not len(d) or float(short.max()) <= TIGHT * float(d.max()):
            break
        held[int(short.argmax())] = True
        while True:
            best = torch.zeros_like(d)
            best[held] = torch.linalg.solve(m[held][:, held], d[held])
            below = held & (best <= 0)
            if not bool(below.any()):
                break
            share = (found / (found - best))[below].min()  # as far as all stay at 0 or above
            found = (found + share * (best - found)).clamp(min=0)
            held &= ~(below & (found <= TIGHT * found.max()))
        found = best
    return found / scale
