"""Bounding what one row adds to a sum, and noise on the sum: the two halves of the Gaussian mechanism, without accounting.

A row adds f(gradient), once for each term of the loss. Clipped, its gradients are first scaled by min(1, C / size), so that
what it adds has an L2 norm of at most C, or C^2 for squares (Abadi et al. 2016, arXiv 1607.00133, section 3.1, for gradients;
for squares the gradient is clipped before it is squared). `size` is the L2 norm of what the row adds over all parameters that
are measured, or the root of its sum for squares: for a loss of one term both are the norm of the row's gradient. Noise is
normal, by a multiple of that bound. Whether that gives differential privacy, and how much, is not claimed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from blake3 import blake3

from fedunlearn.importance.folds import SQUARES
from fedunlearn.importance.importance import NON_NEGATIVE, Importance
from fedunlearn.tensors import Tensors


def clipped(of: Callable[[slice], Importance], rows: int, most: float) -> Importance:
    """A sum over rows, each of which was clipped. Rows go one at a time, so that the norm of each is known.

    Args:
        of: the importance of a slice of the rows, with one statistic.
        rows: how many rows there are.
        most: C, above 0.
    """
    if not rows:
        return of(slice(0, 0))
    total: dict[str, torch.Tensor] = {}
    statistic = ""
    for i in range(rows):
        ((statistic, tensors),) = of(slice(i, i + 1)).sums.items()
        size = size_of(statistic, tensors)
        factor = min(1.0, most / size) ** power(statistic) if size else 1.0
        for name, tensor in tensors.items():
            total[name] = total[name].add_(tensor, alpha=factor) if name in total else factor * tensor
    return Importance({statistic: total}, rows)


def size_of(statistic: str, row: Tensors) -> float:
    """The size of what one row adds, before it is clipped."""
    if statistic == "squares":
        return float(sum(float(t.sum()) for t in row.values()) ** 0.5)
    return float(sum(float(t.square().sum()) for t in row.values()) ** 0.5)


def power(statistic: str) -> int:
    """By which power of a factor on the gradient a statistic grows."""
    return SQUARES.power if statistic == "squares" else 1


def noisy(of: Importance, deviation: float, key: bytes, about: bytes) -> Importance:
    """A sum with normal noise on every entry; then squares and absolute values are raised to 0, moments made semidefinite.

    The noise is a function of key and label alone (BLAKE3 in keyed mode as a stream, Box and Muller's transform): whoever lacks
    the key cannot tell it from fresh noise, and the same question gets the same answer, so that asking again averages nothing.

    Args:
        of: sums of one statistic.
        deviation: standard deviation of the noise on the sums.
        key: 32 secret bytes.
        about: all that the sums depend on.
    """
    ((statistic, tensors),) = of.sums.items()
    found = {}
    for name, tensor in tensors.items():
        noise = normal(key, about + name.encode(), tensor.numel()).view(tensor.shape)
        found[name] = tensor + deviation * noise
        if statistic in NON_NEGATIVE:
            found[name].clamp_(min=0)
        elif statistic == "moment":
            found[name] = _semidefinite(found[name])
    return Importance({statistic: found}, of.count)


def normal(key: bytes, label: bytes, n: int) -> torch.Tensor:
    """Standard normal numbers [n], float64, that only the holder of the key (32 bytes) can compute."""
    pairs = -(-n // 2)
    raw = np.frombuffer(blake3(label, key=key).digest(length=16 * pairs), "<u8") >> np.uint64(11)  # 53 bits, as a double has
    uniform: np.ndarray[Any, np.dtype[np.float64]] = (raw.astype(np.float64) + 0.5) * 2.0**-53
    size, turn = np.sqrt(-2 * np.log(uniform[:pairs])), 2 * np.pi * uniform[pairs:]
    return torch.from_numpy(np.concatenate([size * np.cos(turn), size * np.sin(turn)])[:n])


def _semidefinite(moment: torch.Tensor) -> torch.Tensor:
    """The nearest symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh((moment + moment.T) / 2)
    nearest: torch.Tensor = (vectors * values.clamp(min=0)) @ vectors.T
    return nearest
