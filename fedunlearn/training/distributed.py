"""Distributed data parallel: ranks with disjoint shards, one model, averaged gradients."""

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from fedunlearn.nets import load
from fedunlearn.tensors import Tensors
from fedunlearn.training.base import Born, Portion, Recipe, born
from fedunlearn.training.fit import fit


def distributed(recipe: Recipe, make: Callable[[], nn.Module], start: Tensors, ranks: Mapping[str, Sequence[Portion]]) -> Born:
    """Train one model on the mean of the ranks' gradients; its data lies at every rank.

    Args:
        recipe: settings; `batch` is the sum over ranks.
        make: makes an empty net.
        start: the weights to start from.
        ranks: portions of each rank.

    Returns:
        The model.
    """
    net = fit(load(make(), start), list(ranks.values()), recipe)
    return born("distributed", recipe, net, [p for portions in ranks.values() for p in portions])
