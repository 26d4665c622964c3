"""What is wrong with a value of a file, in words: the key, the value, and the nearest right name."""

import difflib
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from fedunlearn.scenario import schema
from fedunlearn.scenario.schema import Data, Scenario
from fedunlearn.scenario.sources import Sending

KINDS: dict[str, type[BaseModel]] = {
    "federated": schema.Federated,
    "distributed": schema.Distributed,
    "incremental": schema.Incremental,
    "transfer": schema.Transfer,
    "imported": schema.Imported,
}


def said(error: Any, where: str, fields: Callable[[list[str]], list[str]] | None = None) -> str:
    """What is wrong with a value of a file, in words.

    Args:
        error: of pydantic, plain.
        where: the file.
        fields: from the path of a wrong key to the right keys there; those of a topology by default.
    """
    *_, key = error["loc"] or ("",)
    keys = [str(k) for k in error["loc"] if str(k) not in KINDS]
    path = ".".join(keys)
    if error["type"] == "extra_forbidden":
        known = (fields or _fields)(keys)
        close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
        return (
            f"{where}: {path}: unknown key {key!r}; "
            + (f"did you mean {close[0]!r}? " if close else "")
            + f"known: {', '.join(known)}"
        )
    if error["type"] == "missing":
        return f"{where}: {path}: missing; a value is needed here"
    if error["type"] in ("tuple_type", "list_type"):
        return f"{where}: {path}: {error['input']!r}: expected a list, such as [{error['input']}]"
    told = error["msg"].removeprefix("Value error, ")
    return f"{where}: {path}: {error['input']!r}: {told}" if path else f"{where}: {told}"


def _fields(keys: list[str]) -> list[str]:
    """Right keys at the place of a wrong one."""
    at: dict[str, list[type[BaseModel]]] = {
        "data": [Data],
        "evidence": [Sending],
        "gate": [schema.Limits],
        "requests": [schema.Asked],
        "more": [Data],
        "models": list(KINDS.values()),
    }
    kinds: list[type[BaseModel]] = at.get(keys[0], [Scenario]) if len(keys) > 1 else [Scenario]
    if keys[:2] == ["gate", "metrics"]:
        kinds = [schema.Bound]
    short = ("base_model",) if keys[0] == "models" and len(keys) > 1 else ()  # a hub's word for `from`
    return sorted({*short, *(field.alias or name for kind in kinds for name, field in kind.model_fields.items())})
