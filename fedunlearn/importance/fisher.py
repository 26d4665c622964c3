"""The diagonal of the empirical Fisher information: per parameter, the sum over samples of squared gradients.

F_i = sum over (x, y) of (d -log p(y|x; theta) / d theta_i)^2, one squared gradient *per sample*. The papers' public code
squares the gradient of a batch mean instead, which shrinks with the batch size (by 350 from 1 to 320 on a toy), so that
their thresholds depend on it and sites with different batch sizes cannot be merged.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from fedunlearn.errors import ShapeError, unknown
from fedunlearn.importance.importance import Importance
from fedunlearn.tensors import Head, names_in

STATISTICS = ("squares",)
CHUNK_BYTES = 256 << 20  # per-sample gradients held at once


def measure(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    head: Head,
    layers: str | Sequence[str] = "all",
    statistic: str = "squares",
    max_bytes: int = CHUNK_BYTES,
) -> Importance:
    """Sum a statistic of the cross-entropy's gradient over samples, exactly, whatever the split into batches.

    Args:
        net: the model; it is put into eval mode (dropout off, BatchNorm by running statistics) and left as it was.
        x: inputs [N, ...].
        y: labels [N], int64, indices of the model's outputs.
        head: the model's last layer. Where only it is asked for, the closed form is used: no backward pass.
        layers: "all", "last", or names of parameters or layers.
        statistic: one of `STATISTICS`.
        max_bytes: bound on the per-sample gradients held at once.

    Returns:
        float64 sums, on the CPU, for the parameters in `layers`.

    Raises:
        InputError: the statistic is unknown.
        ShapeError: a layer is unknown, labels fall outside the outputs, or a result is not finite.
    """
    if statistic not in STATISTICS:
        raise unknown("statistic", statistic, STATISTICS)
    parameters = {n: p.detach() for n, p in net.named_parameters()}
    chosen = names_in(layers, parameters, head)
    if len(y) and not (int(y.min()) >= 0 and int(y.max()) < len(head.classes)):
        raise ShapeError(f"labels run from {int(y.min())} to {int(y.max())}, the model has {len(head.classes)} outputs")
    was_training = {m: m.training for m in net.modules()}
    net.eval()
    try:
        if set(chosen) <= set(head.names):
            sums = _last_layer(net, x, y, head, chosen)
        else:
            sums = _per_sample(net, x, y, parameters, chosen, max_bytes)
    finally:
        for module, training in was_training.items():
            module.training = training
    return Importance({statistic: {n: t.cpu() for n, t in sums.items()}}, len(y))


def _per_sample(
    net: nn.Module, x: Tensor, y: Tensor, parameters: dict[str, Tensor], chosen: Sequence[str], max_bytes: int
) -> dict[str, Tensor]:
    fixed = {**{n: p for n, p in parameters.items() if n not in chosen}, **dict(net.named_buffers())}

    def loss(free: dict[str, Tensor], one_x: Tensor, one_y: Tensor) -> Tensor:
        out = functional_call(net, {**fixed, **free}, (one_x[None],))
        return functional.cross_entropy(out, one_y[None])

    free = {n: parameters[n] for n in chosen}
    sums = {n: torch.zeros(p.shape, dtype=torch.float64, device=p.device) for n, p in free.items()}
    per_sample = sum(p.numel() * p.element_size() for p in free.values())
    chunk = max(1, max_bytes // max(1, per_sample))
    gradients = vmap(grad(loss), (None, 0, 0))
    for i in range(0, len(y), chunk):
        for name, g in gradients(free, x[i : i + chunk], y[i : i + chunk]).items():
            sums[name] += g.double().square().sum(0)
    return sums


def _last_layer(net: nn.Module, x: Tensor, y: Tensor, head: Head, chosen: Sequence[str]) -> dict[str, Tensor]:
    """Closed form for a last linear layer with inputs h: sum of ((p - onehot)^2)^T (h^2); no backward pass."""
    seen: list[tuple[Tensor, Tensor]] = []
    layer = net.get_submodule(head.layer)
    handle = layer.register_forward_hook(lambda _m, inputs, out: seen.append((inputs[0].detach(), out.detach())))
    try:
        with torch.no_grad():
            out = net(x) if len(y) else torch.zeros(0, len(head.classes), dtype=x.dtype, device=x.device)
    finally:
        handle.remove()
    weight, bias = head.names
    width = net.get_parameter(weight).shape[1]
    h = seen[0][0].double() if seen else torch.zeros(0, width, dtype=torch.float64, device=x.device)
    if len(y) and (len(seen) != 1 or h.dim() != 2 or not torch.equal(seen[0][1], out)):
        raise ShapeError(
            f"layer {head.layer!r} is not a plain last linear layer (called {len(seen)} times, inputs "
            f"{tuple(h.shape)}, its output must be the model's): measure all layers instead"
        )
    error = (torch.softmax(out.double(), 1) - functional.one_hot(y, len(head.classes))).square()
    both = {weight: error.T @ h.square(), bias: error.sum(0)}
    return {n: both[n] for n in chosen}
