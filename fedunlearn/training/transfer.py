"""Transfer learning: a new head on a borrowed, frozen backbone."""

from collections.abc import Callable, Sequence

from torch import nn

from fedunlearn.nets import head_of, load, replace_head, weights_of
from fedunlearn.tensors import Tensors
from fedunlearn.training.base import Born, Portion, Recipe, born
from fedunlearn.training.fit import fit


def transfer(recipe: Recipe, make: Callable[[], nn.Module], start: Tensors, portions: Sequence[Portion]) -> Born:
    """Put a fresh head on the parent's body and train the head alone.

    Args:
        recipe: settings; its head names the new outputs.
        make: makes a fresh net with the new number of outputs.
        start: the parent's weights.
        portions: the site's rows, of the new head's classes only.

    Returns:
        The model.
    """
    net = make()
    head = head_of(net, recipe.head)
    load(net, replace_head(start, weights_of(net), head))
    trainable = [n for n, _ in net.named_parameters() if n in head.names]
    fit(net, [portions], recipe, train=trainable)
    return born("transfer", recipe, net, portions)
