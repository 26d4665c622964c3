"""What was evaluated afterwards of what a ledger line edited: a file for each result, and lines that name their hashes."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from fedunlearn.plain import digest, loads, shaped
from fedunlearn.runtime.books.family import Family
from fedunlearn.store import Ledger, Line, write_atomically

FOLDER = "evaluations"
KIND = "evaluated"  # of ledger lines
Found = dict[str, dict[str, dict[str, Any]]]  # model -> tier -> as `evaluate` gives it, with both versions
Hashes = dict[str, dict[str, str]]  # the same with hashes in place of results


class Evaluation(TypedDict):
    """What `evaluate` gives, as far as its readers rely on it."""

    metrics: dict[str, dict[str, Any]]
    not_measurable: dict[str, str]
    seconds: dict[str, float]


class _Result(Evaluation):
    version_before: str
    version_after: str


def evaluated(ledger: Ledger, number: int) -> list[Line]:
    """The lines that name results of what one line edited, in their order."""
    return [line for line in ledger.lines if line.kind == KIND and line.body["evaluates"] == number]


def named(ledger: Ledger, number: int) -> dict[tuple[str, str], str]:
    """Model and tier -> hash of the result that the newest of those lines names."""
    return {
        (model, tier): hashed
        for line in evaluated(ledger, number)
        for model, tiers in line.body["results"].items()
        for tier, hashed in tiers.items()
    }


def counted(hashes: Mapping[str, Mapping[str, str]]) -> str:
    """How many models each tier is of, in words."""
    tiers = Counter(tier for of in hashes.values() for tier in of)
    return ", ".join(f"{tier} of {n} model{'s' if n > 1 else ''}" for tier, n in sorted(tiers.items()))


def strays(family: Family) -> list[Path]:
    """Files among results that no ledger line names: what was cut off left them, and nothing uses them."""
    told = (line.body["results"].values() for line in family.ledger.lines if line.kind == KIND)
    known = {file_of(family.folder, hashed) for models in told for tiers in models for hashed in tiers.values()}
    return [file for file in sorted((family.folder / FOLDER).glob("*")) if file not in known]


def file_of(folder: Path, hashed: str) -> Path:
    """Where a result of a family lies."""
    return folder / FOLDER / f"{hashed}.json"


def hashes_of(line: Line, found: Found) -> Hashes:
    """What results of what a line edited are named by."""
    return {
        model: {tier: digest(_whole(line, model, tier, result)) for tier, result in of.items()} for model, of in found.items()
    }


def write_results(folder: Path, line: Line, found: Found) -> Hashes:
    """Keep results of what a line edited; those that are there already stay, too. What they are named by."""
    hashes = hashes_of(line, found)
    for model, of in found.items():
        for tier, result in of.items():
            write_atomically(file_of(folder, hashes[model][tier]), _written(_whole(line, model, tier, result)))
    return hashes


def keep_results(family: Family, line: Line, found: Found, lacking: Sequence[str] = ()) -> None:
    """Keep results, and name them in the ledger: the files first, so that a line never names what is not there.

    Args:
        family: the family.
        line: whose edit they are of.
        found: the results.
        lacking: what the retrained models beside them lack besides, in words.
    """
    if found:
        hashes = write_results(family.folder, line, found)
        body = {"evaluates": line.number, "request": line.body["request"], "results": hashes}
        family.ledger.append(KIND, body | ({"lacking": list(lacking)} if lacking else {}))


def read_result(folder: Path, hashed: str, line: Line, model: str, tier: str) -> dict[str, Any]:
    """One result.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it cannot be read.
        ValueError: it was changed or damaged, is of another line, model or tier, or was not written by us.
    """
    raw = file_of(folder, hashed).read_bytes()
    plain = shaped(loads(raw), dict[str, Any])
    if digest(plain) != hashed or raw != _written(plain):
        raise ValueError("its content does not hash to its name")
    result = shaped(plain.get("result"), dict[str, Any])
    shaped(result, _Result)
    if plain != _whole(line, model, tier, result):
        raise ValueError(f"of another ledger line, model or tier than {line.number}, {model}, {tier}")
    return result


def _whole(line: Line, model: str, tier: str, result: Any) -> dict[str, Any]:
    return {"line": line.hash, "model": model, "tier": tier, "result": result}


def _written(whole: dict[str, Any]) -> bytes:
    return json.dumps(whole, indent=1).encode()
