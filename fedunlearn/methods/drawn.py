"""Small heirs, drawn by seeds, on which methods are tried against the laws."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedunlearn.data import Rows
from fedunlearn.errors import InputError
from fedunlearn.methods.base import Case, Evidence, Home, Method, Want
from fedunlearn.nets import load
from fedunlearn.tensors import Head, Tensors, names_in

HEAD = Head("head", ("a", "b", "c"))  # of the heirs; b is to be forgotten
SHAPES = {"body.weight": (2, 2), "norm.weight": (2,), "norm.bias": (2,), "head.weight": (3, 2), "head.bias": (3,)}
BUFFERS = {"norm.running_mean": torch.zeros(2), "norm.running_var": torch.ones(2), "norm.num_batches_tracked": torch.tensor(4)}
BLANK = 0.1  # how many tensors, and how many entries of the others, are zero


class Net(nn.Module):
    """A layer, a BatchNorm, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [N, 3] of inputs [N, 2]."""
        out: Tensor = self.head(torch.relu(self.norm(self.body(x))))
        return out


class Draw:
    """Small heirs of a method, by a seed."""

    def __init__(self, method: Method, seed: int) -> None:
        self.method, self.generator = method, torch.Generator().manual_seed(seed)
        try:
            self.layers = frozenset(names_in(method.layers, list(SHAPES), HEAD))
        except InputError:  # layers of the user's own net, which none here is
            self.layers = frozenset(SHAPES)

    def numbers(self, shape: Sequence[int], low: int, high: int) -> Tensor:
        """Float64 in thousandths, some of them 0: numbers so small that their squares vanish tell nothing about a method."""
        found = torch.randint(1000 * low, 1000 * high + 1, tuple(shape), generator=self.generator).double() / 1000
        blank = torch.rand(tuple(shape), generator=self.generator) < BLANK
        return found.masked_fill(blank | (torch.rand((), generator=self.generator) < BLANK), 0.0)

    def weights(self) -> dict[str, Tensor]:
        """Of a `Net`, in its own order."""
        drawn = {n: self.numbers(s, -4, 4).float() for n, s in SHAPES.items()}
        return {n: (drawn | BUFFERS)[n].clone() for n in Net().state_dict()}

    def means(self, want: Want | None) -> dict[str, Tensor]:
        """Of a statistic, in its own shapes and signs, of the layers that the method asks for."""
        if want is None:
            return {}
        if want.statistic == "activation":
            found = {n: self.numbers(s[:1], -5, 5) for n, s in SHAPES.items() if len(s) == 2}
        elif want.statistic == "moment":
            inputs = {"body.weight": self.numbers((4, 2), -3, 3), "head.weight": self.numbers((4, 3), -3, 3)}
            found = {n: h.T @ h / len(h) for n, h in inputs.items()}
        else:
            low, high = (-3, 3) if want.statistic == "sum" else (0, 1000)
            found = {n: self.numbers(s, low, high) for n, s in SHAPES.items()}
        return {n: t for n, t in found.items() if n in self.layers}

    def evidence(self, about: str) -> Evidence:
        """Of one root, about a class where the method keeps classes apart; about samples where it is empty."""
        rows = int(torch.randint(1, 51, (), generator=self.generator))
        enough = float(self.numbers((), 0, 20).abs()) + 0.1 if self.method.apart else None
        want = self.method.evidence if about else self.method.wants(())
        return Evidence(self.means(want), rows, about if self.method.apart else "", enough)

    def home(self, weights: Tensors) -> Home | None:
        """Rows at the heir, those that the method needs; none where it needs none."""

        def rows(labels: Sequence[int]) -> Rows:
            x = self.numbers((len(labels), 2), -2, 2).float()
            return Rows(x, torch.tensor(labels), tuple(map(str, range(len(labels)))), HEAD.classes)

        net = load(Net(), weights).eval()
        return Home.granted(self.method.needs, net, rows([1, 1]), rows([0, 2, 0, 2]))

    def heir(self, abouts: Sequence[str] = ("b",)) -> tuple[dict[str, Tensor], Case]:
        """An heir that is to forget class b, as the method sees it after its merge."""
        weights = self.weights()
        evidence = [self.evidence(about) for about in abouts] if self.method.evidence else []
        own = Evidence(self.means(self.method.own), int(torch.randint(1, 501, (), generator=self.generator)))
        return weights, Case(self.method.merge(evidence) if evidence else (), own, HEAD, ("b",), self.home(weights))
