"""Small heirs of every kind a method may meet: weights, evidence in the shapes that it asks for, and a home to train at."""

from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from fedunlearn.data import Rows
from fedunlearn.methods import Case, Evidence, Method, Want
from fedunlearn.methods.base import Home
from fedunlearn.nets import load
from fedunlearn.tensors import Head, Tensors

HEAD = Head("head", ("a", "b", "c"))
SHAPES = {"body.weight": (2, 2), "norm.weight": (2,), "norm.bias": (2,), "head.weight": (3, 2), "head.bias": (3,)}
BUFFERS = {"norm.running_mean": torch.zeros(2), "norm.running_var": torch.ones(2), "norm.num_batches_tracked": torch.tensor(4)}


class Net(nn.Module):
    """A layer, a BatchNorm, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.norm(self.body(x))))
        return out


def arrays_of(shape: Sequence[int], low: int, high: int) -> st.SearchStrategy[Tensor]:
    """Thousandths: numbers so small that their squares vanish tell nothing about a method."""
    thousandths = arrays("int64", tuple(shape), elements=st.integers(1000 * low, 1000 * high))
    return thousandths.map(lambda a: torch.from_numpy(a).double() / 1000)


@st.composite
def weights_of_net(draw: st.DrawFn) -> dict[str, Tensor]:
    drawn = {n: draw(arrays_of(s, -4, 4)).float() for n, s in SHAPES.items()}
    return {n: (drawn | BUFFERS)[n].clone() for n in Net().state_dict()}


def means_of(draw: st.DrawFn, want: Want | None) -> dict[str, Tensor]:
    """Means of a statistic, in its own shapes and signs."""
    if want is None:
        return {}
    if want.statistic == "activation":
        return {n: draw(arrays_of(s[:1], -5, 5)) for n, s in SHAPES.items() if len(s) == 2}
    if want.statistic == "moment":
        inputs = {"body.weight": draw(arrays_of((4, 2), -3, 3)), "head.weight": draw(arrays_of((4, 3), -3, 3))}
        return {n: h.T @ h / len(h) for n, h in inputs.items()}
    low = -3 if want.statistic == "sum" else 0
    return {n: draw(arrays_of(s, low, 1000 if low == 0 else 3)) for n, s in SHAPES.items()}


def evidence_of(draw: st.DrawFn, method: Method, about: str) -> Evidence:
    enough = draw(st.floats(0.1, 20)) if method.apart else None
    return Evidence(means_of(draw, method.evidence), draw(st.integers(1, 50)), about if method.apart else "", enough)


@st.composite
def homes(draw: st.DrawFn, weights: Tensors) -> Home:
    def rows(labels: Sequence[int]) -> Rows:
        x = draw(arrays_of((len(labels), 2), -2, 2)).float()
        return Rows(x, torch.tensor(labels), tuple(map(str, range(len(labels)))), HEAD.classes)

    return Home(load(Net(), weights).eval(), rows([1, 1]), rows([0, 2, 0, 2]))


@st.composite
def cases(draw: st.DrawFn, method: Method, roots: int = 1) -> tuple[dict[str, Tensor], Case]:
    """An heir that is to forget class b, as a method sees it after its merge."""
    weights = draw(weights_of_net())
    evidence = [evidence_of(draw, method, "b") for _ in range(roots)] if method.evidence else []
    own = Evidence(means_of(draw, method.own), draw(st.integers(1, 500)))
    merged = method.merge(evidence) if evidence else ()
    return weights, Case(merged, own, HEAD, ("b",), draw(homes(weights)))
