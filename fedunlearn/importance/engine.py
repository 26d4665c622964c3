"""Exact sums over samples at about the price of one gradient: one pass watched by a tape, and a slower way for the rest."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils.checkpoint import CheckpointError

from fedunlearn.errors import ShapeError
from fedunlearn.importance.folds import Fold
from fedunlearn.importance.losses import Custom, Loss
from fedunlearn.importance.rules import Arguments, Rule
from fedunlearn.importance.tape import CHECKPOINTED, Tape, parameters_of

HALF_SCALE = 4096.0  # float16 gradients below 6e-8 vanish; the loss is scaled up, the sums are scaled back
ROUNDING = {torch.float64: 1e-8, torch.float32: 1e-3}  # how far numbers may be apart, relatively, by rounding alone
COARSE = 5e-2  # the same in half precision, and between ways of adding up
COARSEST = 0.2  # the same between ways of adding up in half precision
UNSEEN = 1e-4  # gradients so much smaller than the largest are rounding, as those of a bias before a normalisation are
OVERHEAD = 1.5  # what a backward pass holds, over what the forward pass kept for it


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
            probe = probe_of(net, x, wanted, fold, autocast)
            slow = dict(probe.left)
            if not probe.bytes and len(x) > 1:
                probe.bytes = _bytes(net, x, wanted, autocast)
            parts = -(-len(x) // max(1, max_bytes // max(1, probe.bytes)))
            step = -(-len(x) // parts)
            for i in range(0, len(x), step):
                part = slice(i, i + step)
                run = _Run(net, names, wanted - slow.keys(), fold, loss, autocast)
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
                total.update(_by_loop(net, x, y, loss, fold, looped, probe.through))
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
    recurrent: set[str] = field(default_factory=set)

    def __call__(self, x: Tensor, y: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        found: dict[str, Tensor] = {}
        owned: frozenset[str] = frozenset()
        scale = _scale(self.autocast)

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
        self.left, self.recurrent = tape.left, tape.recurrent
        return {n: t for n, t in found.items() if n not in tape.left}, out.detach()


@dataclass
class Probe:
    """What one sample alone showed of a net.

    Args:
        left: parameters that no rule fits, or for which rules give something else than plain differentiation, and why.
        recurrent: of those, weights of recurrent layers.
        independent: whether outputs were seen not to move with the other samples of a batch.
        bytes: what another sample keeps for the backward pass; 0 until there was another.
    """

    left: Mapping[str, str] = field(default_factory=dict)
    recurrent: frozenset[str] = frozenset()
    independent: bool = False
    bytes: int = 0

    @property
    def through(self) -> bool:
        """Whether some parameter's gradient needs one of what comes before it, wanted or not."""
        return CHECKPOINTED in self.left.values()


_probes: "WeakKeyDictionary[nn.Module, dict[object, Probe]]" = WeakKeyDictionary()
_SPREAD = Custom(lambda out, _: out @ torch.linspace(1, 2, out.shape[1], dtype=out.dtype, device=out.device))


def probe_of(net: nn.Module, x: Tensor, wanted: frozenset[str], fold: Fold, autocast: torch.dtype | None = None) -> Probe:
    """One sample alone, by the rules and by plain differentiation; once for a net as it is put together now.

    A leading axis that is 1 here and N later is the sample axis, whatever else has N entries by chance. The rules see what
    passes through torch's functions; what does not (compiled code, say) is why they are not trusted unseen.

    Args:
        net: in eval mode, frozen.
        x: inputs [N, ...], at least one.
        wanted: names of parameters.
        fold: what is summed.
        autocast: as for `sums_of`.

    Raises:
        ShapeError: outputs are not [N, C].
    """
    key = (tuple(map(id, net.modules())), tuple(x.shape[1:]), x.dtype, wanted, autocast)
    kept = _probes.setdefault(net, {})
    if key not in kept:
        run = _Run(net, parameters_of(net), wanted, fold, _SPREAD, autocast)
        try:
            found, out = run(x[:1], None)
        except CheckpointError:
            found, out, run.left = {}, x[:0], dict.fromkeys(wanted, CHECKPOINTED)
        through = CHECKPOINTED in run.left.values()
        truth = _by_loop(net, x[:1], None, _SPREAD, fold, tuple(wanted), through, autocast)
        least = UNSEEN**fold.power * max((float(t.norm()) for t in truth.values()), default=0.0)
        near = COARSE if out.dtype in ROUNDING and autocast is None else COARSEST
        for name in truth.keys() - run.left.keys():
            off = found[name].double() - truth[name] if name in found else truth[name]
            if float(off.norm()) > near * float(truth[name].norm()) + least:
                run.left[name] = "is used where the rules do not see it"
        kept[key] = Probe(run.left, frozenset(run.recurrent))
    return kept[key]


def _bytes(net: nn.Module, x: Tensor, wanted: frozenset[str], autocast: torch.dtype | None) -> int:
    """What autograd keeps of a second sample, and what a backward pass makes of it."""

    def kept(n: int) -> int:
        held: dict[tuple[int, int], int] = {}

        def pack(tensor: Tensor) -> Tensor:
            held[tensor.data_ptr(), tensor.nbytes] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), _half(x, autocast):
            _ = net(x[:n])
        return sum(held.values())

    parameters = [p for name, p in net.named_parameters() if name in wanted]
    try:
        for p in parameters:
            p.requires_grad_(True)
        return max(1, int(OVERHEAD * (kept(2) - kept(1))))
    finally:
        for p in parameters:
            p.requires_grad_(False)


def independent(net: nn.Module, x: Tensor, out: Tensor, probe: Probe, autocast: torch.dtype | None = None) -> None:
    """Refuse a model whose outputs for a sample depend on the other samples of its batch; looked at once.

    Args:
        net: in eval mode.
        x: inputs [N, ...].
        out: what it says to all of them at once [N, C].
        probe: of the net.
        autocast: as for `sums_of`.

    Raises:
        ShapeError: they do.
    """
    if probe.independent or len(x) < 2:
        return
    with torch.no_grad(), _half(x, autocast):
        alone = torch.cat([_outputs(net(one), 1) for one in (x[:1], x[-1:])])
    moved = float((out[[0, -1]] - alone).abs().max())
    tolerance = COARSE if autocast else ROUNDING.get(out.dtype, COARSE)
    if moved > tolerance * max(float(alone.abs().max()), float(out.abs().max()), 1e-30):
        raise ShapeError(
            f"outputs of a sample move by {moved:.3g} with the other samples of its batch, so that samples have no gradients "
            f"of their own; something in the model couples them (batch statistics? attention over the batch?)"
        )
    probe.independent = True


def _outputs(out: Tensor, n: int) -> Tensor:
    if not isinstance(out, Tensor) or out.dim() != 2 or out.shape[0] != n:
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ShapeError(f"the model gave {shape} for {n} samples, expected outputs [N, classes]")
    return out.float() if out.dtype in (torch.float16, torch.bfloat16) else out


def _slow(
    net: nn.Module, x: Tensor, y: Tensor | None, loss: Loss, fold: Fold, names: tuple[str, ...], max_bytes: int, probe: Probe
) -> dict[str, Tensor]:
    """By torch.func where it can trace the model, else one sample at a time. Exact either way."""
    try:
        some = slice(0, 2)
        check = _by_func(net, x[some], None if y is None else y[some], loss, fold, names, max_bytes, probe)
        truth = _by_loop(net, x[some], None if y is None else y[some], loss, fold, names, probe.through)
        # torch.func has been seen to give zeros without a word (recurrent layers): trust it only where it is right
        if all(float((check[n] - t).norm()) <= COARSE * float(t.norm()) for n, t in truth.items()):
            return _by_func(net, x, y, loss, fold, names, max_bytes, probe)
    except Exception:  # torch.func has no common error for what it cannot trace; the loop below has no such limits
        pass
    return _by_loop(net, x, y, loss, fold, names, probe.through)


def _by_func(
    net: nn.Module, x: Tensor, y: Tensor | None, loss: Loss, fold: Fold, names: tuple[str, ...], max_bytes: int, probe: Probe
) -> dict[str, Tensor]:
    parameters = {n: p.detach() for n, p in net.named_parameters()}
    free = {n: parameters[n] for n in names}
    known, buffers = parameters_of(net), dict(net.named_buffers())
    # each place of a parameter once: `functional_call` itself leaves a module that has two names with what it put in
    places = {
        f"{module}.{name}".lstrip("."): known[id(p)]
        for module, of in net.named_modules()
        for name, p in of.named_parameters(recurse=False, remove_duplicate=False)
    }
    labels = torch.zeros(len(x), device=x.device) if y is None else y

    def terms(free: dict[str, Tensor], one: Tensor, label: Tensor) -> list[Tensor]:
        given = parameters | free
        out = functional_call(net, {**{at: given[n] for at, n in places.items()}, **buffers}, (one[None],), tie_weights=False)
        return list(loss.terms(out, None if y is None else label[None], fold.power))

    def count() -> int:
        with torch.no_grad():
            return len(terms(free, x[0], labels[0]))

    def term(k: int) -> Callable[..., Tensor]:
        return lambda free, one, label: terms(free, one, label)[k].sum()

    total = {n: torch.zeros(p.shape, dtype=torch.float64, device=p.device) for n, p in free.items()}
    step = max(1, max_bytes // max(1, probe.bytes + 2 * sum(p.nbytes for p in free.values())))
    for k in range(count()):
        gradients = vmap(grad(term(k)), (None, 0, 0))
        for i in range(0, len(x), step):
            for name, g in gradients(free, x[i : i + step], labels[i : i + step]).items():
                total[name] += fold.total(g.contiguous())
    return total


def _by_loop(
    net: nn.Module, x: Tensor, y: Tensor | None, loss: Loss, fold: Fold, names: tuple[str, ...], through: bool,
    autocast: torch.dtype | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Plain differentiation, a sample after the other; `through` all that comes before as well."""
    parameters, scale = dict(net.named_parameters()), _scale(autocast)
    wanted = {n: parameters[n] for n in names}
    total = {n: torch.zeros(p.shape, dtype=torch.float64, device=p.device) for n, p in wanted.items()}
    held = {p: p.grad for p in parameters.values()}
    for p in parameters.values() if through else wanted.values():
        p.requires_grad_(True)
    try:
        with torch.backends.cudnn.flags(enabled=False):  # its recurrent layers have no backward pass in eval mode
            for i in range(len(x)):
                one = x[i : i + 1].detach().requires_grad_(through and x.is_floating_point())
                with _half(x, autocast):
                    out = _outputs(net(one), 1)
                terms = list(loss.terms(out, None if y is None else y[i : i + 1], fold.power))
                for k, term in enumerate(terms):
                    for p in wanted.values():
                        p.grad = None
                    if term.requires_grad:  # else it depends on none of them
                        (term.sum() * scale).backward(retain_graph=k + 1 < len(terms))  # type: ignore[no-untyped-call]
                    for name, p in wanted.items():
                        if p.grad is not None:
                            total[name] += fold.of(p.grad.to_dense().double() / scale)
    finally:
        for p, grad in held.items():
            p.requires_grad_(False)
            p.grad = grad
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
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "None of the inputs have requires_grad=True")  # of checkpointing: so it is meant
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for p, wanted in asked.items():
            p.requires_grad_(wanted)


def _scale(autocast: torch.dtype | None) -> float:
    return HALF_SCALE if autocast is torch.float16 else 1.0


@contextmanager
def _half(x: Tensor, dtype: torch.dtype | None) -> Iterator[None]:
    if dtype is None:
        yield
    else:
        with torch.autocast(x.device.type, dtype=dtype):
            yield
