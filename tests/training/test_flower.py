"""Rounds that Flower runs give what rounds in this process give, and never go on without a client."""

import logging
import sys
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity
from torch import nn

from fedunlearn.data import Exclusions, Selection
from fedunlearn.errors import ExcludedError, InputError, TrainingError
from fedunlearn.nets import weights_of
from fedunlearn.tensors import Tensors, equal
from fedunlearn.training import Recipe, federated
from fedunlearn.training.federated import train_here
from fedunlearn.training.flower import LocalGrid, federated as ours, federated_flower
from fedunlearn.training.flower.grid import at_server
from tests.training.test_births import CLASSES, START, make, portion, recipe
from tests.training.test_federated import TWO, dying

THREE = {**TWO, "nobody": [portion("nobody", 0, 2)], "t": [portion("t", 12, 3)]}


def close(a: Tensors, b: Tensors, tolerance: float) -> bool:
    return a.keys() == b.keys() and all(
        a[n].dtype == b[n].dtype and torch.allclose(a[n], b[n], rtol=tolerance, atol=tolerance) for n in a
    )


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
@pytest.mark.parametrize("keep", ["last", "all", {"every": 2}])
def test_both_backends_give_the_same_family(strategy: str, keep: Any) -> None:
    """In float64, to 1e-10: Flower weighs clients by fractions of its own rounding."""
    here = list(federated(recipe(), make, START, THREE, 3, strategy, keep))
    there = list(federated_flower(recipe(), make, START, THREE, 3, strategy, keep))
    assert [b.model for b in here] == [b.model for b in there]
    kept = [(a, b) for a, b in zip(here, there, strict=True) if a.model.kept]
    assert all(close(a.weights, b.weights, 1e-10) for a, b in kept)
    assert close(here[-1].state, there[-1].state, 1e-10)
    assert all(not b.weights for b in there if not b.model.kept)


class WithBuffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.body = nn.Linear(4, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.relu(self.body(self.norm(x.float()))))
        return out


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
def test_in_float32_and_with_buffers_both_agree_to_rounding(strategy: str) -> None:
    """To 1e-6: Flower averages in float32, and three rounds of training pass on what that rounds off."""
    torch.manual_seed(0)
    start = weights_of(WithBuffers())
    here = list(federated(recipe(), WithBuffers, start, THREE, 3, strategy))[-1]
    there = list(federated_flower(recipe(), WithBuffers, start, THREE, 3, strategy))[-1]
    assert close(here.weights, there.weights, 1e-6)
    assert here.weights["norm.num_batches_tracked"] == there.weights["norm.num_batches_tracked"] > 0
    assert not equal(here.weights, start)


def test_either_backend_goes_on_from_the_state_of_the_other() -> None:
    first = list(federated(recipe(), make, START, TWO, 1, "fedadam"))[-1]
    here = list(federated(recipe(), make, first.weights, TWO, 2, "fedadam", state=first.state))[-1]
    there = list(federated_flower(recipe(), make, first.weights, TWO, 2, "fedadam", state=first.state))[-1]
    assert int(there.state["round"]) == 3
    assert close(here.weights, there.weights, 1e-10)
    assert close(here.state, there.state, 1e-10)


def test_a_client_that_dies_ends_the_training() -> None:
    with pytest.raises(
        TrainingError, match=r"model 'm': round 2 of 3: client 's' died: OSError: the disk is gone; nothing of"
    ) as e:
        list(federated_flower(recipe(), make, START, TWO, 3, run=dying))
    assert isinstance(e.value.__cause__, OSError)


def test_training_on_an_excluded_row_keeps_its_kind() -> None:
    excluded = Exclusions({"r-7": Selection(samples=("main/n2",))})
    with pytest.raises(ExcludedError, match="training on 1 excluded rows"):
        list(federated_flower(recipe(), make, START, {"n": [portion("n", 5, 0, excluded)]}, 1))


def test_a_strategy_that_gives_nothing_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> tuple[ArrayRecord | None, MetricRecord | None]:
            return None, None

    monkeypatch.setitem(ours.STRATEGIES, "fedavg", Nothing)
    with pytest.raises(TrainingError, match="model 'm': round 1: strategy 'fedavg' gave nothing, expected the weights"):
        list(federated_flower(recipe(), make, START, TWO, 2))


def test_what_is_wrong_is_said_as_without_flower() -> None:
    with pytest.raises(InputError, match="unknown strategy 'fedprox'"):
        list(federated_flower(recipe(), make, START, TWO, 1, "fedprox"))
    with pytest.raises(InputError, match="rounds is 0, expected at least 1"):
        list(federated_flower(recipe(), make, START, TWO, 0))
    (alone,) = federated_flower(recipe(), make, START, {"n": [portion("n", 0, 0)]}, 2)
    assert equal(alone.weights, START)


def test_without_flower_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith("fedunlearn.training.flower") or n.partition(".")[0] == "flwr"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "flwr", None)
    with pytest.raises(InputError, match=r'Flower cannot be imported .*; install it: pip install "fedunlearn\[flower\]"'):
        import fedunlearn.training.flower  # noqa: F401


def test_a_grid_answers_as_a_deployment_does() -> None:
    app = ClientApp()

    @app.query("count")
    def count(message: Message, context: Any) -> Message:
        context.state["seen"] = MetricRecord({"n": context.state.get("seen", {"n": 0})["n"] + 1})
        return Message(RecordDict({"seen": context.state["seen"]}), reply_to=message)

    grid = LocalGrid(app, {7: {"site": "a"}, 8: {"site": "b"}})
    before, level = TaskIdentity._run_id, logging.getLogger("flwr").level
    with at_server():
        for _ in range(2):
            replies = list(grid.send_and_receive([Message(RecordDict(), 7, "query.count")]))
        (wrong,) = grid.send_and_receive([grid.create_message(RecordDict(), "query.other", 8, "")])
    assert replies[0].content["seen"]["n"] == 2
    assert wrong.has_error()
    assert wrong.error.code == 2
    assert isinstance(grid.failures[8], ValueError)
    assert TaskIdentity._run_id == before
    assert logging.getLogger("flwr").level == level
    assert list(grid.get_node_ids()) == [7, 8]
    with pytest.raises(InputError, match="has no run to tell about"):
        _ = grid.run


def test_clients_get_what_the_recipe_says() -> None:
    seen: list[Recipe] = []

    def noted(mine: Recipe, *args: Any) -> Tensors:
        seen.append(mine)
        return train_here(mine, *args)

    list(federated_flower(recipe(), make, START, TWO, 2, run=noted))
    there, seen[:] = list(seen), []
    list(federated(recipe(), make, START, TWO, 2, run=noted))
    assert seen == there
    assert seen[0].head == CLASSES
