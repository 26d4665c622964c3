"""Incremental learning: one site trains a model on, all layers."""

from collections.abc import Callable, Sequence

from torch import nn

from fedunlearn.nets import load
from fedunlearn.tensors import Tensors
from fedunlearn.training.base import Born, Portion, Recipe, born
from fedunlearn.training.fit import fit


def incremental(recipe: Recipe, make: Callable[[], nn.Module], start: Tensors, portions: Sequence[Portion]) -> Born:
    """Fine-tune on one site's rows.

    Args:
        recipe: settings.
        make: makes an empty net.
        start: the weights to start from.
        portions: the site's rows.

    Returns:
        The model; equal to its start where the site holds no row.
    """
    net = fit(load(make(), start), [portions], recipe)
    return born("incremental", recipe, net, portions)
