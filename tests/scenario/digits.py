"""Small families on digits, what their models know, and one that forgets."""

from typing import Any

import torch

from fedunlearn.lineage import Request
from fedunlearn.methods import LogitMask
from fedunlearn.runtime import Family, InProcess, unlearn
from fedunlearn.scenario import of_family, workers
from fedunlearn.scenario.files import parse

FOUR = ["0", "1", "2", "3"]


def scenario(models: dict[str, Any], **more: Any) -> Any:
    data = {"set": "digits", "calibration": 0.2, "held_out": 0.2, **more.pop("data", {})}
    return parse({"name": "family", "data": data, "net": {"name": "mlp", "hidden": 16}, "models": models, **more}, "here")


def weights(family: Family, name: str) -> dict[str, torch.Tensor]:
    return family.store(family.lineage[name].home).read(family.heads[name]).weights


def forget(family: Family, *classes: str) -> None:
    """Commit an unlearning of classes, whatever the method leaves."""
    plain = of_family(family)
    backend = InProcess(workers(plain, family))
    record = unlearn(family, Request(classes=classes), LogitMask(), backend, plain.gate.gate)
    assert record.accepted


def known(family: Family, name: str, classes: list[str]) -> float:
    worker = workers(of_family(family), family)["a"]
    found = family.store(family.lineage[name].home).read(family.heads[name])
    net = worker.make_net(len(found.head.classes), found.net)
    net.load_state_dict(found.weights)
    rows = worker.data.held_out["test"].of(classes).for_head(found.head.classes)
    return float((net.eval()(rows.x).argmax(1) == rows.y).float().mean())
