"""Watching a forward pass at the level of torch functions, so that no use of a parameter goes unseen.

Module hooks miss a parameter that is used outside its module, twice, or through a functional call. This mode sees every
torch function that is given a parameter. A parameter that is used exactly once, by a function with a rule, on inputs whose
leading axis is the samples, is owned by that rule; all others are left to the caller, by name and with the reason.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fedunlearn.errors import ShapeError
from fedunlearn.importance import rules
from fedunlearn.importance.rules import Arguments, Rule

_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_CONV_DEFAULTS = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
_PAIR = ("input", "other")


@dataclass(frozen=True)
class Known:
    """A torch function with a rule: names of its arguments, defaults, and which of them may be parameters."""

    rule: Rule
    names: tuple[str, ...]
    defaults: Mapping[str, Any]
    roles: tuple[str, ...] = ("weight", "bias")


def _known() -> dict[Callable[..., Any], Known]:
    norm = {"weight": None, "bias": None, "eps": 1e-5}
    found: dict[Callable[..., Any], Known] = {
        functional.linear: Known(rules.linear, ("input", "weight", "bias"), {"bias": None}),
        functional.batch_norm: Known(
            rules.batch_norm,
            ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
            {**norm, "training": False, "momentum": 0.1},
        ),
        functional.instance_norm: Known(
            rules.instance_norm,
            ("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps"),
            {**norm, "running_mean": None, "running_var": None, "use_input_stats": True, "momentum": 0.1},
        ),
        functional.group_norm: Known(rules.group_norm, ("input", "num_groups", "weight", "bias", "eps"), norm),
        functional.layer_norm: Known(rules.layer_norm, ("input", "normalized_shape", "weight", "bias", "eps"), norm),
        functional.embedding: Known(
            rules.embedding,
            ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse"),
            {"padding_idx": None, "max_norm": None, "norm_type": 2.0, "scale_grad_by_freq": False, "sparse": False},
            ("weight",),
        ),
        Tensor.expand: Known(rules.expansion, ("input",), {}, ("input",)),
    }
    for conv in (functional.conv1d, functional.conv2d, functional.conv3d):
        found[conv] = Known(rules.convolution, _CONV, _CONV_DEFAULTS)
    for add in (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__):
        found[add] = Known(rules.addition, _PAIR, {}, _PAIR)
    for mul in (torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__):
        found[mul] = Known(rules.product, _PAIR, {}, _PAIR)
    return found


KNOWN = _known()
CHECKPOINTED = "is used where gradients are switched off (checkpointing?)"
RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})  # torch.func gives zeros for them, without a word


@dataclass
class Tape(TorchFunctionMode):
    """Watches one forward pass over `n` samples.

    Args:
        names: parameter (by identity) -> name; all of them must not require gradients.
        wanted: names whose sums are asked for.
        n: how many samples.
        deliver: called in the backward pass with (rule, arguments, output gradient, role -> name).
        meet: called in the forward pass with (rule, arguments, output, role -> name).
    """

    names: Mapping[int, str]
    wanted: frozenset[str]
    n: int
    deliver: Callable[[Rule, Arguments, Tensor, Mapping[str, str]], None] | None = None
    meet: Callable[[Rule, Arguments, Tensor, Mapping[str, str]], None] | None = None
    uses: dict[str, int] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)  # wanted, but not a rule's: name -> why
    recurrent: set[str] = field(default_factory=set)  # of those, weights of recurrent layers
    entries: int = 0  # numbers that went into functions with a rule

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every torch function passes here."""
        kwargs = kwargs or {}
        names, hit = self.names, []
        for value in (*args, *kwargs.values()) if kwargs else args:
            if id(value) in names:
                hit.append(names[id(value)])
            elif type(value) in (list, tuple):
                hit += [names[id(v)] for v in value if id(v) in names]
        if func is functional.batch_norm:
            _refuse_batch_statistics(args, kwargs)
        if not hit:
            return func(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            found = self._attention(args, kwargs)
            if found is not None:
                return found
        return self._call(func, args, kwargs, hit)

    def owned(self) -> frozenset[str]:
        """Names that a rule accounts for, once the pass is over."""
        once = {n for n, count in self.uses.items() if count == 1}
        for name in self.uses.keys() - once - self.left.keys():
            self.left[name] = "is used more than once"
        for name in self.wanted - self.uses.keys() - self.left.keys():
            self.left[name] = "is used by no function that can be seen"
        return self.wanted & (once - self.left.keys())

    def _call(self, func: Any, args: Any, kwargs: Any, hit: list[str]) -> Any:
        known = KNOWN.get(func)
        a = _bound(known, args, kwargs) if known else None
        roles = {r: self.names[id(a[r])] for r in known.roles if id(a[r]) in self.names} if known and a else {}
        out = func(*args, **kwargs)
        if not holds_tensor(out):
            return out  # a question about the parameter (its shape, its dtype), not a use
        if known is None or a is None or sorted(roles.values()) != sorted(hit):
            name = getattr(func, "__name__", str(func))
            self._leave(hit, f"is used by {name}, for which there is no rule")
            if name in RECURRENT:
                self.recurrent.update(hit)
            return out
        asked = {r: n for r, n in roles.items() if n in self.wanted}
        why = self._unfit(known, a, out) if asked else None
        for name in roles.values():
            self.uses[name] = self.uses.get(name, 0) + 1
        if why is not None:
            self._leave(list(asked.values()), why)
            return out
        if asked and self.meet is not None:
            self.meet(known.rule, a, out, asked)
        self.entries += a["input"].numel() if asked else 0
        return self._watch(known.rule, a, out, asked) if asked and self.deliver is not None else out

    def _watch(self, rule: Rule, a: Arguments, out: Tensor, roles: Mapping[str, str]) -> Tensor:
        kept = dict(a)
        inputs = []
        for role in _PAIR:
            value = a.get(role)
            if isinstance(value, Tensor) and id(value) not in self.names:
                kept[role] = value.detach()
                inputs.append((value, value._version))
        if not out.requires_grad:
            out = out.detach().requires_grad_().clone()  # no leaf, so that what follows may work in place

        def back(g: Tensor) -> None:
            if any(v._version != version for v, version in inputs):
                self._leave(list(roles.values()), "has an input that was changed in place afterwards")
            elif self.deliver is not None:
                with torch.no_grad():
                    self.deliver(rule, kept, g, roles)

        out.register_hook(back)  # type: ignore[no-untyped-call]
        return out

    def _unfit(self, known: Known, a: Arguments, out: Tensor) -> str | None:
        """Why a rule does not hold for this call; None where it does."""
        if known.rule is rules.embedding and (a["max_norm"] is not None or a["scale_grad_by_freq"]):
            return "is an embedding with max_norm or scale_grad_by_freq"
        if self.deliver is not None and not torch.is_grad_enabled():
            return CHECKPOINTED
        batched = a["input"] if known.roles == ("weight", "bias") or known.rule is rules.embedding else out
        if batched.dim() < 2 or batched.shape[0] != self.n or out.shape[0] != self.n:
            return f"is used on {tuple(batched.shape)}, whose leading axis is not the {self.n} samples"
        if known.rule is rules.layer_norm and out.dim() <= len(a["normalized_shape"]):
            return "normalises over the samples"
        return None

    def _leave(self, names: list[str], why: str) -> None:
        for name in names:
            self.uses.setdefault(name, 0)
            if name in self.wanted:
                self.left.setdefault(name, why)

    def _attention(self, args: Any, kwargs: Any) -> Any:
        """Self-attention taken apart into its two linear maps; None where it is anything out of the ordinary."""
        a = _bound(_ATTENTION, args, kwargs)
        if a is None or not (a["query"] is a["key"] is a["value"]) or a["query"].dim() != 3 or a["query"].shape[1] != self.n:
            return None
        odd = ("bias_k", "bias_v", "add_zero_attn", "need_weights", "use_separate_proj_weight", "static_k", "static_v")
        dropped = a["training"] and a["dropout_p"]
        mask, padding = a["attn_mask"], a["key_padding_mask"]
        if dropped or any(a[k] is not None and a[k] is not False for k in odd) or (mask is not None and mask.dim() != 2):
            return None
        x, heads = a["query"].transpose(0, 1), a["num_heads"]  # [N, L, E]
        n, length, width = x.shape
        packed = self._linear(x, a["in_proj_weight"], a["in_proj_bias"])
        q, k, v = (t.reshape(n, length, heads, width // heads).transpose(1, 2) for t in packed.chunk(3, -1))
        hidden = [
            _additive(m, x.dtype) for m in (mask, padding[:, None, None] if padding is not None else None) if m is not None
        ]
        total = sum(hidden[1:], hidden[0]) if hidden else None
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=total)
        out = self._linear(mixed.transpose(1, 2).reshape(n, length, width), a["out_proj_weight"], a["out_proj_bias"])
        return out.transpose(0, 1), None

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        hit = [self.names[id(t)] for t in (weight, bias) if id(t) in self.names]
        out: Tensor = self._call(functional.linear, (x, weight, bias), {}, hit)
        return out


_ATTENTION = Known(
    rules.linear,
    ("query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k", "bias_v",
     "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias"),
    {"training": True, "key_padding_mask": None, "need_weights": True, "attn_mask": None, "is_causal": False,
     "use_separate_proj_weight": False, "q_proj_weight": None, "k_proj_weight": None, "v_proj_weight": None,
     "static_k": None, "static_v": None, "average_attn_weights": True},
)  # fmt: skip


def parameters_of(net: nn.Module) -> dict[int, str]:
    """Identity -> name; a parameter under several names has its first."""
    return {id(p): n for n, p in net.named_parameters()}


def _bound(known: Known, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments by name; None where some are missing or unheard of (an `alpha` or `out` that a rule does not know)."""
    a = {**known.defaults, **dict(zip(known.names, args, strict=False)), **kwargs}
    return a if all(n in a for n in known.names) and a.keys() <= {*known.names, *known.defaults} else None


def _refuse_batch_statistics(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    a = _bound(KNOWN[functional.batch_norm], args, kwargs)
    if a is not None and a["training"]:
        raise ShapeError(
            "BatchNorm takes its statistics from the batch, so that samples have no gradients of their own; use running "
            "statistics (track_running_stats=True), or another normalisation"
        )


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to be added to scores; in a mask of truth values, True hides."""
    return (
        torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, -torch.inf)
        if mask.dtype == torch.bool
        else mask
    )


def holds_tensor(value: Any) -> bool:
    """Whether what a torch function gave is a tensor, or has one in it; of a question (a shape, a dtype) it is not."""
    return isinstance(value, Tensor) or (isinstance(value, list | tuple) and any(map(holds_tensor, value)))
