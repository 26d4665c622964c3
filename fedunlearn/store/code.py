"""Which code is at work: versions, and a hash of this package's own files."""

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from blake3 import blake3

from fedunlearn.plain import digest

VERSION = "0.1.0"  # of the code that runs; pyproject.toml says the same
LIBRARIES = ("torch", "numpy", "safetensors", "blake3")
FILES = "fedunlearn files"
DIGITS = 16
SHIPPED = "topologies"  # no code of the package: only a wheel has them in its folder
HERE = Path(__file__).parents[1]


@cache
def code() -> dict[str, str]:
    """What a ledger line says of the code that writes it; the files are read once a process, when it is first asked.

    That of the package is its own word, not that of how it was installed. It shows a mistake, or a change that nobody told of;
    whoever means to deceive can have it say anything.
    """
    found = {"fedunlearn": VERSION, FILES: hash_of_files(HERE)}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def differing(other: Mapping[str, str]) -> dict[str, str]:
    """Of what another process says of its code, that which this one does not say of its own."""
    mine = code()
    return {name: version for name, version in other.items() if mine.get(name) != version}


def hash_of_files(folder: Path) -> str:
    """Of all Python files of the package in a folder: BLAKE3 of the canonical JSON of name -> BLAKE3, its first digits."""
    files = [p for p in folder.rglob("*.py") if p.relative_to(folder).parts[0] != SHIPPED]
    return digest({p.relative_to(folder).as_posix(): blake3(p.read_bytes()).hexdigest() for p in files})[:DIGITS]
