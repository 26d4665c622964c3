"""What the ServerApp is to do, as the flat keys of a Flower run-config."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from fedunlearn.errors import InputError, unknown
from fedunlearn.plain import loads

ACTIONS = ("train", "unlearn", "rollback", "extend", "seal", "depart", "settle", "bank", "assess", "show")
FAMILY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # it becomes a folder's name


@dataclass(frozen=True)
class Order:
    """One action on one family. In a run-config the names have hyphens, and all of them have defaults.

    Args:
        action: one of `ACTIONS`.
        family: the folder's name in the coordinator's folder of families.
        topology: for "train": the scenario as JSON text; for "extend": what is added to it.
        classes: for "unlearn": as the command line takes it, with commas; empty for none.
        samples: the same.
        sites: the same.
        since: the same.
        request: names of requests that the scenario has, with commas, to be carried out in one pass; they stand alone. For
            "seal", the id of one in force; empty for all. For "assess", the id of one that was carried out; empty for the
            newest.
        line: for "assess", instead of a request: the number of a ledger line; below 0 for none.
        place: for "depart": the place that is gone for good.
        after: for "rollback", "seal" and "depart": the hash of the last ledger line that whoever gives the order has seen; the
            order is refused where others follow it. Empty for whatever is last.
        has: how many ledger lines, from the first, whoever gives the order has with their records: these are not sent again.
        due: date by which it must be done.
        received: date that it came in; empty for today.
        case: name of the case, where the scenario has none for it.
        method: name of a method.
        settings: of the method, as JSON text: names and texts.
        reference: for "unlearn" and "assess": retrain the family at its sites without the data, to compare with.
        atomic: hold back all models when one is held back.
        accept_untested: commit what could not be tested, for this reason.
        score_at_roots: have candidates whose home has no test rows scored at sites that trained on the data.
        reason: goes to the ledger.
        quorum: the least share of the places that must be online.
        precision: of evidence on its way.
        resume: finish what was left waiting instead; what it is, is in the ledger.
        tier: for "assess": of the metrics that are taken.
        seeds: for "assess": how many retrained families to compare with.
        lift_exclusion: for "rollback": whether the data may be trained on again.
        deadline: seconds that one round of messages may take.
        join: seconds to wait for the sites.
        by: who gives the order; goes to the ledger.
        token: marks the answer's lines in the log.
    """

    action: str = "show"
    family: str = ""
    topology: str = ""
    classes: str = ""
    samples: str = ""
    sites: str = ""
    since: str = ""
    request: str = ""
    line: int = -1
    place: str = ""
    after: str = ""
    has: int = 0
    due: str = ""
    received: str = ""
    case: str = ""
    method: str = "fiun"
    settings: str = "{}"
    reference: bool = False
    atomic: bool = False
    accept_untested: str = ""
    score_at_roots: bool = False
    reason: str = ""
    quorum: float = 1.0
    precision: str = "float64"
    resume: bool = False
    tier: str = ""
    seeds: int = 1
    lift_exclusion: bool = False
    deadline: float = 1800.0
    join: float = 120.0
    by: str = ""
    token: str = "answer"

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise unknown("action", self.action, ACTIONS, where="run-config")
        if not FAMILY.fullmatch(self.family):
            raise InputError(f"run-config: family {self.family!r}: expected a name of letters, digits, '_', '.' and '-'")
        if not FAMILY.fullmatch(self.token):
            raise InputError(f"run-config: token {self.token!r}: expected letters and digits")
        needed = self.action in ("train", "extend")
        if bool(self.topology) != needed:
            raise InputError(f"run-config: action {self.action!r} {'needs' if needed else 'takes no'} topology")
        if bool(self.place) != (self.action == "depart"):
            raise InputError(f"run-config: action {self.action!r} {'needs a' if self.action == 'depart' else 'takes no'} place")
        if self.deadline <= 0 or self.join < 0:
            raise InputError(f"run-config: deadline {self.deadline} and join {self.join}, expected seconds")
        if not isinstance(_json(self.settings), dict):
            raise InputError(f"run-config: settings {self.settings!r}: expected a JSON object of names and values")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Order":
        """From a run-config; keys that are no part of an order belong to others.

        Raises:
            InputError: a value is of the wrong kind, or wrong.
        """
        found: dict[str, Any] = {}
        for f in fields(cls):
            value, like = config.get(_key(f.name), f.default), type(f.default)
            if isinstance(value, int) and like is float and not isinstance(value, bool):
                value = float(value)
            if type(value) is not like:
                raise InputError(
                    f"run-config: {_key(f.name)} is {value!r}, expected {like.__name__}, for example {f.default!r}"
                )
            found[f.name] = value
        return cls(**found)

    @property
    def config(self) -> dict[str, str | bool | int | float]:
        """As a run-config."""
        return {_key(f.name): getattr(self, f.name) for f in fields(self)}

    @property
    def toml(self) -> str:
        """The same as the text of a file that `flwr run --run-config FILE` takes."""
        return "".join(f"{key} = {_toml(value)}\n" for key, value in self.config.items())

    @property
    def plain_settings(self) -> dict[str, Any]:
        """Settings of the method."""
        found: dict[str, Any] = _json(self.settings)
        return found


def _key(name: str) -> str:
    return name.replace("_", "-")


def _toml(value: str | bool | int | float) -> str:
    """A JSON string is a TOML string, but for the one control character that JSON leaves as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _json(text: str) -> Any:
    try:
        return loads(text)
    except ValueError as error:
        raise InputError(f"run-config: settings {text!r}: not JSON: {error}") from error
