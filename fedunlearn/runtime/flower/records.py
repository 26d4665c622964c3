"""Packed tasks and answers in Flower's records: JSON in a ConfigRecord, raw bytes of tensors in an ArrayRecord."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from fedunlearn.runtime.codec import DTYPES, CodecError, Packed

TASKS = "query.fedunlearn"
WHOAMI = "query.fedunlearn_whoami"
PROTOCOL = 2
RAW = "fedunlearn.raw"  # how an Array's bytes are to be read: little-endian, row by row; its dtype says the rest
CONFIG, ARRAYS = "fedunlearn", "fedunlearn.tensors"
MOST_DIMENSIONS = 64
MOST_SAID = 32  # names of the code at work, and four times as many characters of each


def to_records(batch: str, messages: Sequence[Packed], code: Mapping[str, str] = MappingProxyType({})) -> RecordDict:
    """All that goes in one message; a tensor that several tasks have in common goes once.

    Args:
        batch: which exchange it belongs to; an answer repeats it.
        messages: in order.
        code: what answers says of its code (see `store.code`).
    """
    config = ConfigRecord({"protocol": PROTOCOL, "batch": batch})
    config["code"] = [f"{name}={version}" for name, version in code.items()]
    config["kinds"], config["plain"] = [m.kind for m in messages], [m.plain for m in messages]
    arrays: dict[str, Array] = {}
    first: dict[tuple[int, str, tuple[int, ...]], str] = {}  # what lies where -> under which name it goes
    same: list[str] = []
    for i, message in enumerate(messages):
        for name, tensor in message.tensors.items():
            key, where = f"{i}/{name}", (tensor.data_ptr(), str(tensor.dtype), tuple(tensor.shape))
            if tensor.numel() and where in first:
                same.append(f"{key}={first[where]}")
            else:
                first[where], arrays[key] = key, _array(tensor)
    config["same"] = same
    return RecordDict({CONFIG: config, ARRAYS: ArrayRecord(arrays)})


def volume(content: RecordDict) -> int:
    """Bytes of what `to_records` made, without what Flower adds; 0 for anything else."""
    config, arrays = content.get(CONFIG), content.get(ARRAYS)
    if not isinstance(config, ConfigRecord) or not isinstance(arrays, ArrayRecord):
        return 0
    texts = [t for name in ("kinds", "plain", "same") if isinstance(held := config.get(name), list) for t in held]
    return sum(len(str(t)) for t in texts) + sum(len(array.data) for array in arrays.values())


def code_in(content: RecordDict) -> dict[str, str]:
    """What whoever made a message says of its code; nothing where it does not say.

    Raises:
        CodecError: it is not what `to_records` makes.
    """
    config = content.get(CONFIG)
    said = config.get("code", []) if isinstance(config, ConfigRecord) else []
    if not (isinstance(said, list) and len(said) <= MOST_SAID):
        raise CodecError(f"a message that does not say its code as up to {MOST_SAID} texts")
    found: dict[str, str] = {}
    for text in map(str, said):
        name, equals, version = text.partition("=")
        if not equals or len(text) > 4 * MOST_SAID or not text.isprintable():
            raise CodecError(
                f"a message that does not say its code as name=version, of up to {4 * MOST_SAID} printable characters"
            )
        found[name] = version
    return found


def from_records(content: RecordDict) -> tuple[str, list[Packed]]:
    """What `to_records` was given, out of what may come from anybody.

    Raises:
        CodecError: it is not what `to_records` makes.
    """
    config, arrays = content.get(CONFIG), content.get(ARRAYS)
    if not isinstance(config, ConfigRecord) or not isinstance(arrays, ArrayRecord):
        raise CodecError(f"a message with records {[str(k)[:40] for k in content][:5]}, expected {CONFIG} and {ARRAYS}")
    if config.get("protocol") != PROTOCOL:
        raise CodecError(
            f"a message of protocol {str(config.get('protocol'))[:40]!r}, expected {PROTOCOL}; update one of both sides"
        )
    batch, kinds, plain, same = config.get("batch"), config.get("kinds"), config.get("plain"), config.get("same")
    if not isinstance(batch, str) or not isinstance(kinds, list) or not isinstance(plain, list) or not isinstance(same, list):
        raise CodecError("a message without its batch, or without its lists")
    if len(kinds) != len(plain):
        raise CodecError("a message with lists of kinds and of JSON that differ in length")
    tensors: list[dict[str, Tensor]] = [{} for _ in kinds]
    opened = {key: _tensor(key, array) for key, array in arrays.items()}
    for text in same:
        key, _, first = str(text).partition("=")
        if first not in arrays or key in opened:
            raise CodecError(f"a tensor {str(text)[:80]!r} that is said to be another; expected one that came along")
        opened[key] = opened[first]
    for key, tensor in opened.items():
        number, _, name = key.partition("/")
        if not (number.isascii() and number.isdigit() and len(number) < 9 and int(number) < len(kinds)):
            raise CodecError(f"a tensor {key[:80]!r} that belongs to none of {len(kinds)} messages")
        tensors[int(number)][name] = tensor
    return batch, [Packed(str(k), str(p), t) for k, p, t in zip(kinds, plain, tensors, strict=True)]


def _array(tensor: Tensor) -> Array:
    data = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    return Array(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), RAW, data)


def _tensor(key: str, array: Array) -> Tensor:
    dtype = DTYPES.get(array.dtype)
    if array.stype != RAW or dtype is None:
        raise CodecError(f"tensor {key[:80]!r}: got {array.stype[:40]!r} of {array.dtype[:40]!r}, expected {RAW!r}")
    shape, held = array.shape, len(array.data)
    if len(shape) > MOST_DIMENSIONS or any(not 0 <= n < 2**63 for n in shape) or math.prod(shape) * dtype.itemsize != held:
        raise CodecError(f"tensor {key[:80]!r}: {held} bytes do not make {array.dtype} of shape {str(tuple(shape))[:80]}")
    if not held:
        return torch.empty(0, dtype=dtype).reshape(shape) if math.prod(max(n, 1) for n in shape) < 2**63 else _absurd(key)
    raw = torch.frombuffer(bytearray(array.data), dtype=torch.uint8)
    if dtype == torch.bool and int(raw.max()) > 1:
        raise CodecError(f"tensor {key[:80]!r}: bytes that are neither true nor false")
    return raw.view(dtype).reshape(shape)


def _absurd(key: str) -> Tensor:
    raise CodecError(f"tensor {key[:80]!r}: empty, of an absurd shape")
