"""What was found of each heir, thousands of bytes: a file that the ledger line names, and only reports and checks read.

The line itself keeps whom it is about and how they were judged, which is all that tells what holds.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

from fedunlearn.errors import StoreError
from fedunlearn.plain import canonical, loads
from fedunlearn.runtime.books.family import Family
from fedunlearn.runtime.books.line_bodies import KeptHeir, KeptPlan, KeptRow, check_whole
from fedunlearn.runtime.books.record import Record
from fedunlearn.store import Line, write_atomically

FOLDER = "records"
NAME = "heirs"  # of the hash, in a line's record


def file_of(folder: Path, hashed: str) -> Path:
    """Where a record of a family lies."""
    return folder / FOLDER / f"{hashed}.json"


def is_content(path: Path, raw: bytes) -> bool:
    """Whether bytes are what a record's name says."""
    return blake3(raw).hexdigest() == path.stem


def read(path: Path) -> bytes:
    """The content of a record's file.

    Raises:
        OSError: it is missing, or cannot be read.
        ValueError: it was changed or damaged.
    """
    raw = path.read_bytes()
    if not is_content(path, raw):
        raise ValueError("its content does not hash to its name")
    return raw


def keep_record(family: Family, record: Record) -> dict[str, Any]:
    """Keep what a record says of heirs in its file, durably, before the line that names it.

    Returns:
        What the line says of the record; `record_of` is the inverse.

    Raises:
        StoreError: it is one that could not be read again; nothing is written.
        OSError: it could not be written.
    """
    facts = record.facts
    told = {"facts": dict(facts), "cost": dict(record.cost)}
    if not facts["models"]:
        return told
    whole = {"models": facts["models"], "plan": facts["plan"]}
    raw = canonical(whole)
    hashed = blake3(raw).hexdigest()
    told["facts"] |= {
        "models": [_kept(row, KeptRow) for row in facts["models"]],
        "plan": _kept(facts["plan"], KeptPlan) | {"heirs": [_kept(heir, KeptHeir) for heir in facts["plan"]["heirs"]]},
    }
    path = file_of(family.folder, hashed)
    try:
        check_whole(told["facts"], loads(raw))
    except ValueError as error:
        raise StoreError(f"{path}: could not be read again ({error}); nothing was written or changed") from error
    write_atomically(path, raw)
    return told | {NAME: hashed}


def record_of(family: Family, line: Line) -> Record:
    """The whole record of an "unlearned" line.

    Raises:
        StoreError: what was found of its heirs is missing, or was changed or damaged.
    """
    told = line.body["record"]
    if (hashed := told.get(NAME)) is None:  # of an older line, or there are no heirs: it is all there
        return Record(told["facts"], told["cost"])
    path = file_of(family.folder, hashed)
    try:
        whole = loads(read(path))
        check_whole(told["facts"], whole)
    except (OSError, ValueError) as error:
        home = "delete it, and fedunlearn show --backend flower brings it home"
        again = home if family.elsewhere else "restore it from a backup"
        raise StoreError(
            f"{path}: not what ledger line {line.number} says was found of its heirs ({error}); {again}"
        ) from error
    return Record(told["facts"] | whole, told["cost"])


def named(family: Family) -> dict[Path, Line]:
    """Files that ledger lines name -> the last line that names each."""
    lines = (line for line in family.ledger.lines if line.kind == "unlearned")
    return {file_of(family.folder, hashed): line for line in lines if (hashed := line.body["record"].get(NAME))}


def damaged(family: Family) -> Iterator[str]:
    """What is wrong with records that ledger lines name, in words."""
    for line in named(family).values():
        try:
            record_of(family, line)
        except StoreError as error:
            yield str(error)


def strays(family: Family) -> list[Path]:
    """Files among records that no ledger line names: what was cut off left them, and nothing uses them."""
    known = named(family)
    return [file for file in sorted((family.folder / FOLDER).glob("*")) if file not in known]


def _kept(plain: Mapping[str, Any], shape: type) -> dict[str, Any]:
    """Those entries that a shape names: what is read of a line is what it keeps."""
    return {key: plain[key] for key in shape.__annotations__ if key in plain}
