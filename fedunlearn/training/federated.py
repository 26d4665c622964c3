"""Federated learning: rounds of local training, an average of the clients, and a step of the server."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from fedunlearn.errors import ExcludedError, InputError, raised
from fedunlearn.nets import load, weights_of
from fedunlearn.tensors import Tensors, average
from fedunlearn.training.base import Born, Portion, Recipe, born
from fedunlearn.training.course import Course, Keep, Make, kept_rounds as kept_rounds
from fedunlearn.training.fit import fit
from fedunlearn.training.strategies import strategy_of, usable

Run = Callable[[Recipe, Make, Tensors, Sequence[Portion]], Tensors]
Together = Callable[[int, Tensors], Iterable[Born]]  # a round's number and what it starts from -> the clients' models


def train_here(recipe: Recipe, make: Make, start: Tensors, portions: Sequence[Portion]) -> Tensors:
    """One client's local training, in this process."""
    return weights_of(fit(load(make(), start), portions, recipe))


def federated(
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
    """Train rounds of clients; every local model and every round's global model is a node of the lineage.

    Averages are weighted by the clients' numbers of rows; clients without rows take no part. Models that are not kept are
    retired: the lineage knows them, their weights go.

    Args:
        recipe: settings of each client's local training.
        make: makes an empty net.
        start: the weights that the first round starts from.
        clients: portions of each client.
        rounds: how many rounds, at least 1.
        strategy: how the server steps, one of `STRATEGIES`.
        keep: which models stay (see `kept_rounds`); local models stay with their clients.
        state: of the server's optimiser, to go on with.
        run: runs one client's training.

    Yields:
        Local and global models in order of time; the last has the recipe's name, and the server's state. Without a row at any
        client, the start, and no state.

    Raises:
        InputError: there are no rounds, or `strategy` or `keep` is unknown.
        ExcludedError: a client was to be trained on what it has excluded.
        TrainingError: a client died, or the strategy gave nothing to go on with.
    """
    course = Course.of(recipe, make, clients, rounds, keep)

    def together(number: int, weights: Tensors) -> Iterator[Born]:
        for client, portions in course.clients.items():
            try:
                trained = run(course.training(number, client), make, weights, portions)
            except (ExcludedError, InputError):
                raise
            except Exception as error:  # whatever it was, no round may go on without the client
                raise course.died(number, client, raised(error)) from error
            yield course.local(number, client, trained)

    yield from in_rounds(course, make, start, together, strategy, state)


def in_rounds(
    course: Course, make: Make, start: Tensors, together: Together, strategy: str = "fedavg", state: Tensors | None = None
) -> Iterator[Born]:
    """The server's side of a federation: average, step, and on to the next round.

    Args:
        course: the rounds by name.
        make: makes an empty net.
        start: the weights that the first round starts from.
        together: has all clients of a round trained, wherever they are; gives their models in the order of the course.
        strategy: how the server steps, one of `STRATEGIES`.
        state: of the server's optimiser, to go on with.

    Yields:
        Local and global models in order of time, as `federated` does.

    Raises:
        InputError: `strategy` is unknown.
        TrainingError: a client died, or the strategy gave nothing to go on with.
    """
    step = strategy_of(strategy)
    if not course.data:
        yield born("federated", course.recipe, load(make(), start), [])
        return
    parameters = {n for n, _ in make().named_parameters(remove_duplicate=False)}
    weights, carried = start, state or {}
    for number in range(1, course.rounds + 1):
        local: list[Tensors] = []
        for child in together(number, weights):
            local.append(child.weights)
            yield child
        mean = average(local, list(course.counts.values()))
        new, carried = step.step(weights, mean, carried, parameters)
        weights = usable(new, course.recipe.name, number, strategy)
        yield course.merged(number, weights, carried)
