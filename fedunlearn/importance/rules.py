"""For each kind of layer: from its input and the gradient of its output to sums of f(per-sample gradient), exactly.

A rule takes one call of a torch function (its arguments by name), the output's gradient g [N, ...], a fold, and the roles
that are asked for (names of arguments that are parameters), and gives the sums of those. Sample axes are the leading ones;
`tape.py` sees to that. Formulations are chosen by shape, by what was measured to be fastest; all of them are exact.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fedunlearn.importance.folds import CHUNK, CHUNK_CUDA, Fold

Arguments = Mapping[str, Any]
Sums = dict[str, Tensor]
Roles = Collection[str]
Rule = Callable[[Arguments, Tensor, Fold, Roles], Sums]


def linear(a: Arguments, g: Tensor, fold: Fold, roles: Roles) -> Sums:
    """[N, in] and [N, positions..., in]."""
    x = a["input"].to(g.dtype)
    g, x = (g.flatten(1, -2), x.flatten(1, -2)) if x.dim() > 2 else (g[:, None], x[:, None])
    found: Sums = {}
    if "weight" in roles and x.shape[1] == 1:
        found["weight"] = fold.outer(g[:, 0], x[:, 0])
    elif "weight" in roles:
        found["weight"] = x.new_zeros(a["weight"].shape)
        fold.products(g.transpose(1, 2), x, found["weight"])
    if "bias" in roles:
        found["bias"] = fold.total(g.sum(1))
    return found


def convolution(a: Arguments, g: Tensor, fold: Fold, roles: Roles) -> Sums:
    """Conv1d, 2d and 3d; stride, padding (zeros), dilation, groups."""
    found: Sums = {}
    if "weight" in roles:
        found["weight"] = _convolution_weight(a, a["input"].to(g.dtype), g, fold)
    if "bias" in roles:
        found["bias"] = fold.total(g.flatten(2).sum(2))
    return found


def _convolution_weight(a: Arguments, x: Tensor, g: Tensor, fold: Fold) -> Tensor:
    weight, positions = a["weight"], g[0, 0].numel()
    plain = x.dim() == 4 and a["groups"] == 1 and _all(a["dilation"], 1) and not isinstance(a["padding"], str)
    if plain and weight[0, 0].numel() == 1 and _all(a["stride"], 1) and _all(a["padding"], 0):
        if positions == 1:
            return fold.outer(g.flatten(1), x.flatten(1)).view(weight.shape)
        out = x.new_zeros(weight.shape[:2])  # 1x1: the input is its own matrix of patches
        fold.products(g.flatten(2), x.flatten(2).transpose(1, 2), out)
        return out.view(weight.shape)
    if plain and (g.is_cuda or (positions < 512 and x.shape[1] >= 4)):
        return _patches(x, g, weight, _pair(a["stride"]), _pair(a["padding"]), fold)
    return _grouped(a, x, g, fold)


def _grouped(a: Arguments, x: Tensor, g: Tensor, fold: Fold) -> Tensor:
    """Every sample as a group of one large convolution, whose weight gradient then keeps the samples apart."""
    weight, dims = a["weight"], x.dim() - 2
    n, o, c = g.shape[0], g.shape[1], x.shape[1]
    out = x.new_zeros(weight.shape)
    stride, dilation = _tuple(a["stride"], dims), _tuple(a["dilation"], dims)
    if isinstance(a["padding"], str):
        x, padding = _pad_same(x, weight, dilation, a["padding"]), (0,) * dims
    else:
        padding = _tuple(a["padding"], dims)
    step = max(1, (CHUNK_CUDA if g.is_cuda else CHUNK) // out.numel())
    for i in range(0, n, step):
        k = min(step, n - i)
        shape = x.new_empty(1).expand(k * o, *weight.shape[1:])
        own = torch.ops.aten.convolution_backward(
            g[i : i + k].reshape(1, k * o, *g.shape[2:]), x[i : i + k].reshape(1, k * c, *x.shape[2:]), shape, None, stride,
            padding, dilation, False, [0] * dims, k * a["groups"], [False, True, False],
        )[1]  # fmt: skip
        out += fold.total(own.view(k, *weight.shape))
    return out


def _patches(x: Tensor, g: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], fold: Fold) -> Tensor:
    """Patches as rows, channels last so that copies are long runs, a few samples at a time so that they stay in cache."""
    n, c = x.shape[:2]
    o, high, wide = g.shape[1:]
    kh, kw = weight.shape[2:]
    positions, k = high * wide, c * kh * kw
    out, g = x.new_zeros(o, k), g.reshape(n, o, positions)
    x = functional.pad(x.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0])).contiguous()
    sn, sh, sw, _ = x.stride()
    view = x.as_strided((n, high, wide, kh, kw * c), (sn, sh * stride[0], sw * stride[1], sh, 1))
    if positions == 1:
        out += fold.outer(g[:, :, 0], view.reshape(n, k))
    else:
        budget = CHUNK_CUDA if x.is_cuda else 2_500_000 if o * k > 320_000 else 300_000
        step = max(1, min(n, budget // (positions * k)))
        buffer = x.new_empty(step, positions, k)
        for i in range(0, n, step):
            m = min(step, n - i)
            buffer[:m].view(m, *view.shape[1:]).copy_(view[i : i + m])
            fold.products(g[i : i + m], buffer[:m], out)
    return out.view(o, kh, kw, c).permute(0, 3, 1, 2)


def batch_norm(a: Arguments, g: Tensor, fold: Fold, roles: Roles) -> Sums:
    """With running statistics; with those of the batch samples are not apart, and the tape refuses."""
    x, (mean, var) = a["input"].to(g.dtype), _running(a, g)
    if g.is_cuda or x[0, 0].numel() < 32:  # the kernel below wants statistics of a forward pass on a GPU
        found: Sums = {}
        if "weight" in roles:
            scaled = (x - mean.view(-1, *[1] * (x.dim() - 2))).mul_(g)
            found["weight"] = fold.total(_inner(scaled).mul_((var + a["eps"]).rsqrt()))
        if "bias" in roles:
            found["bias"] = fold.total(_inner(g.clone() if g.dim() == 2 else g))
        return found
    # many positions: take every channel of every sample for a channel of one sample; the kernel then keeps them apart
    n, c = x.shape[:2]
    view = (1, n * c, *x.shape[2:])
    _, gx, gs = torch.ops.aten.native_batch_norm_backward(
        g.reshape(view), x.reshape(view), None, mean.repeat(n), var.repeat(n), None, None, False, a["eps"], [False, True, True]
    )
    both = {"weight": gx.view(n, c), "bias": gs.view(n, c)}
    return {role: fold.total(both[role]) for role in roles}


def instance_norm(a: Arguments, g: Tensor, fold: Fold, roles: Roles) -> Sums:
    """Each sample by its own statistics, or by running ones."""
    if a["use_input_stats"]:
        normal = functional.instance_norm(a["input"].to(g.dtype), eps=a["eps"])
        return _affine(normal, g, fold, roles)
    return batch_norm(a, g, fold, roles)


def group_norm(a: Arguments, g: Tensor, fold: Fold, roles: Roles) -> Sums:
    """Groups of channels of each sample."""
    return _affine(functional.group_norm(a["input"].to(g.dtype), a["num_groups"], eps=a["eps"]), g, fold, roles)


def layer_norm(a: Arguments, g: Tensor, fold: Fold, roles: Roles) -> Sums:
    """The last dimensions of each position."""
    shape = tuple(a["normalized_shape"])
    between = tuple(range(1, g.dim() - len(shape)))
    found: Sums = {}
    if "weight" in roles:
        scaled = g * functional.layer_norm(a["input"].to(g.dtype), shape, eps=a["eps"])
        found["weight"] = fold.total(scaled.sum(between) if between else scaled)
    if "bias" in roles:
        found["bias"] = fold.total(g.sum(between) if between else g.clone())
    return found


def embedding(a: Arguments, g: Tensor, fold: Fold, roles: Roles) -> Sums:
    """A token may stand several times in a sample: its gradients are summed before f."""
    del roles  # the weight is its only parameter
    index, weight = a["input"], a["weight"]
    n, words = index.shape[0], weight.shape[0]
    flat = index.reshape(n, -1) + words * torch.arange(n, device=index.device)[:, None]
    keys, place = flat.flatten().unique(return_inverse=True)
    sums = g.new_zeros(len(keys), weight.shape[1]).index_add_(0, place, g.reshape(-1, weight.shape[1]))
    tokens = keys % words
    if a["padding_idx"] is not None:
        sums[tokens == a["padding_idx"] % words] = 0
    return {"weight": g.new_zeros(weight.shape).index_add_(0, tokens, fold.of(sums))}


def addition(a: Arguments, g: Tensor, fold: Fold, roles: Roles) -> Sums:
    """A parameter added to something (a positional embedding)."""
    return {role: fold.total(_unbroadcast(g.clone(), a[role])) for role in roles}


def product(a: Arguments, g: Tensor, fold: Fold, roles: Roles) -> Sums:
    """A parameter that scales something (a layer scale)."""
    by = {"input": a["other"], "other": a["input"]}
    return {role: fold.total(_unbroadcast(g * by[role], a[role])) for role in roles}


def expansion(a: Arguments, g: Tensor, fold: Fold, roles: Roles) -> Sums:
    """A parameter repeated for every sample (a class token)."""
    return addition(a, g, fold, roles)


def _affine(normal: Tensor, g: Tensor, fold: Fold, roles: Roles) -> Sums:
    found: Sums = {}
    if "weight" in roles:
        found["weight"] = fold.total(_inner(g * normal))
    if "bias" in roles:
        found["bias"] = fold.total(_inner(g.clone() if g.dim() == 2 else g))
    return found


def _inner(t: Tensor) -> Tensor:
    """[N, C, positions...] summed over positions."""
    return t.flatten(2).sum(2) if t.dim() > 2 else t


def _running(a: Arguments, g: Tensor) -> tuple[Tensor, Tensor]:
    return a["running_mean"].to(g.dtype), a["running_var"].to(g.dtype)


def _unbroadcast(g: Tensor, parameter: Tensor) -> Tensor:
    """Per-sample gradients [N, ...] summed to [N, *parameter.shape]; a leading 1 of the parameter is not the sample axis."""
    shape = parameter.shape
    if len(shape) == g.dim():
        shape = shape[1:]
    g = g.flatten(1, g.dim() - len(shape) - 1).sum(1) if g.dim() - 1 > len(shape) else g
    summed = [i + 1 for i, size in enumerate(shape) if size == 1 and g.shape[i + 1] != 1]
    g = g.sum(summed, keepdim=True) if summed else g
    return g.reshape(len(g), *parameter.shape)


def _pad_same(x: Tensor, weight: Tensor, dilation: Sequence[int], how: str) -> Tensor:
    if how == "valid":
        return x
    pads: list[int] = []
    for size, d in zip(reversed(weight.shape[2:]), reversed(dilation), strict=True):
        total = d * (size - 1)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads)


def _tuple(value: Any, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value) * (dims if len(value) == 1 else 1)


def _pair(value: Any) -> tuple[int, int]:
    first, second = _tuple(value, 2)
    return first, second


def _all(value: Any, expected: int) -> bool:
    return all(v == expected for v in ((value,) if isinstance(value, int) else value))
