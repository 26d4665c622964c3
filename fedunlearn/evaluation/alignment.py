"""How alike are the representations of two nets, layer by layer? To the unedited net and to a retrained one, both."""

from typing import Any

import torch
from torch import Tensor, nn

from fedunlearn.data import Rows
from fedunlearn.errors import InputError
from fedunlearn.nets import batches

ROUNDING = 1e-6  # of float32, relative to the largest entry


def cka(one: Tensor, other: Tensor) -> float:
    """Linear centred kernel alignment (Kornblith et al. 2019, arXiv 1905.00414): the same up to an orthogonal map and a scale?

    ||Y'X||^2 / (||X'X|| ||Y'Y||), Frobenius norms of centred features: 1 if they are. Biased upwards where rows are fewer than
    features, so compare only values of equal shapes.

    Args:
        one: features [N, ...] of N rows.
        other: features [N, ...] of the same rows, of another layer or net.

    Raises:
        InputError: other rows, fewer than two, or features that are the same for all rows.
    """
    if len(one) != len(other) or len(one) < 2:
        raise InputError(f"CKA: features of {len(one)} and {len(other)} rows, expected the same two or more")
    x, y = (f.flatten(1).double() - f.flatten(1).double().mean(0) for f in (one, other))
    if len(x) < max(x.shape[1], y.shape[1]):  # the same by Gram matrices of the rows, which are smaller
        gram_x, gram_y = x @ x.T, y @ y.T
        cross, own = (gram_x * gram_y).sum(), gram_x.norm() * gram_y.norm()
    else:
        cross, own = (y.T @ x).square().sum(), (x.T @ x).norm() * (y.T @ y).norm()
    if _flat(one) or _flat(other):
        raise InputError("CKA: a layer gives the same for all rows; there is nothing to align")
    return float(cross / own)


def layer_outputs(net: nn.Module, rows: Rows) -> dict[str, Tensor]:
    """What each layer that has parameters gives, on the CPU [N, ...]; a layer used several times, the last time.

    Args:
        net: in eval mode.
        rows: few, since all outputs are held at once.
    """
    found: dict[str, list[Tensor]] = {}
    last: dict[str, Tensor] = {}

    def keep(name: str, out: Any) -> None:
        first = out[0] if isinstance(out, tuple) and out else out
        if isinstance(first, Tensor):
            last[name] = first.detach().cpu()

    layers = [(n, m) for n, m in net.named_modules() if n and any(True for _ in m.parameters(recurse=False))]
    hooks = [m.register_forward_hook(lambda _m, _i, out, name=n: keep(name, out)) for n, m in layers]
    try:
        with torch.inference_mode():
            for part in batches(net, rows.x):
                last.clear()
                net(part)
                for name, out in last.items():
                    if len(out) == len(part):
                        found.setdefault(name, []).append(out)
    finally:
        for hook in hooks:
            hook.remove()
    whole = {name: torch.cat(parts).clone() for name, parts in found.items()}
    return {name: out for name, out in whole.items() if len(out) == len(rows)}


def cka_by_layer(one: nn.Module, other: nn.Module, rows: Rows) -> dict[str, float | None]:
    """Linear CKA of each layer that two nets share by name; None where a layer gives the same for all rows.

    Args:
        one: in eval mode.
        other: in eval mode.
        rows: inputs, a few hundred.

    Raises:
        InputError: fewer than two rows, or no layer in common.
    """
    if len(rows) < 2:
        raise InputError(f"CKA: {len(rows)} rows, expected two or more")
    ours, theirs = layer_outputs(one, rows), layer_outputs(other, rows)
    common = [name for name in ours if name in theirs]
    if not common:
        raise InputError("CKA: the two nets have no layer of the same name")
    return {n: None if _flat(ours[n]) or _flat(theirs[n]) else cka(ours[n], theirs[n]) for n in common}


def _flat(features: Tensor) -> bool:
    """Whether rows differ by no more than rounding."""
    x = features.flatten(1).double()
    return float((x - x.mean(0)).abs().max()) <= ROUNDING * float(x.abs().max())
