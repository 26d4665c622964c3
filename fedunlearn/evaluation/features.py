"""Inputs of the last layer, kept: where an edit changes that layer alone, trying it needs no other layer."""

from dataclasses import replace

import torch
from torch import nn

from fedunlearn.data import Rows
from fedunlearn.nets import batches
from fedunlearn.tensors import Head, Tensors


def features(net: nn.Module, head: Head, rows: Rows) -> Rows | None:
    """The same rows as the last layer sees them.

    Args:
        net: in eval mode.
        head: its last layer.
        rows: inputs.

    Returns:
        Rows whose inputs [N, D] are that layer's; None where its output is not the net's, so that the net itself must be asked.
    """
    if not len(rows):
        return rows
    layer, seen, outputs = net.get_submodule(head.layer), [], []
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        with torch.inference_mode():
            outputs = [net(x) for x in batches(net, rows.x)]
    finally:
        hook.remove()
    x, out = torch.cat(seen), torch.cat(outputs)
    with torch.inference_mode():
        if x.dim() != 2 or len(x) != len(rows) or not torch.allclose(layer(x), out, rtol=1e-4, atol=1e-5):
            return None
    return replace(rows, x=x.clone().cpu())


def last_layer(weights: Tensors, head: Head, device: str) -> nn.Module:
    """The last layer alone, as a net over `features`."""
    weight, bias = (weights.get(n) for n in head.names)
    assert weight is not None
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return layer.to(device).eval()
