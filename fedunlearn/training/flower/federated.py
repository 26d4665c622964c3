"""The federation of `training.federated`, its rounds run by Flower: its strategies, its messages, its ClientApp."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdam, FedAvg
from flwr.serverapp.strategy.fedopt import FedOpt

from fedunlearn.errors import ExcludedError, InputError
from fedunlearn.nets import load
from fedunlearn.tensors import Tensors, average
from fedunlearn.training.base import Born, Portion, Recipe, born
from fedunlearn.training.course import Course, Keep, Make
from fedunlearn.training.federated import Run, train_here
from fedunlearn.training.flower.grid import LocalGrid, at_server
from fedunlearn.training.flower.wrapped import Wrapped
from fedunlearn.training.strategies import rounds_of, strategy_of, usable

STRATEGIES: dict[str, Callable[..., FedAvg]] = {"fedavg": FedAvg, "fedadam": FedAdam}


@dataclass
class _Round:
    """What came of a round; weights of what is not kept are let go."""

    local: dict[str, Tensors] = field(default_factory=dict)
    merged: Tensors = field(default_factory=dict)


class _Watched(Wrapped):
    """Flower's strategy for the parameters; the average for buffers; an error where Flower would go on without a client."""

    def __init__(self, inside: FedAvg, name: str, course: Course, grid: LocalGrid, parameters: set[str], done: int) -> None:
        super().__init__(inside)
        self.name, self.course, self.grid, self.parameters, self.done = name, course, grid, parameters, done
        self.rounds: list[_Round] = []

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """Show the strategy the parameters alone, send the clients all."""
        messages = list(self.inside.configure_train(server_round, self._parameters(arrays), config, grid))
        for message in messages:
            message.content["arrays"] = arrays
        return sorted(messages, key=lambda m: m.metadata.dst_node_id)  # sampling has shuffled them

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Refuse a round that somebody is missing from."""
        course, answered = self.course, {m.metadata.src_node_id: m for m in replies}
        for node, client in enumerate(course.clients, 1):
            if isinstance(self.grid.failures.get(node), ExcludedError | InputError):
                raise self.grid.failures[node]
            if node not in answered:
                raise course.died(server_round, client, "it did not answer")
            if answered[node].has_error():
                raise course.died(server_round, client, str(answered[node].error.reason)) from self.grid.failures.get(node)
        weights = {c: _tensors(answered[node].content) for node, c in enumerate(course.clients, 1)}
        for message in answered.values():
            message.content["arrays"] = self._parameters(message.content.array_records["arrays"])
        arrays, metrics = self.inside.aggregate_train(self.done + server_round, list(answered.values()))
        mean = average(list(weights.values()), list(course.counts.values()))
        stepped = arrays.to_torch_state_dict() if arrays else None
        new = None if stepped is None else {n: stepped[n].to(t.dtype) if n in stepped else t for n, t in mean.items()}
        merged = usable(new, course.recipe.name, server_round, self.name)
        kept = server_round in course.kept
        self.rounds.append(_Round(weights if course.locals_too else {}, merged if kept else {}))
        return _arrays(merged), metrics

    def _parameters(self, arrays: ArrayRecord) -> ArrayRecord:
        return ArrayRecord({n: a for n, a in arrays.items() if n in self.parameters})


def federated_flower(
    recipe: Recipe,
    make: Make,
    start: Tensors,
    clients: Mapping[str, Sequence[Portion]],
    rounds: int,
    strategy: str = "fedavg",
    keep: Keep = "last",
    state: Tensors | None = None,
    run: Run = train_here,
) -> Iterator[Born]:
    """Train rounds of clients as `federated` does, with Flower: the same seeds, names and, up to rounding, weights.

    Everything is trained before the first model is yielded; weights of models that are not kept are empty then.

    Args:
        recipe: settings of each client's local training.
        make: makes an empty net.
        start: the weights that the first round starts from.
        clients: portions of each client.
        rounds: how many rounds, at least 1.
        strategy: "fedavg" or "fedadam", as Flower has them.
        keep: which models stay (see `kept_rounds`).
        state: of the server's optimiser, to go on with; either backend's.
        run: runs one client's training, inside a ClientApp.

    Yields:
        Local and global models in order of time; the last has the recipe's name, and the server's state.

    Raises:
        InputError: there are no rounds, or `strategy` or `keep` is unknown.
        ExcludedError: a client was to be trained on what it has excluded.
        TrainingError: a client died, or the strategy gave nothing to go on with.
    """
    strategy_of(strategy)
    course = Course.of(recipe, make, clients, rounds, keep)
    if not course.clients:
        yield born("federated", recipe, load(make(), start), [])
        return
    parameters = {n for n, _ in make().named_parameters(remove_duplicate=False)}
    several = len(course.clients)
    grid = LocalGrid(_client_app(course, make, run), {i: {"site": c} for i, c in enumerate(course.clients, 1)})
    with at_server():
        inside = STRATEGIES[strategy](fraction_evaluate=0.0, min_train_nodes=several, min_available_nodes=several)
        _resume(inside, state or {})
        watched = _Watched(inside, strategy, course, grid, parameters, rounds_of(state or {}))
        watched.start(grid, _arrays(start), num_rounds=rounds, train_config=ConfigRecord())
    after = _state(inside, rounds_of(state or {}) + rounds)
    for number, done in enumerate(watched.rounds, 1):
        for client in course.clients:
            yield course.local(number, client, done.local.get(client, {}))
        yield course.merged(number, done.merged, after)


def _client_app(course: Course, make: Make, run: Run) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = str(context.node_config["site"])
        number = cast(int, message.content.config_records["config"]["server-round"])
        weights = run(course.training(number, client), make, _tensors(message.content), course.clients[client])
        metrics = MetricRecord({"num-examples": course.counts[client]})
        return Message(RecordDict({"arrays": _arrays(weights), "metrics": metrics}), reply_to=message)

    return app


def _arrays(weights: Tensors) -> ArrayRecord:
    return ArrayRecord(dict(weights))


def _tensors(content: RecordDict) -> Tensors:
    return dict(content.array_records["arrays"].to_torch_state_dict())


def _resume(strategy: FedAvg, state: Tensors) -> None:
    if isinstance(strategy, FedOpt) and state:
        strategy.m_t, strategy.v_t = ({n[2:]: t.numpy() for n, t in state.items() if n.startswith(f"{k}.")} for k in ("m", "v"))


def _state(strategy: FedAvg, rounds: int) -> Tensors:
    if not isinstance(strategy, FedOpt):
        return {}
    found = {"round": torch.tensor(rounds)}
    for key, moment in (("m", strategy.m_t), ("v", strategy.v_t)):
        found |= {f"{key}.{n}": torch.from_numpy(np.asarray(a).copy()) for n, a in (moment or {}).items()}
    return found
