"""Exact sums over samples at about the price of one gradient: one pass watched by a tape, and a slower way for the rest."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedunlearn.errors import ShapeError
from fedunlearn.importance.folds import Fold
from fedunlearn.importance.losses import Loss
from fedunlearn.importance.rules import Arguments, Rule
from fedunlearn.importance.tape import Tape, parameters_of

HALF_SCALE = 4096.0  # float16 gradients below 6e-8 vanish; the loss is scaled up, the sums are scaled back
ROUNDING = {torch.float64: 1e-8, torch.float32: 1e-3}  # how far numbers may be apart, relatively, by rounding alone
COARSE = 5e-2  # the same in half precision
OVERHEAD = 1.5  # what a backward pass holds, over the inputs of layers with parameters


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
    *,
    max_bytes: int,
    autocast: torch.dtype | None = None,
) -> Sums:
    """Sums over samples of f(gradient of the loss), for the wanted parameters.

    Args:
        net: in eval mode.
        x: inputs [N, ...].
        y: what the loss reads beside the outputs, row by row.
        loss: what is differentiated.
        fold: f.
        wanted: names of parameters.
        max_bytes: bound on what is held for the backward pass (estimated from one sample), and on per-sample gradients.
        autocast: run the forward pass in this half precision; sums are made in float32 and added in float64.

    Raises:
        ShapeError: samples are not independent of each other, or outputs are not [N, C].
    """
    names = parameters_of(net)
    total: dict[str, Tensor] = {}
    slow: dict[str, str] = {}
    if len(x):
        with frozen(net):
            probe = _probe(net, names, x, wanted, autocast)
            slow = dict(probe.left)
            parts = -(-len(x) // max(1, max_bytes // max(1, probe.bytes)))
            step = -(-len(x) // parts)
            for i in range(0, len(x), step):
                part = slice(i, i + step)
                run = _Run(net, names, wanted - slow.keys(), fold, loss, autocast)
                found, out = run(x[part], None if y is None else y[part])
                if i == 0 and probe.out is not None:
                    independent(out, probe.out, COARSE if autocast else ROUNDING.get(out.dtype, COARSE))
                for name in list(found):
                    tensor = found.pop(name)
                    total[name] = total[name].add_(tensor) if name in total else tensor.double()
                slow.update(run.left)
            traced = tuple(n for n in slow if n not in probe.recurrent)
            looped = tuple(n for n in slow if n in probe.recurrent)
            if traced:
                total.update(_slow(net, x, y, loss, fold, traced, max_bytes))
            if looped:
                total.update(_by_loop(net, x, y, loss, fold, looped))
    for name in wanted - total.keys():  # no gradient reaches it
        parameter = net.get_parameter(name)
        total[name] = torch.zeros(parameter.shape, dtype=torch.float64, device=parameter.device)
    return Sums(total, slow)


@dataclass
class _Run:
    """One forward pass and the backward passes of its loss."""

    net: nn.Module
    names: Mapping[int, str]
    wanted: frozenset[str]
    fold: Fold
    loss: Loss
    autocast: torch.dtype | None
    left: dict[str, str] = field(default_factory=dict)

    def __call__(self, x: Tensor, y: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        found: dict[str, Tensor] = {}
        owned: frozenset[str] = frozenset()
        scale = HALF_SCALE if self.autocast is torch.float16 else 1.0

        def deliver(rule: Rule, a: Arguments, g: Tensor, roles: Mapping[str, str]) -> None:
            asked = {r: n for r, n in roles.items() if n in owned}
            if asked:
                g = g.float() / scale if g.dtype in (torch.float16, torch.bfloat16) else g / scale if scale != 1 else g
                for role, tensor in rule(a, g, self.fold, asked).items():
                    name = asked[role]
                    found[name] = found[name] + tensor if name in found else tensor

        tape = Tape(self.names, self.wanted, len(x), deliver)
        with tape, _half(x, self.autocast):
            out = self.net(x)
        out = _outputs(out, len(x))
        owned = tape.owned()
        if out.requires_grad:
            terms = list(self.loss.terms(out, y, self.fold.power))
            for k, term in enumerate(terms):
                (term.sum() * scale).backward(retain_graph=k + 1 < len(terms))  # type: ignore[no-untyped-call]
        self.left = tape.left
        return {n: t for n, t in found.items() if n not in tape.left}, out.detach()


@dataclass(frozen=True)
class _Probe:
    """What one sample alone showed: the bytes it keeps, parameters that no rule fits, and (when fresh) its outputs."""

    bytes: int
    left: Mapping[str, str]
    recurrent: frozenset[str]
    out: Tensor | None


_probes: "WeakKeyDictionary[nn.Module, dict[object, _Probe]]" = WeakKeyDictionary()


def _probe(net: nn.Module, names: Mapping[int, str], x: Tensor, wanted: frozenset[str], autocast: torch.dtype | None) -> _Probe:
    """One sample alone, once for a net as it is put together now.

    A leading axis that is 1 here and N later is the sample axis, whatever else has N entries by chance.
    """
    key = (tuple(map(id, net.modules())), tuple(x.shape[1:]), x.dtype, wanted, autocast)
    kept = _probes.setdefault(net, {})
    if key in kept:
        return kept[key]
    tape = Tape(names, wanted, 1)
    with tape, torch.no_grad(), _half(x, autocast):
        out = _outputs(net(x[:1]), 1)
    tape.owned()
    found = _Probe(int(OVERHEAD * tape.entries) * max(4, x.element_size()), dict(tape.left), frozenset(tape.recurrent), out)
    kept[key] = replace(found, out=None)
    return found


def independent(out: Tensor, alone: Tensor, tolerance: float) -> None:
    """Refuse a model whose outputs for a sample depend on the other samples of its batch.

    Raises:
        ShapeError: they do.
    """
    moved = float((out[:1] - alone).abs().max())
    if moved > tolerance * max(float(alone.abs().max()), float(out.abs().max()), 1e-30):
        raise ShapeError(
            f"outputs of a sample move by {moved:.3g} with the other samples of its batch, so that samples have no gradients "
            f"of their own; something in the model couples them (batch statistics? attention over the batch?)"
        )


def _outputs(out: Tensor, n: int) -> Tensor:
    if not isinstance(out, Tensor) or out.dim() != 2 or out.shape[0] != n:
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ShapeError(f"the model gave {shape} for {n} samples, expected outputs [N, classes]")
    return out.float() if out.dtype in (torch.float16, torch.bfloat16) else out


def _slow(
    net: nn.Module, x: Tensor, y: Tensor | None, loss: Loss, fold: Fold, names: tuple[str, ...], max_bytes: int
) -> dict[str, Tensor]:
    """By torch.func where it can trace the model, else one sample at a time. Exact either way."""
    try:
        some = slice(0, 2)
        check = _by_func(net, x[some], None if y is None else y[some], loss, fold, names, max_bytes)
        truth = _by_loop(net, x[some], None if y is None else y[some], loss, fold, names)
        # torch.func has been seen to give zeros without a word (recurrent layers): trust it only where it is right
        if all(float((check[n] - t).norm()) <= COARSE * float(t.norm()) for n, t in truth.items()):
            return _by_func(net, x, y, loss, fold, names, max_bytes)
    except Exception:  # torch.func has no common error for what it cannot trace; the loop below has no such limits
        pass
    return _by_loop(net, x, y, loss, fold, names)


def _by_func(
    net: nn.Module, x: Tensor, y: Tensor | None, loss: Loss, fold: Fold, names: tuple[str, ...], max_bytes: int
) -> dict[str, Tensor]:
    parameters = {n: p.detach() for n, p in net.named_parameters()}
    fixed = {**{n: p for n, p in parameters.items() if n not in names}, **dict(net.named_buffers())}
    free = {n: parameters[n] for n in names}
    labels = torch.zeros(len(x), device=x.device) if y is None else y

    def terms(free: dict[str, Tensor], one: Tensor, label: Tensor) -> list[Tensor]:
        out = functional_call(net, {**fixed, **free}, (one[None],))
        return list(loss.terms(out, None if y is None else label[None], fold.power))

    def count() -> int:
        with torch.no_grad():
            return len(terms(free, x[0], labels[0]))

    def term(k: int) -> Callable[..., Tensor]:
        return lambda free, one, label: terms(free, one, label)[k].sum()

    total = {n: torch.zeros(p.shape, dtype=torch.float64, device=p.device) for n, p in free.items()}
    step = max(1, max_bytes // max(1, 2 * sum(p.numel() * p.element_size() for p in free.values())))
    for k in range(count()):
        gradients = vmap(grad(term(k)), (None, 0, 0))
        for i in range(0, len(x), step):
            for name, g in gradients(free, x[i : i + step], labels[i : i + step]).items():
                total[name] += fold.total(g.contiguous())
    return total


def _by_loop(net: nn.Module, x: Tensor, y: Tensor | None, loss: Loss, fold: Fold, names: tuple[str, ...]) -> dict[str, Tensor]:
    parameters = {n: p for n, p in net.named_parameters() if n in names}
    total = {n: torch.zeros(p.shape, dtype=torch.float64, device=p.device) for n, p in parameters.items()}
    for p in parameters.values():
        p.requires_grad_(True)
    with torch.backends.cudnn.flags(enabled=False):  # its recurrent layers have no backward pass in eval mode
        for i in range(len(x)):
            out = _outputs(net(x[i : i + 1]), 1)
            for term in list(loss.terms(out, None if y is None else y[i : i + 1], fold.power)):
                if not term.requires_grad:
                    continue  # it depends on none of them
                found = torch.autograd.grad(term.sum(), list(parameters.values()), retain_graph=True, allow_unused=True)
                for name, g in zip(parameters, found, strict=True):
                    if g is not None:
                        total[name] += fold.of(g.clone())
    return total


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient, so that none is made; fused attention, which hides its parts, is off."""
    asked = {p: p.requires_grad for p in net.parameters()}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    for p in asked:
        p.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for p, wanted in asked.items():
            p.requires_grad_(wanted)


@contextmanager
def _half(x: Tensor, dtype: torch.dtype | None) -> Iterator[None]:
    if dtype is None:
        yield
    else:
        with torch.autocast(x.device.type, dtype=dtype):
            yield
