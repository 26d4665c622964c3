"""Ranks with rows of their own, and what is trained on them; no process may be left."""

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedunlearn.data import Exclusions, Rows
from fedunlearn.nets import build, weights_of
from fedunlearn.tensors import Tensors
from fedunlearn.training import Born, Portion, Recipe, distributed

CLASSES = ("a", "b", "c")
born_by = sys.modules["fedunlearn.training.distributed"]


def portion(site: str, rows: int, excluded: Exclusions | None = None, width: int = 4) -> Portion:
    generator = torch.Generator().manual_seed(sum(site.encode()))
    x = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    keys = tuple(f"{site}{i}" for i in range(rows))
    return Portion(site, "main", Rows(x, torch.arange(rows) % 3, keys, CLASSES), excluded or Exclusions({}))


def make(seed: int = 0) -> nn.Module:
    return build({"name": "mlp", "hidden": 8}, (4,), 3, seed).double()


def recipe(**changes: Any) -> Recipe:
    plain = {"name": "m", "home": "h", "parents": (), "head": CLASSES, "epochs": 3, "lr": 0.05, "batch": 8, "seed": 1}
    return Recipe(**{**plain, **changes})


def ranks(*rows: int) -> dict[str, list[Portion]]:
    return {f"r{i}": [portion(f"r{i}", n)] for i, n in enumerate(rows)}


def train(net: Callable[[], nn.Module] = make, held: dict[str, list[Portion]] | None = None, **changes: Any) -> Born:
    return distributed(recipe(**changes), net, weights_of(net()), held or ranks(6, 6))


def close(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[n], b[n], rtol=0, atol=1e-10) for n in a)


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()


class Plain(nn.Module):
    """Two layers, and what a test does to them before every step."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 5, dtype=torch.float64)
        self.head = nn.Linear(5, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.step()
        return self.head(torch.relu(self.body(x)))  # type: ignore[no-any-return]

    def step(self) -> None: ...
