"""What is left in the weights: Fisher information on what is forgotten, layer by layer."""

from collections.abc import Collection
from dataclasses import replace

from torch import nn

from fedunlearn.data import Rows
from fedunlearn.errors import InputError
from fedunlearn.importance import measure
from fedunlearn.nets import device_of
from fedunlearn.tensors import Head


def fisher_residual(
    net: nn.Module, before: nn.Module, rows: Rows, head: Head, measured: Collection[str], loss: str = "labels"
) -> dict[str, float | None]:
    """How much of the Fisher information on what is forgotten each layer still has, as a share of the unedited model's.

    Sum over a layer's parameters of F(edited) over the same of F(unedited). Not bounded by 1: a model that is unsure of the
    rows has large gradients on them, as a retrained one has. Methods that dampen by a Fisher must not be judged by the same
    one, so rows that a method measured are refused; held-out rows of the class are others.

    Args:
        net: the edited model, or a retrained one.
        before: the unedited model.
        rows: rows of what is forgotten that the method did not see, labelled by the head.
        head: the last layer.
        measured: keys of the rows that the method measured.
        loss: "labels" (empirical Fisher) or "own" (true Fisher), as for `fedunlearn.importance.measure`.

    Returns:
        Layer -> share; None where the unedited model has none.

    Raises:
        InputError: there is no row, or some that the method measured.
    """
    seen = set(measured) & set(rows.keys)
    if seen or not len(rows):
        raise InputError(
            f"Fisher residual: {len(seen)} of {len(rows)} rows are those that the method measured; take other rows of the class"
        )
    after, origin = (_by_layer(n, rows, head, loss) for n in (net, before))
    return {layer: after[layer] / origin[layer] if origin[layer] > 0 else None for layer in origin}


def _by_layer(net: nn.Module, rows: Rows, head: Head, loss: str) -> dict[str, float]:
    device = device_of(net)
    here = replace(rows, x=rows.x.to(device), y=rows.y.to(device))
    sums = measure(net, here.x, here.y, head=head, loss=loss).sums["squares"]
    found: dict[str, float] = {}
    for name, tensor in sums.items():
        layer = name.rpartition(".")[0] or name
        found[layer] = found.get(layer, 0.0) + float(tensor.sum())
    return found
