"""Three ways to sums over samples: rules along one pass, torch.func, and plain differentiation of a sample after the other."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedunlearn.errors import ShapeError
from fedunlearn.importance.folds import Fold
from fedunlearn.importance.losses import Loss
from fedunlearn.importance.rules import Arguments, Rule
from fedunlearn.importance.tape import Tape, parameters_of

HALF_SCALE = 4096.0  # float16 gradients below 6e-8 vanish; the loss is scaled up, the sums are scaled back


@dataclass
class Run:
    """One forward pass, watched by a tape, and the backward passes of its loss, for parameters that rules account for.

    Args:
        net: in eval mode, frozen.
        names: as `parameters_of` gives them.
        wanted: names of parameters.
        fold: f of `sums_of`.
        loss: what is differentiated.
        autocast: half precision of the forward pass, if any.
        left: afterwards, those that no rule accounts for, and why.
        recurrent: of those, weights of recurrent layers.
    """

    net: nn.Module
    names: Mapping[int, str]
    wanted: frozenset[str]
    fold: Fold
    loss: Loss
    autocast: torch.dtype | None
    left: dict[str, str] = field(default_factory=dict)
    recurrent: set[str] = field(default_factory=set)

    def __call__(self, x: Tensor, y: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        """Sums over the samples of inputs [N, ...], by parameter, and the outputs [N, C].

        Raises:
            ShapeError: outputs are not [N, C].
        """
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
        with tape, in_half(x, self.autocast):
            out = self.net(x)
        out = outputs_of(out, len(x))
        owned = tape.owned()
        if out.requires_grad:
            terms = list(self.loss.terms(out, y, self.fold.power))
            for k, term in enumerate(terms):
                (term.sum() * scale).backward(retain_graph=k + 1 < len(terms))  # type: ignore[no-untyped-call]
        self.left, self.recurrent = tape.left, tape.recurrent
        return {n: t for n, t in found.items() if n not in tape.left}, out.detach()


def by_func(
    net: nn.Module, x: Tensor, y: Tensor | None, loss: Loss, fold: Fold, names: tuple[str, ...], max_bytes: int, kept: int
) -> dict[str, Tensor]:
    """By torch.func, as many samples at once as the bound allows, `kept` being the bytes that one keeps: float64 sums.

    Raises:
        Exception: of any kind, where torch.func cannot trace the model; what it gives may be wrong (see `engine`).
    """
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
    step = max(1, max_bytes // max(1, kept + 2 * sum(p.nbytes for p in free.values())))
    for k in range(count()):
        gradients = vmap(grad(term(k)), (None, 0, 0))
        for i in range(0, len(x), step):
            for name, g in gradients(free, x[i : i + step], labels[i : i + step]).items():
                total[name] += fold.total(g.contiguous())
    return total


def by_loop(
    net: nn.Module, x: Tensor, y: Tensor | None, loss: Loss, fold: Fold, names: tuple[str, ...], through: bool,
    autocast: torch.dtype | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Plain differentiation, a sample after the other, `through` all that comes before as well: float64 sums.

    Raises:
        ShapeError: outputs are not [N, C].
    """
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
                with in_half(x, autocast):
                    out = outputs_of(net(one), 1)
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


def outputs_of(out: Tensor, n: int) -> Tensor:
    """What a model gave for n samples, if it is [N, C]; half precision as float32.

    Raises:
        ShapeError: it is not.
    """
    if not isinstance(out, Tensor) or out.dim() != 2 or out.shape[0] != n:
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ShapeError(f"the model gave {shape} for {n} samples, expected outputs [N, classes]")
    return out.float() if out.dtype in (torch.float16, torch.bfloat16) else out


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
def in_half(x: Tensor, dtype: torch.dtype | None) -> Iterator[None]:
    """Forward passes in half precision on the inputs' device, if a type is given."""
    if dtype is None:
        yield
    else:
        with torch.autocast(x.device.type, dtype=dtype):
            yield
