"""Whether a retrained family beside a family is the one that it says it is: what is measured beside it hangs on that.

It lies in a folder, where anybody who can write may have put another. Three things speak for it: its folder's name, which
follows from what it was trained from and without; a signature of its ledger; and lines of the family's that were judged by it.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from blake3 import blake3

from fedunlearn.data.register import register_file
from fedunlearn.errors import InputError
from fedunlearn.lineage import Request
from fedunlearn.plain import shaped
from fedunlearn.runtime.books.family import Family
from fedunlearn.store.signing import Signer, verify

FOLDER = "reference"  # in a family's


def key_of(topology: bytes, without: Iterable[Request]) -> str:
    """What a reference's folder is called, from the file of its scenario and the data that it was trained without."""
    asked = sorted(json.dumps([r.classes, r.samples, r.sites, r.since]) for r in without)
    return blake3(topology + json.dumps(asked).encode()).hexdigest(16)


def forged(family: Family, twin: Family) -> str:
    """What is wrong with a reference that lies beside a family, and what to do; empty where nothing is known against it.

    Where neither its ledger is signed nor a line of the family's was judged by it, nobody can tell.

    Args:
        family: the family.
        twin: the reference.

    Raises:
        InputError: its ledger is signed, and `cryptography` is not installed.
        StoreError: its ledger is damaged.
    """
    folder = twin.folder
    if not _as_named(twin):
        return f"{folder}: was not trained from that, and without that, which its name says; {_HELP}"
    for name, hashed in family.registered.items():
        theirs = twin.registered.get(name)
        if hashed and theirs and hashed != theirs and register_file(family.folder, name).exists():
            return f"{folder}: was trained on other rows of {name!r} than the family; {_HELP}"
    if not signed_alike(family, twin) and (words := other(family, twin)):
        return f"{folder}: {words}; {_HELP}"
    if unsigned(family, twin):
        return f"{folder}: its ledger is not signed with a key that signed the family's; {_HELP}"
    return ""


def unsigned(family: Family, twin: Family) -> bool:
    """Whether lines of the family are signed, those of a reference are not, and no line was judged by it."""
    keyed = any(line.key for line in family.ledger.lines)
    return keyed and not signed_alike(family, twin) and not _judged(family, twin)


def other(family: Family, twin: Family) -> str:
    """How a reference differs from all that ledger lines were judged by; empty where it does not, or no line was."""
    for model, known in _judged(family, twin).items():
        now = twin.heads.get(model, "missing")
        if now not in known:
            was, number = list(known.items())[-1]
            return f"its {model} is {now[:12]}, ledger line {number} was judged by {was[:12]}"
    return ""


def signed_alike(family: Family, twin: Family) -> bool:
    """Whether every line of a reference's ledger is signed with a key that has signed lines of the family's, or is ours.

    One that takes over signs a reference first, and then the line that was judged by it.
    """
    keys = {line.key for line in family.ledger.lines if line.key}
    with suppress(InputError):  # a key that cannot be used here has signed nothing here; who needs it says so
        keys |= {signer.public} if keys and (signer := Signer.configured()) else set()
    return bool(keys) and all(line.key in keys and verify(line.key, line.hash, line.signature) for line in twin.ledger.lines)


def _as_named(twin: Family) -> bool:
    """Whether a reference's ledger says what its folder's name says."""
    told, file = twin.ledger.lines[0].body, twin.topology
    topology = file.read_bytes() if file.exists() else b""
    if told.get("topology") not in (None, blake3(topology).hexdigest()):
        return False
    try:
        without = [Request.from_json(one) for one in shaped(told.get("without"), list[dict[str, Any]])]
    except (TypeError, ValueError, InputError):
        return False
    return key_of(topology, without) == twin.folder.name


def _judged(family: Family, twin: Family) -> dict[str, dict[str, int]]:
    """Model -> versions of it, in a reference of this name, that ledger lines were judged by, and which line."""
    found: dict[str, dict[str, int]] = {}
    for line in (x for x in family.ledger.lines if x.kind == "unlearned"):
        facts = line.body["record"]["facts"]
        if facts.get("reference") == twin.folder.name:
            for row in facts["models"]:
                if (version := row.get("version_retrained")) is not None:
                    found.setdefault(row["name"], {})[version] = line.number
    return found


_HELP = "it was changed, or another was put in its place: delete the folder, and it is trained again when it is asked for"
