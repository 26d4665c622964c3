"""How per-sample gradients become sums: f(gradient) summed over samples, for f = square, absolute value, or nothing.

Each f is multiplicative, f(ab) = f(a) f(b). So where a sample's gradient is an outer product (a linear layer that sees
one vector a sample), f of it is the outer product of f's, and the sum over samples is one matrix product.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 160_000  # entries of a product that stay in a core's cache between being made and being folded
SMALL, BATCHED = 60_000, 800_000  # products up to this size are made many at once, up to this many entries
CHUNK = 1_000_000  # entries of per-sample gradients held at once on the CPU
CHUNK_CUDA = 64_000_000  # the same on a GPU, which wants few, large products


@dataclass(frozen=True)
class Fold:
    """One of the three statistics of per-sample gradients.

    Args:
        of: f, elementwise; may work in place on what it is given.
        power: f(w a) = w^power f(a) for a positive weight w; 2 for squares, 1 otherwise.
    """

    of: Callable[[Tensor], Tensor]
    power: int

    def total(self, gradients: Tensor) -> Tensor:
        """Per-sample gradients [N, ...] -> sum of f over samples [...]; overwrites them."""
        return self.of(gradients).sum(0)

    def outer(self, g: Tensor, x: Tensor) -> Tensor:
        """Sum over n of f(g_n x_n^T): [N, O], [N, K] -> [O, K]."""
        return self.of(g.clone()).T @ self.of(x.clone())

    def products(self, g: Tensor, u: Tensor, out: Tensor) -> None:
        """Add to `out` [O, K] the sum over n of f(g_n u_n), with g [N, O, L] and u [N, L, K]."""
        n, o, k = g.shape[0], *out.shape
        if self is SUM:
            out += g.transpose(0, 1).reshape(o, -1) @ u.reshape(-1, k)
        elif g.is_cuda or out.numel() <= SMALL:
            step = max(1, (CHUNK_CUDA if g.is_cuda else BATCHED) // out.numel())
            for i in range(0, n, step):
                out += self.total(torch.bmm(g[i : i + step], u[i : i + step]))
        else:
            rows = max(8, min(o, BLOCK // k))
            buffer = out.new_empty(min(rows, o), k)
            for first in range(0, o, rows):
                part = out[first : first + rows]
                product = buffer[: len(part)]
                for i in range(n):
                    torch.mm(g[i, first : first + rows], u[i], out=product)
                    if self is SQUARES:
                        part.addcmul_(product, product)
                    else:
                        part.add_(self.of(product))


SQUARES = Fold(torch.Tensor.square_, 2)
ABSOLUTE = Fold(torch.Tensor.abs_, 1)
SUM = Fold(lambda gradients: gradients, 1)
FOLDS = {"squares": SQUARES, "absolute": ABSOLUTE, "sum": SUM}
