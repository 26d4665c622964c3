"""Masks that are chosen by the whole Fisher instead of its diagonal: for an open question, on nets of some thousand weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from fedunlearn.methods import Case
from fedunlearn.methods.base import FORGOTTEN_AT_HEIRS, RETAINED_AT_HEIRS, Home, Strength
from fedunlearn.methods.masks import ByRatio, names_of, zeroed
from fedunlearn.nets import load
from fedunlearn.tensors import Tensors

ROWS = 128  # at a time
_ORDERS: WeakKeyDictionary[nn.Module, dict[bool, Tensor]] = WeakKeyDictionary()  # of a home's net: every strength takes a part


@dataclass(frozen=True)
class JointMask(ByRatio):
    """Zero the weights of linear layers that together, to second order, cost most of what is forgotten and least of the rest.

    That weights w of a set S go to zero raises the divergence from a model's own outputs by about w_S' F w_S / 2, F being the
    Fisher over its own outputs (FisherMask's). The set grows greedily by the weight that adds most to w_S' (F_f - F_r) w_S, F_f
    of what is forgotten and F_r of the rest, as long as it adds anything; with F whole, what is in the set already counts.

    Args:
        ratio: share of weights, or "auto".
        whole: the whole Fisher; or its diagonal.

    Raises:
        InputError: the ratio is no fraction.
    """

    whole: bool = True
    name = "joint mask"
    evidence = own = None

    @property
    def needs(self) -> frozenset[str]:
        """All rows: sums of squares, which sites send, have no place for pairs of weights."""
        return frozenset({FORGOTTEN_AT_HEIRS, RETAINED_AT_HEIRS})

    def misses(self, case: Case) -> str | None:
        """Nothing."""
        del case
        return None

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, Tensor]:
        """The first of the weights, in the order in which they are chosen."""
        if case.home is None:
            return dict(weights)
        names = names_of([weights], weights)
        sizes = [weights[n].numel() for n in names]
        chosen = torch.zeros(sum(sizes), dtype=torch.bool)
        chosen[self._order(weights, case.home, names)[: round(strength["ratio"] * len(chosen))]] = True
        parts = zip(names, torch.split(chosen, sizes), strict=True)
        return zeroed(weights, {n: part.view(weights[n].shape) for n, part in parts})

    def _order(self, weights: Tensors, home: Home, names: Sequence[str]) -> Tensor:
        """Positions in all weights of linear layers, one after another, in the order in which they are chosen."""
        known = _ORDERS.setdefault(home.net, {})
        if self.whole not in known:
            net = load(home.net, weights)
            w = torch.cat([weights[n].double().flatten() for n in names])
            gain = w[:, None] * (fisher(net, home.forgotten.x, names) - fisher(net, home.retained.x, names)) * w
            known[self.whole] = greedy(gain if self.whole else gain.diag().diag())
        return known[self.whole]


def fisher(net: nn.Module, x: Tensor, names: Sequence[str]) -> Tensor:
    """Mean over rows of sum over y of p(y|x) g g', g = d log p(y|x) / d weights: [weights, weights], in double precision.

    Args:
        net: in eval mode.
        x: rows [N, ...].
        names: of the weights.
    """
    of = dict(net.double().named_parameters())
    free, fixed = {n: of[n].detach() for n in names}, {n: p.detach() for n, p in of.items() if n not in names}
    fixed |= dict(net.named_buffers())

    def logs(free: Tensors, row: Tensor) -> Tensor:
        return torch.log_softmax(functional_call(net, {**fixed, **free}, (row[None],))[0], 0)

    total = torch.zeros(())
    for part in torch.split(x.double(), ROWS):
        slopes = vmap(jacrev(logs), (None, 0))(free, part)  # of each weight: [rows, outputs, *shape]
        p = vmap(logs, (None, 0))(free, part).exp()
        g = torch.cat([slopes[n].flatten(2) for n in names], 2) * p.sqrt()[..., None]
        total = total + g.flatten(0, 1).T @ g.flatten(0, 1)
    net.float()
    return total / len(x)


def greedy(gain: Tensor) -> Tensor:
    """Positions in the order in which each adds most to 1_S' gain 1_S, as long as it adds anything.

    Args:
        gain: symmetric [n, n].
    """
    adds, free, order = gain.diag().clone(), torch.ones(len(gain), dtype=torch.bool), list[int]()
    while bool(free.any()):
        best = int(adds.masked_fill(~free, -torch.inf).argmax())
        if adds[best] <= 0:
            break
        order.append(best)
        free[best] = False
        adds += 2 * gain[best]
    return torch.tensor(order, dtype=torch.int64)
