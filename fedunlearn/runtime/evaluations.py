"""What was evaluated afterwards of what one ledger line edited, as it is kept: one JSON file a line, with a hash of its own."""

import json
from pathlib import Path
from typing import Any

from blake3 import blake3
from typing_extensions import TypedDict

from fedunlearn.plain import loads, shaped

FOLDER = "evaluations"
Found = dict[str, dict[str, dict[str, Any]]]  # model -> tier -> as `evaluate` gives it, with both versions


class _Kept(TypedDict):
    line: str
    models: Found
    hash: str


class _Result(TypedDict):
    metrics: dict[str, dict[str, Any]]
    not_measurable: dict[str, str]
    seconds: dict[str, float]
    version_before: str
    version_after: str


def evaluations_of(line: str, found: Found) -> bytes:
    """As it is written.

    Args:
        line: hash of the ledger line.
        found: by model and tier.
    """
    plain = {"line": line, "models": json.loads(json.dumps(found))}
    hashed = blake3(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return json.dumps({**plain, "hash": hashed}, indent=1).encode()


def read_evaluations(path: Path, line: str) -> Found:
    """The inverse.

    Raises:
        FileNotFoundError: nothing was evaluated.
        OSError: it cannot be read.
        ValueError: it is of another ledger line, was changed or damaged, or was not written by us.
    """
    raw = path.read_bytes()
    plain = shaped(loads(raw), _Kept)
    if plain["line"] != line:
        raise ValueError("of another ledger line")
    if raw != evaluations_of(line, plain["models"]):
        raise ValueError("content and hash do not agree")
    for result in (result for tiers in plain["models"].values() for result in tiers.values()):
        shaped(result, _Result)
    return plain["models"]
