"""Files of an enemy: a right one with some bits, bytes or values changed, and the law that whoever reads them keeps."""

import copy
import json
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import strategies as st

from fedunlearn.errors import FedUnlearnError

Read = TypeVar("Read")
DEEP, DIGITS = "@deep@", "@digits@"  # stand for what no JSON writer makes
JUNK: tuple[Any, ...] = (
    None, True, -1, 0, 3, 2**63, 10**30, 0.5, 1e308, float("nan"), float("inf"), "", "x", "0" * 64, "../../escaped",
    "/tmp/escaped", "a\0b", "\ud800", "n" * 5000, [], {}, [[]], [None], [1, "x"], {"": {}}, {"x": 1}, DEEP, DIGITS,
)  # fmt: skip


def text_of(plain: Any, deep: int = 3000) -> str:
    """JSON, with what no writer makes in place of what stands for it: so many levels, 5,000 digits."""
    said = json.dumps(plain)
    return said.replace(json.dumps(DEEP), "[" * deep + "]" * deep).replace(json.dumps(DIGITS), "9" * 5000)


@st.composite
def changed(draw: st.DrawFn, plain: Any) -> Any:
    """Plain data with one or two values replaced, taken out, put in or wrapped, anywhere."""
    box = [copy.deepcopy(plain)]
    for _ in range(draw(st.integers(1, 2))):
        holder: Any = box
        key: Any = 0
        while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 5)):
            holder = holder[key]
            key = draw(st.sampled_from(list(holder) if isinstance(holder, dict) else range(len(holder))))
        junk = copy.deepcopy(draw(st.sampled_from(JUNK)))
        match draw(st.sampled_from(("replace", "replace", "out", "in", "wrap"))):
            case "replace":
                holder[key] = junk
            case "out" if holder is not box:
                del holder[key]
            case "in" if isinstance(holder, dict):
                holder[draw(st.sampled_from(("x", "", "../../escaped", "a\0b")))] = junk
            case _:
                holder[key] = [holder[key]]
    return box[0]


@st.composite
def spoiled(draw: st.DrawFn, raw: bytes) -> bytes:
    """Bytes with some bits flipped, the end cut off, parts moved or doubled, or others put in."""
    made = bytearray(raw)
    for _ in range(draw(st.integers(1, 3))):
        at, to = (draw(st.integers(0, max(0, len(made) - 1))) for _ in range(2))
        match draw(st.sampled_from(("flip", "flip", "cut", "splice", "double", "in"))):
            case "flip" if made:
                made[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del made[at:]
            case "splice":
                made[at : at + 8] = made[to : to + 8]
            case "double":
                made[to:to] = made[at : at + 100]
            case _:
                made[at:at] = draw(st.sampled_from((b"\0", b"\xff\xfe", b"\xf0", b"\n", b"{", b"[" * 3000, b"9" * 5000, b'"')))
    return bytes(made)


def lawful(read: Callable[[], Read], named: object = "") -> Read | None:
    """What is read, or None where it is refused as it should be: with an error of our own that names the file."""
    try:
        return read()
    except FedUnlearnError as error:
        if str(named) not in str(error):
            raise AssertionError(f"does not name {named}") from error
        return None
