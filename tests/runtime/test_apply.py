"""A home that has no row to see a model on edits it without making the net, and to the same version."""

from pathlib import Path

import pytest
import torch
from torch import nn

from fedunlearn.data import Rows, SiteData
from fedunlearn.evaluation import Scores
from fedunlearn.methods import Evidence
from fedunlearn.nets import build, head_of, load, weights_of
from fedunlearn.runtime import Worker
from fedunlearn.runtime.place.worker import _distance
from fedunlearn.runtime.tasks import Applied, Apply, Question
from fedunlearn.store import Store
from fedunlearn.tensors import Head

SPEC, SHAPE, CLASSES = {"name": "mlp", "hidden": 8}, (6,), ("a", "b", "c")


def applied(folder: Path, layers: str, held: dict[str, Rows], made: list[int]) -> Applied:
    net = build(SPEC, SHAPE, len(CLASSES))
    weights, head = weights_of(net), head_of(net, CLASSES)

    def make(outputs: int, *_: object) -> nn.Module:
        made.append(outputs)
        return build(SPEC, SHAPE, outputs)

    worker = Worker("home", Store(folder), SiteData("home", {}, held), make)
    version = worker.store.write(weights, head)
    chance = torch.Generator().manual_seed(0)
    names = weights if layers == "all" else head.names
    evidence, own = (
        Evidence({n: torch.rand(weights[n].shape, generator=chance, dtype=torch.float64) for n in names}, 10) for _ in range(2)
    )
    settings, nothing = {"alpha": 1.0, "lam": 1.0, "layers": layers}, Scores(None, None, 0, 0)
    task = Apply(
        "home", version, "fiun", settings, (evidence,), own, (), Question(("a",)), nothing, nothing, (0.05, 0.05)
    )  # fmt: skip
    answer = worker.handle(task)
    assert isinstance(answer, Applied)
    return answer


@pytest.mark.parametrize("layers", ["all", "last"])
def test_a_net_is_made_where_a_row_is_there_to_be_seen(tmp_path: Path, layers: str) -> None:
    rows = Rows(torch.randn(6, *SHAPE), torch.arange(6) % 3, tuple(map(str, range(6))), CLASSES)
    blind, seeing = list[int](), list[int]()
    without = applied(tmp_path / "without", layers, {}, blind)
    beside = applied(tmp_path / "with", layers, {"calibration": rows, "test": rows}, seeing)
    assert not blind
    assert seeing == [3]
    assert without.version == beside.version != without.base
    assert without.test == Scores(None, None, 0, 0, {"a": None})
    assert without.mask == without.test
    assert beside.test.rows_forgotten == 2


def test_activation_mask_silences_the_batchnorm_of_a_channel_at_home(tmp_path: Path) -> None:
    """A store has weights by name; what follows a convolution, only the net knows."""

    def make(outputs: int, *_: object) -> nn.Module:
        return build({"name": "resnet_cifar", "depth": 8}, (3, 8, 8), outputs).eval()

    net = make(len(CLASSES))
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
    weights, head = weights_of(net), head_of(net, CLASSES)
    worker = Worker("home", Store(tmp_path), SiteData("home"), make)
    convolutions = {n: t for n, t in weights.items() if t.dim() == 4}
    loud = {n: torch.eye(1, len(t))[0].double() for n, t in convolutions.items()}  # of each, the first channel
    evidence, own = Evidence(loud, 10), Evidence({n: torch.zeros(len(t)).double() for n, t in convolutions.items()}, 10)
    settings = {"ratio": len(loud) / sum(map(len, convolutions.values()))}
    about = Question(("a",)), Scores(None, None, 0, 0), 0.0, (0.05, 0.05)
    task = Apply("home", worker.store.write(weights, head), "activation_mask", settings, (evidence,), own, (), *about)
    answer = worker.handle(task)
    assert isinstance(answer, Applied)
    edited, quiet = load(make(len(CLASSES)), worker.store.read(answer.version).weights), []
    for norm in (m for m in edited.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.register_forward_hook(lambda _, __, out: quiet.append(bool((out[:, 0] == 0).all() and (out[:, 1:] != 0).any())))
    edited(torch.randn(4, 3, 8, 8))
    assert len(quiet) == len(convolutions)
    assert all(quiet)


def test_the_size_of_an_edit_does_not_hang_on_how_it_lies_in_memory() -> None:
    torch.manual_seed(0)
    for _ in range(20):
        before, after = torch.randn(37, 53), torch.randn(37, 53)
        turned = after.T.contiguous().T
        assert torch.equal(turned, after)
        assert _distance({"w": before.T.contiguous().T}, {"w": turned}) == _distance({"w": before}, {"w": after})


def test_a_random_mask_draws_among_parameters_alone(tmp_path: Path) -> None:
    """Places of words, or a mask over them, are no weights: zeroed, the net would be another."""

    class Placed(nn.Module):
        def __init__(self, outputs: int) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(*SHAPE, 6), nn.Linear(6, outputs)
            self.register_buffer("places", torch.rand(4, 6) + 1)
            self.register_buffer("index", torch.arange(1, 26).reshape(5, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(torch.tanh(self.body(x)))
            return out

    worker = Worker("home", Store(tmp_path), SiteData("home"), lambda outputs, *_: Placed(outputs))
    weights, head = dict(weights_of(Placed(len(CLASSES)))), Head("head", CLASSES)
    nothing = Scores(None, None, 0, 0)
    task = Apply(
        "home", worker.store.write(weights, head), "random_mask", {"ratio": 0.8}, (), None, (), Question(("a",)), nothing,
        nothing, (0.05, 0.05),
    )  # fmt: skip
    answer = worker.handle(task)
    assert isinstance(answer, Applied)
    after = worker.store.read(answer.version).weights
    assert {n for n, t in weights.items() if not torch.equal(t, after[n])} == {"body.weight", "head.weight"}
