"""The one model of SSD, LFSSD and FisherMask, without heirs, and what it is asked to forget: a class, a sub-class, rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from common import trained_on
from reproduction import FAMILIES, Cell

from fedunlearn.compare import Choice, Subject
from fedunlearn.lineage import Request
from fedunlearn.scenario import Scenario
from fedunlearn.scenario.files import parse

CLASS, SUB, RANDOM = "a class", "a sub-class", "1 % of the rows"  # names of the cells
SITE = "depot"


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
        rows = trained_on(scenario, seed, SITE)
        kinds = {d: tuple(r for r in rows if r.rpartition("/")[2].split("-")[0] == d) for d in digits}
        return Subject(scenario, tuple(Request(samples=of, id=d) for d, of in kinds.items()))

    return Cell(SUB, subject, choices)


def random_cell(choices: tuple[Choice, ...], share: float = 0.01) -> Cell:
    """A share of the rows that the model was trained on, drawn by the seed."""

    def subject(seed: int) -> Subject:
        scenario = model("single")
        rows = trained_on(scenario, seed, SITE)
        drawn = np.random.default_rng([seed, 2]).choice(len(rows), max(1, round(share * len(rows))), replace=False)
        return Subject(scenario, (Request(samples=tuple(rows[i] for i in sorted(drawn)), id="random"),))

    return Cell(RANDOM, subject, choices)
