"""Statistics that need no gradient: how much the units of a layer fire, and how a layer's inputs are spread."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fedunlearn.errors import ShapeError
from fedunlearn.importance import rules
from fedunlearn.importance.rules import Arguments, Rule
from fedunlearn.importance.tape import Tape, holds_tensor, parameters_of

Each = Callable[[Rule, Arguments, Tensor, bool], Tensor]


def activation(rule: Rule, a: Arguments, out: Tensor, biased: bool) -> Tensor:
    """Sum over samples of each unit's mean activation over positions: [N, units, ...] or [N, ..., units] -> [units].

    A unit's activation is what is left of its output behind the normalisation and the nonlinearity that come right after it
    (see `Firing`). ActivationMask (FisherMask, arXiv 2310.05331) compares its mean on forgotten and on retained rows.
    """
    del a, biased
    out = out.double()
    if rule is rules.convolution:
        return out.flatten(2).mean(2).sum(0)
    return (out.flatten(1, -2).mean(1) if out.dim() > 2 else out).sum(0)


def moment(rule: Rule, a: Arguments, out: Tensor, biased: bool) -> Tensor:
    """Sum over samples and positions of h h^T, h being the layer's input (a patch of it for a convolution): [K, K].

    The input side of K-FAC (Martens and Grosse, arXiv 1503.05671). With a bias, h has a last entry 1, and K is one more.
    """
    x = a["input"]
    if rule is rules.convolution:
        if x.dim() != 4 or a["groups"] != 1 or isinstance(a["padding"], str):
            raise ShapeError("moment: convolutions other than 2-d, in one group, padded by numbers are not covered")
        size = a["weight"].shape[2:]
        x = functional.unfold(x, size, a["dilation"], a["padding"], a["stride"]).transpose(1, 2)
    rows = x.reshape(-1, x.shape[-1]).double()
    if biased:
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
    product: Tensor = rows.T @ rows
    return product


PASSED = frozenset(
    {functional.batch_norm, functional.instance_norm, functional.group_norm, functional.layer_norm, functional.dropout}
)  # what a layer's output goes through on its way to the nonlinearity
FIRED: frozenset[Callable[..., Any]] = frozenset(
    {getattr(functional, n) for n in ("relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish",
                                      "hardswish", "hardsigmoid", "hardtanh", "softplus", "sigmoid", "tanh")}
    | {getattr(of, n) for of in (torch, Tensor) for n in ("relu", "relu_", "sigmoid", "tanh")}
)  # fmt: skip


class Firing(TorchFunctionMode):
    """Follows outputs of layers to where they fire: through normalisations, and one nonlinearity; no farther than these.

    An output to which something is added first, a shortcut for example, is taken as it was before.

    Args:
        found: called with what was given to `follow` and the output, as far as it could be followed.
    """

    def __init__(self, found: Callable[[Any, Tensor], None]) -> None:
        super().__init__()
        self.found = found
        self.open: dict[int, tuple[Any, Tensor]] = {}  # with the tensor: its identity would be another's else

    def follow(self, what: Any, out: Tensor) -> None:
        """Follow an output from here on."""
        self.open[id(out)] = what, out

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every torch function passes here."""
        kwargs = kwargs or {}
        flat = (v for value in (*args, *kwargs.values()) for v in (value if type(value) in (list, tuple) else (value,)))
        met = {id(v): self.open[id(v)] for v in flat if id(v) in self.open}
        on = func in PASSED or func in FIRED
        if met and not on and _changes(func, kwargs):
            self._close(met)
        out = func(*args, **kwargs)
        if not met or not holds_tensor(out):
            return out  # a question, about its shape for example
        if on and isinstance(out, Tensor):
            for key, (what, _) in met.items():
                del self.open[key]
                if func in FIRED:
                    self.found(what, out)
                else:
                    self.follow(what, out)
        else:
            self._close(met)
        return out

    def _close(self, met: Collection[int]) -> None:
        for key in met:
            if (of := self.open.pop(key, None)) is not None:
                self.found(*of)

    def end(self) -> None:
        """Nothing comes any more."""
        self._close(tuple(self.open))


def _changes(func: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether a torch function changes what it is given, by its name."""
    name = str(getattr(func, "__name__", ""))
    itself = name == "__setitem__" or name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))
    return itself or bool(kwargs.get("inplace")) or "out" in kwargs


FORWARD: dict[str, Each] = {"activation": activation, "moment": moment}


def fits(
    statistic: str, found: Mapping[str, Sequence[int]], shapes: Mapping[str, Sequence[int]], wanted: Collection[str]
) -> bool:
    """Whether shapes of sums are those of a statistic of a model.

    Args:
        statistic: any.
        found: shapes of its sums, by parameter.
        shapes: of the model's parameters.
        wanted: names of the parameters that were asked for.
    """
    if statistic not in FORWARD:
        return {n: tuple(s) for n, s in found.items()} == {n: tuple(shapes[n]) for n in wanted}
    if not found or not found.keys() <= set(wanted):
        return False
    if statistic == "activation":
        return all(tuple(s) == tuple(shapes[n][:1]) for n, s in found.items())
    inputs = {n: prod(shapes[n][1:]) for n in found}
    return all(tuple(s) in {(k, k), (k + 1, k + 1)} for s, k in ((s, inputs[n]) for n, s in found.items()))


def forward_sums(net: nn.Module, x: Tensor, statistic: str, wanted: frozenset[str], max_bytes: int) -> dict[str, Tensor]:
    """A forward statistic of every wanted weight of a linear or convolutional layer, by the weight's name.

    Args:
        net: in eval mode.
        x: inputs [N, ...].
        statistic: a name of `FORWARD`.
        wanted: names of parameters; those that are no such weight have no such statistic and are left out.
        max_bytes: bound on the activations of one pass.

    Raises:
        ShapeError: a wanted weight is used in a way that is not covered, or none is wanted at all.
    """
    total: dict[str, Tensor] = {}
    biases = {n for n, p in net.named_parameters() if p.dim() == 1}

    def run(part: Tensor) -> Tape:
        def add(met: tuple[Rule, Arguments, str], out: Tensor) -> None:
            rule, a, name = met
            found = FORWARD[statistic](rule, a, out, a["bias"] is not None)
            total[name] = total[name] + found if name in total else found

        def meet(rule: Rule, a: Arguments, out: Tensor, roles: Mapping[str, str]) -> None:
            if rule in (rules.linear, rules.convolution) and "weight" in roles:
                (firing.follow if statistic == "activation" else add)((rule, a, roles["weight"]), out)

        firing, tape = Firing(add), Tape(parameters_of(net), wanted, len(part), None, meet)
        with tape, firing if statistic == "activation" else nullcontext(), torch.no_grad():
            net(part)
        firing.end()
        return tape

    probe = run(x[:1])
    weights = frozenset(total) | {n for n in probe.left if n not in biases}
    total.clear()
    step = max(1, max_bytes // max(1, 2 * probe.entries * max(4, x.element_size())))
    for i in range(0, len(x), step):
        tape = run(x[i : i + step])
        for name in weights & tape.left.keys():
            raise ShapeError(f"{statistic}: parameter {name!r} {tape.left[name]}; name the layers you want without it")
    if not weights:
        raise ShapeError(f"{statistic}: none of the layers asked for is linear or convolutional")
    return total
