"""Where little is left: rows to weigh an heir on, outputs to answer with. It is said of that heir, and others are edited."""

from pathlib import Path
from typing import Any

import pytest

from fedunlearn.evaluation import Gate, costs
from fedunlearn.lineage import Request
from fedunlearn.methods import make
from fedunlearn.runtime import Family, Record, unlearn
from fedunlearn.runtime.evaluating import is_evaluation
from fedunlearn.scenario import backend_of, train
from fedunlearn.scenario.files import parse

FREE = Gate(forgotten_at_most=1, retained_drop_at_most=1)


def grown(folder: Path, models: dict[str, Any], without: dict[str, list[int]]) -> Family:
    data = {"set": "digits", "shards": "iid", "seed": 7, "without": without}
    return train(parse({"name": "small", "data": data, "net": {"name": "mlp", "hidden": 8}, "models": models}, "test"), folder)


def forgot(family: Family, request: Request, method: str) -> Record:
    opened = Family.open(family.folder)
    with backend_of(opened) as backend:
        return unlearn(opened, request, make(method), backend, FREE, accept_untested="a test")


def told(record: Record) -> dict[str, str]:
    return {o["model"]: o["text"] for o in record.facts["objections"]}


@pytest.mark.parametrize("method", ["steer", "fisher_mask"])
def test_an_heir_whose_other_rows_earlier_requests_took_is_said_to_have_none(method: str, tmp_path: Path) -> None:
    models = {
        "root": {"born": "federated", "clients": ["north", "east"], "rounds": 2},
        "eastern": {"born": "incremental", "from": ["root"], "site": "east", "epochs": 2},
        "northern": {"born": "incremental", "from": ["root"], "site": "north", "epochs": 2},
    }
    family = grown(tmp_path / "family", models, {"east": list(range(2, 10))})
    assert forgot(family, Request(("0",)), method).accepted
    said = told(forgot(family, Request(("1",)), method))
    assert "every row of its own is excluded from use by now, or is to be forgotten" in said["eastern"]
    assert not {"root", "northern"} & said.keys()
    heads = Family.open(family.folder).heads
    assert heads["northern"] != family.heads["northern"]
    assert heads["eastern"] != family.heads["eastern"]  # of the first request


@pytest.mark.parametrize("method", ["steer", "rewrite"])
def test_an_heir_with_no_other_output_keeps_nobody_else_from_forgetting(method: str, tmp_path: Path) -> None:
    models = {
        "root": {"born": "incremental", "site": "north", "epochs": 3},
        "narrow": {"born": "transfer", "from": ["root"], "site": "north", "head": ["0", "1"], "epochs": 2},
    }
    family = grown(tmp_path / "family", models, {})
    said = told(forgot(family, Request(("0", "1")), method))
    assert "retire the model" in said["narrow"]
    assert "root" not in said
    heads = Family.open(family.folder).heads
    assert (heads["narrow"] == family.heads["narrow"], heads["root"] == family.heads["root"]) == (True, False)


def test_what_has_the_parts_of_an_evaluation_but_not_their_kinds_is_none() -> None:
    good = {"tier": "quick", "nets": {}, "rows": {}, "metrics": {}, "not_measurable": {}, "seconds": {}}
    missing = dict.fromkeys(costs("quick"), "no rows")
    assert is_evaluation("quick", good | {"not_measurable": missing})
    assert not is_evaluation("quick", good | {"not_measurable": missing, "seconds": dict.fromkeys(missing, "x")})
    assert not is_evaluation("quick", good | {"metrics": missing})


def test_a_model_that_keeps_a_class_of_the_request_is_evidence_for_the_other(tmp_path: Path) -> None:
    """Of some sites only: what others taught it stays, so that it has an output left."""
    models = {
        "first": {"born": "incremental", "site": "south", "head": ["0", "1"], "classes": ["0"], "epochs": 3},
        "next": {"born": "incremental", "from": ["first"], "site": "north", "classes": ["1"], "epochs": 3},
    }
    family = grown(tmp_path / "family", models, {})
    record = forgot(family, Request(("0", "1"), sites=("south",)), "steer")
    assert [m["status"] for m in record.facts["models"]] == ["committed", "committed"]
