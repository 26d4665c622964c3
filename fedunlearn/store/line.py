"""One line of a ledger: its fields, its form in the file, and what its hash is of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NotRequired

from blake3 import blake3
from pydantic import NonNegativeInt
from typing_extensions import TypedDict

from fedunlearn.plain import canonical, digest, loads, shaped


@dataclass(frozen=True)
class Line:
    """One thing that was done.

    Args:
        number: from 0.
        time: UTC, ISO 8601, by the clock of the machine that wrote it: nobody checks it.
        kind: "trained", "unlearned", "rolled back", "evaluated", "sealed" or "departed".
        body: what, as plain data.
        previous: hash of the line before.
        hash: of this line's other fields but the signature.
        by: who did it.
        code: versions of this package and its libraries, and a hash of its files, on the machine that wrote the line.
        key: public key of whoever signed it, hexadecimal; empty where nobody did.
        signature: of the hash, hexadecimal.
    """

    number: int
    time: str
    kind: str
    body: Mapping[str, Any]
    previous: str
    hash: str
    by: str = ""
    code: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    signature: str = ""


class _Plain(TypedDict):
    """Fields of a line."""

    number: NonNegativeInt
    time: str
    kind: str
    body: dict[str, Any]
    previous: str
    hash: str
    by: NotRequired[str]
    code: NotRequired[dict[str, str]]
    key: NotRequired[str]
    signature: NotRequired[str]


class _Body(TypedDict):
    """What is read of a body to tell what holds; there is more in it."""

    heads: NotRequired[dict[str, str]]
    pending: NotRequired[dict[str, str]]
    models: NotRequired[NonNegativeInt]
    request: NotRequired[str]
    resumes: NotRequired[int]
    undoes: NotRequired[int]
    evaluates: NotRequired[int]
    seals: NotRequired[list[int]]
    registers: NotRequired[dict[str, str] | list[str]]  # older lines have names only


_NEEDS = {
    "unlearned": {"heads", "request"},
    "rolled back": {"heads", "undoes"},
    "evaluated": {"evaluates"},
    "sealed": {"seals"},
}


def check(line: Line) -> None:
    """Refuse what this program never writes, whoever hashed it.

    Raises:
        ValueError: the body lacks something, or is about a line that does not stand before it; or the time is none.
    """
    if datetime.fromisoformat(line.time).tzinfo is None:
        raise ValueError(f"its time {line.time!r} has no zone")
    told = shaped(line.body, _Body)
    if missing := sorted(_NEEDS.get(line.kind, set()) - told.keys()):
        raise ValueError(f"{missing[0]} is missing")
    about = [*(told[k] for k in ("resumes", "undoes", "evaluates") if k in told), *told.get("seals", ())]
    if not all(0 <= n < line.number for n in about):
        raise ValueError("it is about a line that does not stand before it")


def decoded(text: bytes) -> Line:
    """The line that a line of the file says, whether or not it is true, and in its one form, which `holds` tells.

    Raises:
        ValueError: it says none.
    """
    return Line(**shaped(loads(text, twice=True), _Plain))


def hash_of(line: Line) -> str:
    """The hash of its fields, those but the hash and the signature."""
    return digest(_plain(line))


def encoded(line: Line) -> bytes:
    """The line as it stands in the file, without the end of the line."""
    signed = {"signature": line.signature} if line.signature else {}
    return canonical({**_plain(line), "hash": line.hash, **signed})


def holds(line: Line, text: bytes) -> bool:
    """Whether a text is the one form of the line that it says, and the hash that it names is of the rest of it."""
    if encoded(line) != text:
        return False
    # in that form a quotation mark within text has a backslash before it, and what is nested stands before the line's own
    for own in [f'"hash":"{line.hash}",', *([f'"signature":"{line.signature}",'] if line.signature else [])]:
        before, found, after = text.rpartition(own.encode())
        if not found:
            return False
        text = before + after
    return blake3(text).hexdigest() == line.hash


def _plain(line: Line) -> dict[str, Any]:
    """What the hash is of; fields that a line does not have are no part of it."""
    plain = {"number": line.number, "time": line.time, "kind": line.kind, "body": line.body, "previous": line.previous}
    return plain | {name: value for name, value in (("by", line.by), ("code", line.code), ("key", line.key)) if value}
