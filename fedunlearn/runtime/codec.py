"""Tasks and answers as what may cross a wire: a kind out of a literal menu, JSON, and named tensors. No code, no pickles.

What a field may hold is read off the dataclasses in `tasks.py`. Whatever comes in is untrusted: it becomes a task or an
answer exactly as they say, or one `CodecError`. A method that is `their.module:Class` travels as text; see `backend.answer`.
"""

import json
import math
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from fedunlearn.errors import FedUnlearnError
from fedunlearn.plain import loads
from fedunlearn.runtime import tasks
from fedunlearn.runtime.tasks import Answer, Task

KINDS: dict[str, type] = {
    "fetch": tasks.Fetch,
    "fetched": tasks.Fetched,
    "measure": tasks.Measure,
    "measured": tasks.Measured,
    "deposit": tasks.Deposit,
    "deposited": tasks.Deposited,
    "score": tasks.Score,
    "scored": tasks.Scored,
    "apply": tasks.Apply,
    "applied": tasks.Applied,
    "evaluate": tasks.Evaluate,
    "evaluated": tasks.Evaluated,
    "commit": tasks.Commit,
    "committed": tasks.Committed,
    "seal": tasks.Seal,
    "sealed": tasks.Sealed,
    "survey": tasks.Survey,
    "surveyed": tasks.Surveyed,
    "train": tasks.Train,
    "trained": tasks.Trained,
    "failure": tasks.Failure,
}
_NAMES = {kind: name for name, kind in KINDS.items()}
DTYPES = {
    str(d).removeprefix("torch."): d
    for d in (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool)
}
NARROW = ("bfloat16", "float32")  # in which float64 travels where all its values fit: nothing is lost
MOST_TEXT = 64 << 20  # characters of JSON
MOST_BYTES = 16 << 30  # of tensors
MOST_TENSORS = 200_000
MOST_DEPTH = 16  # of settings within settings
_WIDENED = re.compile(r'"(\d+:\w+)>float64"')
_SCALARS: dict[Any, tuple[type, ...]] = {str: (str,), int: (int,), float: (float, int), bool: (bool,)}


class CodecError(FedUnlearnError):
    """A message is not one of ours, or something cannot be made into one; says its kind and field."""


@dataclass(frozen=True)
class Packed:
    """A task or an answer, packed.

    Args:
        kind: one of `KINDS`.
        plain: its fields as JSON, in their own order; where a tensor belongs, the tensor's name, and
            ">float64" if it travels narrower than it is.
        tensors: on the CPU and contiguous; a name is "<number>:<dtype>", for example "0:bfloat16".
    """

    kind: str
    plain: str
    tensors: Mapping[str, Tensor]


def pack(value: Task | Answer) -> Packed:
    """Pack; `unpack` is the inverse, to the bit and to the order of mappings.

    Raises:
        CodecError: a field holds what cannot travel.
    """
    kind = _NAMES.get(type(value))
    if kind is None:
        raise CodecError(f"{type(value).__name__} is no message; expected one of {', '.join(t.__name__ for t in _NAMES)}")
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(_fold(value, type(value), kind, tensors), separators=(",", ":"), allow_nan=False)
    return _bounded(Packed(kind, plain, tensors))


def unpack(packed: Packed) -> Task | Answer:
    """Unpack what may come from anybody.

    Raises:
        CodecError: it is not what `pack` makes.
    """
    kind = packed.kind
    if not (isinstance(kind, str) and kind in KINDS):
        raise CodecError(f"message of unknown kind {str(kind)[:80]!r}; known: {', '.join(KINDS)}")
    _bounded(packed)
    try:
        plain = loads(packed.plain, parse_constant=_no_constant)
    except ValueError as error:
        raise CodecError(f"{kind}: not JSON as it is sent here: {str(error)[:200]}") from error
    left = dict(packed.tensors)
    value: Task | Answer = _unfold(plain, KINDS[kind], kind, left)
    if left:
        raise CodecError(f"{kind}: carries {len(left)} tensors that no field names, the first {str(next(iter(left)))[:80]!r}")
    return value


def _bounded(packed: Packed) -> Packed:
    if not isinstance(packed.plain, str) or not isinstance(packed.tensors, Mapping):
        raise CodecError(f"{packed.kind}: expected JSON text and named tensors")
    found = list(packed.tensors.values())
    if not all(isinstance(t, Tensor) for t in found):
        raise CodecError(f"{packed.kind}: carries something else than tensors")
    wide = set(_WIDENED.findall(packed.plain))  # what it will have, not what it came with: names may share what came
    held = sum(t.numel() * (8 if name in wide else t.element_size()) for name, t in packed.tensors.items())
    for what, has, most in (
        ("characters", len(packed.plain), MOST_TEXT),
        ("tensors", len(found), MOST_TENSORS),
        ("bytes", held, MOST_BYTES),
    ):
        if has > most:
            raise CodecError(f"{packed.kind}: has {has} {what}, expected at most {most}")
    return packed


def _record(hint: Any) -> bool:
    return isinstance(hint, type) and is_dataclass(hint)


def _exactly(value: Any, hint: Any) -> bool:
    return type(value) is hint


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind)}


def _fold(value: Any, hint: Any, at: str, tensors: dict[str, Tensor]) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return _fold_any(value, at, MOST_DEPTH)
    if origin is types.UnionType:  # only ever "or None"
        return None if value is None else _fold(value, args[0], at, tensors)
    if hint is Tensor and isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype not in DTYPES or value.layout != torch.strided:
            raise _wrong(at, f"a {value.layout} tensor of {dtype}", f"a dense one of {', '.join(DTYPES)}")
        held = value.detach().cpu().contiguous()
        narrow = next((d for d in NARROW if dtype == "float64" and torch.equal(held.to(DTYPES[d]).double(), held)), "")
        name = f"{len(tensors)}:{narrow or dtype}"
        tensors[name] = held.to(DTYPES[narrow]) if narrow else held
        return f"{name}>{dtype}" if narrow else name
    if _record(hint) and _exactly(value, hint):
        return {n: _fold(getattr(value, n), h, f"{at}.{n}", tensors) for n, h in _hints(hint).items()}
    if origin is tuple and isinstance(value, tuple):
        return [_fold(v, h, f"{at}[{i}]", tensors) for i, (v, h) in enumerate(_paired(value, args, at))]
    if origin is Mapping and isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        return {k: _fold(v, args[1], f"{at}.{k}", tensors) for k, v in value.items()}
    if hint in _SCALARS:
        return _fold_any(_scalar(value, hint, at), at, 0)
    raise _wrong(at, _shown(value), _name(hint))


def _unfold(plain: Any, hint: Any, at: str, tensors: dict[str, Tensor]) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return _unfold_any(plain, at, MOST_DEPTH)
    if origin is types.UnionType:
        return None if plain is None else _unfold(plain, args[0], at, tensors)
    if hint is Tensor and isinstance(plain, str):
        name, widened, wide = plain.partition(">")
        if name not in tensors:
            raise _wrong(at, _shown(name), "the name of a tensor that came along, each named once")
        found, dtype = tensors.pop(name), name.partition(":")[2]
        if found.dtype != DTYPES.get(dtype) or found.layout != torch.strided or found.is_meta:
            raise _wrong(at, f"a tensor of {found.dtype}", f"a dense one as named, {name[:80]!r}")
        if widened and (dtype not in NARROW or wide != "float64"):
            raise _wrong(at, _shown(plain), f"one of {', '.join(NARROW)} that becomes float64")
        return found.double() if widened else found
    if _record(hint) and isinstance(plain, dict):
        hints = _hints(hint)
        missing, extra = sorted(hints.keys() - plain.keys()), sorted(plain.keys() - hints.keys())
        if missing or extra:
            raise _wrong(at, f"missing {missing[:5]}, not known {[e[:80] for e in extra[:5]]}", f"fields {', '.join(hints)}")
        values = {n: _unfold(plain[n], h, f"{at}.{n}", tensors) for n, h in hints.items()}
        try:
            return hint(**values)
        except FedUnlearnError as error:
            raise CodecError(f"{at}: {error}") from error
    if origin is tuple and isinstance(plain, list):
        return tuple(_unfold(v, h, f"{at}[{i}]", tensors) for i, (v, h) in enumerate(_paired(plain, args, at)))
    if origin is Mapping and isinstance(plain, dict):
        return {k: _unfold(v, args[1], f"{at}.{k}", tensors) for k, v in plain.items()}
    if hint in _SCALARS:
        return _scalar(_unfold_any(plain, at, 0), hint, at)
    raise _wrong(at, _shown(plain), _name(hint))


def _fold_any(value: Any, at: str, depth: int) -> Any:
    """Plain settings of any nesting: what JSON does not tell apart or does not have is wrapped in an object that says so."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": str(float(value))}
    if depth and type(value) in (list, tuple):
        return {type(value).__name__: [_fold_any(v, f"{at}[{i}]", depth - 1) for i, v in enumerate(value)]}
    if depth and isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        return {"dict": {k: _fold_any(v, f"{at}.{k}", depth - 1) for k, v in value.items()}}
    raise _wrong(at, _shown(value), f"a plain value, numbers within 64 bits, not nested deeper than {MOST_DEPTH}")


def _unfold_any(plain: Any, at: str, depth: int) -> Any:
    match plain:
        case None | str() | bool() | float():
            return plain
        case int() if -(2**63) <= plain < 2**63:
            return plain
        case {"float": "nan" | "inf" | "-inf" as text, **rest} if not rest:
            return float(text)
        case {"list": [*held], **rest} if depth and not rest:
            return [_unfold_any(v, f"{at}[{i}]", depth - 1) for i, v in enumerate(held)]
        case {"tuple": [*held], **rest} if depth and not rest:
            return tuple(_unfold_any(v, f"{at}[{i}]", depth - 1) for i, v in enumerate(held))
        case {"dict": {**named}, **rest} if depth and not rest:
            return {k: _unfold_any(v, f"{at}.{k}", depth - 1) for k, v in named.items()}
    raise _wrong(at, _shown(plain), f"a plain value, numbers within 64 bits, not nested deeper than {MOST_DEPTH}")


def _scalar(value: Any, hint: Any, at: str) -> Any:
    if not isinstance(value, _SCALARS[hint]) or (isinstance(value, bool) and hint is not bool):
        raise _wrong(at, _shown(value), _name(hint))
    return value


def _paired(values: Any, args: tuple[Any, ...], at: str) -> list[tuple[Any, Any]]:
    if len(args) == 2 and args[1] is Ellipsis:
        return [(v, args[0]) for v in values]
    if len(values) != len(args):
        raise _wrong(at, f"{len(values)} values", str(len(args)))
    return list(zip(values, args, strict=True))


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:80]!r}" if isinstance(value, str | int | float) else type(value).__name__


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "").replace("collections.abc.", "")


def _wrong(at: str, got: str, expected: str) -> CodecError:
    return CodecError(f"{at[:300]}: got {got}, expected {expected}; do both sides run the same version of fedunlearn?")
