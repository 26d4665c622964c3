"""The smallest topology, and what a test changes in it."""

from copy import deepcopy
from typing import Any

PLAIN: dict[str, Any] = {
    "name": "small",
    "data": {"set": "digits", "calibration": 0.3, "held_out": 0.3},
    "net": {"name": "mlp", "hidden": 8},
    "models": {
        "one": {"born": "incremental", "site": "north", "epochs": 1},
        "two": {"born": "transfer", "from": ["one"], "site": "south", "head": ["1", "2"], "epochs": 1},
    },
    "requests": {"leave": {"classes": [0]}},
}


def changed(path: str, value: object) -> dict[str, Any]:
    plain = deepcopy(PLAIN)
    *way, last = path.split(".")
    at = plain
    for step in way:
        at = at[step]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return plain
