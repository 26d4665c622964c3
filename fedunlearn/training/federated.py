"""Federated learning: rounds of local training and weighted averaging (FedAvg, McMahan et al. 2017)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import nn

from fedunlearn.errors import InputError
from fedunlearn.lineage import Model
from fedunlearn.nets import load
from fedunlearn.tensors import Tensors, average
from fedunlearn.training.base import Born, Portion, Recipe, born, seed_of
from fedunlearn.training.fit import fit


def federated(
    recipe: Recipe, make: Callable[[], nn.Module], start: Tensors, clients: Mapping[str, Sequence[Portion]], rounds: int
) -> Iterator[Born]:
    """Train rounds of clients; every local model and every round's average is a node of the lineage.

    Only the last average is kept; the others are retired: the lineage knows them, their weights are gone. Averages are
    weighted by the clients' numbers of rows; clients without rows take no part.

    Args:
        recipe: settings of each client's local training.
        make: makes an empty net.
        start: the weights that the first round starts from.
        clients: portions of each client.
        rounds: how many rounds, at least 1.

    Yields:
        Local models and averages, in order of time; the last has the recipe's name. Without a row at any client, the start.

    Raises:
        InputError: there are no rounds.
    """
    if rounds < 1:
        raise InputError(f"model {recipe.name!r}: rounds is {rounds}, expected at least 1")
    active = {c: held for c, held in clients.items() if any(len(p.rows) for p in held)}
    if not active:
        yield born("federated", recipe, load(make(), start), [])
        return
    parents, weights = recipe.parents, start
    for number in range(1, rounds + 1):
        local: list[Born] = []
        for client, portions in active.items():
            name = f"{recipe.name}/r{number}/{client}"
            net = load(make(), weights)
            seed = seed_of(recipe.seed, str(number), client)
            mine = replace(recipe, name=name, home=client, parents=parents, seed=seed)
            fit(net, [portions], mine)
            local.append(born("federated", mine, net, portions, kept=False))
            yield local[-1]
        counts = [sum(len(p.rows) for p in portions) for portions in active.values()]
        weights = average([b.weights for b in local], counts)
        last = number == rounds
        name = recipe.name if last else f"{recipe.name}/r{number}"
        parents = tuple(b.model.name for b in local)
        yield Born(Model(name, recipe.home, "federated", recipe.head, parents, (), last, local[0].model.size), weights)
        parents = (name,)
