"""Plain data that anybody may have written: JSON of one shape, or a ValueError that says what is wrong with it."""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, TypeVar

from blake3 import blake3
from pydantic import StringConstraints, TypeAdapter, ValidationError

Shape = TypeVar("Shape")
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Place = Annotated[str, StringConstraints(pattern=r"^\.?[^/\\\x00.][^/\\\x00]*$", max_length=255)]  # a folder's name, no way out
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def loads(text: str | bytes, *, twice: bool = False, **hooks: Any) -> Any:
    """What JSON says.

    Args:
        text: UTF-8 where it is bytes.
        twice: let a name stand twice in one object; faster, for whoever holds the text against its one form all the same.
        hooks: as `json.loads` takes them.

    Raises:
        ValueError: it is not JSON, names something twice, is nested too deep, or has numbers of thousands of digits, or text
            that UTF-8 cannot hold.
    """
    said = text if isinstance(text, str) else text.decode()
    try:
        plain = json.loads(said, object_pairs_hook=None if twice else _once, **hooks)
        if _SURROGATE.search(said):
            json.dumps(plain, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deep") from None
    return plain


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def canonical(plain: Any) -> bytes:
    """The one way to write plain data that hashes are taken of: sorted keys, no spaces."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def digest(plain: Any) -> str:
    """BLAKE3 of the canonical form of plain data, 64 hexadecimal digits."""
    return blake3(canonical(plain)).hexdigest()


def stamped(plain: Mapping[str, Any]) -> bytes:
    """JSON of a mapping and, as `hash`, the BLAKE3 of its canonical JSON; `unstamped` is the inverse."""
    return json.dumps({**plain, "hash": digest(plain)}, indent=1).encode()


def unstamped(raw: bytes) -> dict[str, Any]:
    """The inverse of `stamped`.

    Raises:
        ValueError: it is not JSON of a mapping, or not one byte for byte as `stamped` writes it.
    """
    plain = {k: v for k, v in shaped(loads(raw), dict[str, Any]).items() if k != "hash"}
    if raw != stamped(plain):
        raise ValueError("content and hash do not agree")
    return plain


def shaped(plain: Any, shape: type[Shape]) -> Shape:
    """The same, if it has a shape; nothing is converted.

    Args:
        plain: what `loads` gives.
        shape: a TypedDict, or another type of plain data.

    Raises:
        ValueError: it has not; says where, and what was expected there.
    """
    of: Any = shape
    try:
        found: Shape = _adapter(of).validate_python(plain, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(str(key)[:80] for key in first["loc"])
        raise ValueError(f"{at}: {first['msg'][:200]}" if at else first["msg"][:200]) from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    return found


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)
