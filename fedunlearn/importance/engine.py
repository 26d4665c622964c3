"""Exact sums over samples at about the price of one gradient: one pass watched by a tape, and a slower way for the rest."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fedunlearn.importance.folds import Fold
from fedunlearn.importance.losses import Loss
from fedunlearn.importance.passes import Run, by_func, by_loop
from fedunlearn.importance.probe import COARSE, Probe, bytes_kept, independent
from fedunlearn.importance.tape import parameters_of


@dataclass
class Sums:
    """What came out.

    Args:
        sums: float64, by parameter.
        slow: parameters that no rule accounts for, and why; their sums are exact all the same.
    """

    sums: dict[str, Tensor]
    slow: dict[str, str] = field(default_factory=dict)


def sums_of(
    net: nn.Module,
    x: Tensor,
    y: Tensor | None,
    loss: Loss,
    fold: Fold,
    wanted: frozenset[str],
    probe: Probe,
    *,
    max_bytes: int,
    autocast: torch.dtype | None = None,
) -> Sums:
    """Sums over samples of f(gradient of the loss), for the wanted parameters.

    Args:
        net: in eval mode, frozen.
        x: inputs [N, ...].
        y: what the loss reads beside the outputs, row by row.
        loss: what is differentiated.
        fold: f.
        wanted: names of parameters.
        probe: of the net, for those.
        max_bytes: bound on what is held for the backward pass (estimated from a second sample), and on per-sample gradients.
        autocast: run the forward pass in this half precision; sums are made in float32 and added in float64.

    Raises:
        ShapeError: samples are not independent of each other, or outputs are not [N, C].
    """
    names = parameters_of(net)
    total: dict[str, Tensor] = {}
    slow: dict[str, str] = {}
    if len(x):
        slow = dict(probe.left)
        if not probe.bytes and len(x) > 1:
            probe.bytes = bytes_kept(net, x, wanted, autocast)
        parts = -(-len(x) // max(1, max_bytes // max(1, probe.bytes)))
        step = -(-len(x) // parts)
        for i in range(0, len(x), step):
            part = slice(i, i + step)
            run = Run(net, names, wanted - slow.keys(), fold, loss, autocast)
            found, out = run(x[part], None if y is None else y[part])
            independent(net, x[part], out, probe, autocast)
            for name in list(found):
                tensor = found.pop(name)
                total[name] = total[name].add_(tensor) if name in total else tensor.double()
            slow.update(run.left)
        traced = tuple(n for n in slow if n not in probe.recurrent)
        looped = tuple(n for n in slow if n in probe.recurrent)
        if traced:
            total.update(_slow(net, x, y, loss, fold, traced, max_bytes, probe))
        if looped:
            total.update(by_loop(net, x, y, loss, fold, looped, probe.through))
    for name in wanted - total.keys():  # no gradient reaches it
        parameter = net.get_parameter(name)
        total[name] = torch.zeros(parameter.shape, dtype=torch.float64, device=parameter.device)
    return Sums(total, slow)


def _slow(
    net: nn.Module, x: Tensor, y: Tensor | None, loss: Loss, fold: Fold, names: tuple[str, ...], max_bytes: int, probe: Probe
) -> dict[str, Tensor]:
    """By torch.func where it can trace the model, else one sample at a time. Exact either way."""
    try:
        some = slice(0, 2)
        check = by_func(net, x[some], None if y is None else y[some], loss, fold, names, max_bytes, probe.bytes)
        truth = by_loop(net, x[some], None if y is None else y[some], loss, fold, names, probe.through)
        # torch.func has been seen to give zeros without a word (recurrent layers): trust it only where it is right
        if all(float((check[n] - t).norm()) <= COARSE * float(t.norm()) for n, t in truth.items()):
            return by_func(net, x, y, loss, fold, names, max_bytes, probe.bytes)
    except Exception:  # torch.func has no common error for what it cannot trace; the loop below has no such limits
        pass
    return by_loop(net, x, y, loss, fold, names, probe.through)
