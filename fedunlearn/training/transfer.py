"""Transfer learning: a new head on a borrowed backbone, frozen or trained on with it."""

from collections.abc import Callable, Sequence
from typing import Literal

from torch import nn

from fedunlearn.nets import head_of, load, replace_head, weights_of
from fedunlearn.tensors import Tensors
from fedunlearn.training.base import Born, Portion, Recipe, born
from fedunlearn.training.fit import fit


def transfer(
    recipe: Recipe,
    make: Callable[[], nn.Module],
    start: Tensors,
    portions: Sequence[Portion],
    *,
    layers: Literal["head", "all"] = "head",
) -> Born:
    """Put a fresh head on the parent's body and train the head alone, or all of it.

    Args:
        recipe: settings; its head names the new outputs.
        make: makes a fresh net with the new number of outputs.
        start: the parent's weights.
        portions: the site's rows, of the new head's classes only.
        layers: "head" keeps the backbone as it is, BatchNorm's statistics included; "all" fine-tunes it.

    Returns:
        The model.
    """
    net = make()
    head = head_of(net, recipe.head)
    load(net, replace_head(start, weights_of(net), head))
    trainable = [n for n, _ in net.named_parameters() if n in head.names]
    fit(net, portions, recipe, train=trainable if layers == "head" else None)
    return born("transfer", recipe, net, portions)
