"""Which lines of a ledger are signed, and whether rightly."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from fedunlearn.store.line import Line
from fedunlearn.store.signing import verify as valid

Signed = Literal["valid", "wrong", "missing", "none", "unchecked"]


def checkable() -> bool:
    """Whether signatures can be checked here: it takes an extra."""
    return find_spec("cryptography") is not None


def signed(line: Line, before: Sequence[Line] = ()) -> Signed:
    """Whether a line's signature is of this line and the key that it names.

    Args:
        line: the line.
        before: the lines before it.

    Returns:
        "missing" where it has none, and one of the lines before it has one; "unchecked" where the extra to check it is missing.
    """
    if not line.key and not line.signature:
        return "missing" if any(x.key for x in before) else "none"
    if not checkable():
        return "unchecked"
    return "valid" if valid(line.key, line.hash, line.signature) else "wrong"


def verify(path: Path, lines: Sequence[Line], keys: Sequence[str] = (), since: int | None = None) -> list[str]:
    """What is wrong with signatures; that lines follow from one another is checked when they are read.

    A line without one behind a line that has one is wrong in any case: this program never writes it.

    Args:
        path: the ledger's, for what is said.
        lines: of the ledger.
        keys: those that must have signed the lines, hexadecimal, in the order in which one took over from the other: each has
            signed some before the next took over for good. Without any, those that the lines name.
        since: the first line that must be signed; by default the first of all where there are keys, else the first that is.

    Raises:
        InputError: there are signatures, and the extra to check them is missing.
    """
    found, at = list[str](), 0
    first = next((line.number for line in lines if line.key), len(lines))
    due = first if since is None and not keys else min(since or 0, first)
    for line in lines:
        where = f"{path}: ledger line {line.number}"
        expected = keys[at : at + 2] if line.number > first else keys[:1]
        words = f", expected key {' or '.join(key[:16] for key in expected)}" if keys else ""
        if not line.key and not line.signature:
            if line.number >= due:
                found.append(f"{where}: not signed{words or f'; lines from {due} on should be'}")
        elif not valid(line.key, line.hash, line.signature):
            found.append(f"{where}: its signature is not of this line and key {line.key[:16]}; it was changed or damaged")
        elif keys and line.key not in expected:
            found.append(f"{where}: signed with key {line.key[:16]}{words}")
        elif keys:
            at += expected.index(line.key)
    return [*found, *(f"{path}: key {key[:16]} has signed no line" for key in keys[at + 1 :])]
