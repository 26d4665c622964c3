"""What was evaluated afterwards of what one ledger line edited, as it is kept: one JSON file a line, with a hash of its own."""

from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from fedunlearn.plain import shaped, stamped, unstamped

FOLDER = "evaluations"
Found = dict[str, dict[str, dict[str, Any]]]  # model -> tier -> as `evaluate` gives it, with both versions


class _Kept(TypedDict):
    line: str
    models: Found


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
    return stamped({"line": line, "models": found})


def read_evaluations(path: Path, line: str) -> Found:
    """The inverse.

    Raises:
        FileNotFoundError: nothing was evaluated.
        OSError: it cannot be read.
        ValueError: it is of another ledger line, was changed or damaged, or was not written by us.
    """
    plain = shaped(unstamped(path.read_bytes()), _Kept)
    if plain["line"] != line:
        raise ValueError("of another ledger line")
    for result in (result for tiers in plain["models"].values() for result in tiers.values()):
        shaped(result, _Result)
    return plain["models"]
