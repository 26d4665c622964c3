"""Checkpoints of others become a family, or are refused in words."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fedunlearn.cli.say import say_alike
from fedunlearn.errors import InputError, StoreError
from fedunlearn.lineage import Request, discover
from fedunlearn.methods import make
from fedunlearn.nets import build, weights_of
from fedunlearn.report import document
from fedunlearn.runtime import Family, InProcess, unlearn
from fedunlearn.scenario import forget, of_family, reference, train, workers
from tests.cli.conftest import Run, run as run
from tests.scenario.digits import scenario, weights


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """A base in safetensors and a fine-tuned copy as a state_dict, with a chain that trained them."""
    family = train(
        scenario(
            {
                "base": {"born": "incremental", "site": "a", "epochs": 6},
                "tuned": {"born": "incremental", "from": "base", "site": "b"},
            },
            data={"without": {"b": ["0"]}},
        ),
        tmp_path / "origin",
    )
    save_file(weights(family, "base"), tmp_path / "base.safetensors")
    torch.save({f"module.{k}": v for k, v in weights(family, "tuned").items()}, tmp_path / "tuned.pt")
    return tmp_path


def zoo(folder: Path, **changes: Any) -> Any:
    digits = [str(i) for i in range(10)]
    models = {
        "base": {"file": "base.safetensors", "site": "a", "head": digits},
        "tuned": {"file": "tuned.pt", "base_model": "somebody/base", "site": "b", "head": digits},
    }
    models["tuned"] |= changes
    return scenario(models, data={"without": {"b": ["0"]}}, folder=str(folder))


def test_checkpoints_of_others_are_a_family(checkpoints: Path) -> None:
    family = train(zoo(checkpoints), checkpoints / "zoo")
    origin = Family.open(checkpoints / "origin")
    assert family.heads == origin.heads  # equal weights have equal names
    assert family.lineage["tuned"].parents == ("base",)
    assert "0" not in family.lineage["tuned"].data[0].rows
    plan = discover(family.lineage, Request(classes=("0",)))
    assert [(h.name, h.holds_class) for h in plan.heirs] == [("base", True), ("tuned", False)]
    record = unlearn(family, Request(classes=("0",)), "fiun", InProcess(workers(of_family(family), family)))
    assert {m["name"]: m["status"] for m in record.facts["models"]} == {"base": "committed", "tuned": "committed"}
    with pytest.raises(InputError, match=r"base, tuned: imported; without its recipe it cannot be retrained"):
        reference(family, of_family(family), Request(classes=("1",)))
    with pytest.raises(InputError, match="imported; without its recipe"):  # said before any place is asked
        forget(family, Request(classes=("1",)), make("fiun"), InProcess({}))
    nobodys = Request(classes=("0",), sites=("b",))
    assert forget(family, nobodys, make("fiun"), InProcess(workers(of_family(family), family))).nothing


def test_what_nobody_here_has_seen_is_told_as_its_owners_word(checkpoints: Path) -> None:
    family = train(zoo(checkpoints), checkpoints / "zoo")
    assert Family.open(checkpoints / "zoo").lineage["base"].imported
    unlearn(family, Request(classes=("0",)), "fiun", InProcess(workers(of_family(family), family)))
    told = document(family, family.ledger.lines[-1], {})
    assert all("this is what its topology says" in m["why"] and m["born"].endswith(", imported") for m in told["models"])
    assert next(x["text"] for x in told["limits"] if x["about"] == "Its owner's word").startswith("base, tuned came with")
    own = train(scenario({"base": {"born": "incremental", "site": "a"}}), checkpoints / "own")
    unlearn(own, Request(classes=("0",)), "fiun", InProcess(workers(of_family(own), own)))
    told = document(own, own.ledger.lines[-1], {})
    assert "topology" not in told["models"][0]["why"]
    assert "Its owner's word" not in {x["about"] for x in told["limits"]}


def test_another_architecture_in_the_lineage_is_said_by_the_plan(checkpoints: Path) -> None:
    plain = zoo(checkpoints)
    other = {"name": "mlp", "hidden": 24}
    distilled = {"file": "other.safetensors", "from": ["tuned"], "site": "b", "head": list("0123456789"), "net": "wide"}
    save_file(weights_of(build(other, (8, 8), 10, 0)), checkpoints / "other.safetensors")
    models = plain.model_dump(by_alias=True, mode="json")["models"] | {"wide": {"born": "imported", **distilled}}
    family = train(
        scenario(models, data={"without": {"b": ["0"]}}, folder=str(checkpoints), nets={"wide": other}), checkpoints / "zoo"
    )
    (heir,) = (h for h in discover(family.lineage, Request(classes=("0",))).heirs if h.name == "wide")
    assert heir.foreign == ("base",)
    assert family.store("b").read(family.heads["wide"]).net == "wide"
    record = unlearn(family, Request(classes=("0",)), "fiun", InProcess(workers(of_family(family), family)))
    (row,) = (m for m in record.facts["models"] if m["name"] == "wide")
    assert set(row["not_shared"]) == {n for n in weights(family, "wide") if n != "head.bias"}  # evidence flows for the rest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "absent.pt"}, "absent.pt"),
        ({"head": ["0", "1"]}, r"models\.tuned: .*tuned.pt does not fit its net and head of 2 outputs"),
        ({"head": []}, r"models\.tuned\.head: .*at least 1"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(checkpoints: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, StoreError), match=message):
        train(zoo(checkpoints, **changes), checkpoints / "zoo")
    assert not (checkpoints / "zoo" / "ledger.jsonl").exists()


def test_copies_that_the_lineage_does_not_connect_are_named(checkpoints: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = zoo(checkpoints).model_dump(by_alias=True, mode="json")
    copied = {"born": "imported", "file": "base.safetensors", "site": "b", "head": list("0123456789")}
    both = scenario(plain["models"] | {"copy": copied}, data={"without": {"b": ["0"]}}, folder=str(checkpoints))
    family = train(both, checkpoints / "zoo")
    say_alike(family, Request(classes=("0",)))
    said = " ".join(capsys.readouterr().err.split())
    assert "note: copy has the very weights of base, which this request reaches" in said
    say_alike(family, Request(classes=("1",)))  # both were trained on it
    assert capsys.readouterr().err == ""


def test_checkpoints_whose_rows_are_elsewhere_are_refused_with_the_reason(run: Run, tmp_path: Path) -> None:
    plain = {"name": "zoo", "data": {"sites": "own", "test": "digits"}, "net": {"name": "mlp"}}
    plain["models"] = {"one": {"born": "imported", "file": "one.pt", "site": "a", "head": ["0", "1"]}}
    (tmp_path / "zoo.yaml").write_text(json.dumps(plain))
    status, _, err = run("import", tmp_path / "zoo.yaml", "--out", tmp_path / "out")
    assert (status, "not with `sites: own`" in " ".join(err.split())) == (2, True)
