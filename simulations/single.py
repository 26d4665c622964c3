"""The one model of SSD, LFSSD and FisherMask, without heirs, and what it is asked to forget: a class, a sub-class, rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from common import RESULTS
from reproduction import FAMILIES, Cell

from fedunlearn.compare import Choice, Subject
from fedunlearn.lineage import Request
from fedunlearn.scenario import Scenario
from fedunlearn.scenario.build import open_site_data
from fedunlearn.scenario.files import parse

CLASS, SUB, RANDOM = "a class", "a sub-class", "1 % of the rows"  # names of the cells
SITE, SHARD = "depot", "main"


def model(name: str, data: str = "digits") -> Scenario:
    """A small CNN, trained at one site."""
    models: dict[str, Any] = {"model": {"born": "incremental", "site": SITE, "epochs": 10}}
    net = {"name": "cnn", "channels": 8}
    return parse({"name": name, "folder": str(FAMILIES), "data": {"set": data}, "net": net, "models": models}, name)


def class_cell(choices: tuple[Choice, ...], name: str = CLASS, classes: Sequence[str] = "0123456789") -> Cell:
    """Each of some classes in a request of its own."""
    subject = Subject(model("single"), tuple(Request(classes=(c,), id=c) for c in classes))
    return Cell(name, lambda seed: subject, choices)


def sub_cell(choices: tuple[Choice, ...], digits: tuple[str, ...] = ("0", "3", "5", "8")) -> Cell:
    """One digit of a pair that makes a class: the rows of it that the model was trained on."""

    def subject(seed: int) -> Subject:
        scenario = model("single-pairs", "digit_pairs:load")
        keys = _keys(scenario, seed)
        return Subject(scenario, tuple(_request(d, [k for k in keys if k.split("-")[0] == d]) for d in digits))

    return Cell(SUB, subject, choices)


def random_cell(choices: tuple[Choice, ...], share: float = 0.01) -> Cell:
    """A share of the rows that the model was trained on, drawn by the seed."""

    def subject(seed: int) -> Subject:
        scenario = model("single")
        keys = _keys(scenario, seed)
        drawn = np.random.default_rng([seed, 2]).choice(len(keys), max(1, round(share * len(keys))), replace=False)
        return Subject(scenario, (_request("random", [keys[i] for i in sorted(drawn)]),))

    return Cell(RANDOM, subject, choices)


def _keys(scenario: Scenario, seed: int) -> list[str]:
    """Which rows the model is trained on: the seed deals them."""
    rows = open_site_data(scenario.seeded(seed), RESULTS)[SITE].all(SHARD)
    return [key.removeprefix(f"{SHARD}/") for key in rows.keys]


def _request(name: str, keys: list[str]) -> Request:
    return Request(samples=tuple(f"{SITE}/{SHARD}/{key}" for key in keys), id=name)
