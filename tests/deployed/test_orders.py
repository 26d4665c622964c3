"""Orders to the app of a deployment: done as in this process, or told what is wrong with them."""

import json
import os
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.deployed import Copy, Order, client as client_side, submit
from fedunlearn.deployed.coordinator import FAMILIES
from fedunlearn.deployed.wire import MARK, Reader
from fedunlearn.errors import InputError
from fedunlearn.runtime import Family, InProcess, Split, owed, rollback, unlearn
from fedunlearn.scenario import open_site, request_of, train_afar, workers_here
from tests.conftest import ROOT, snapshot
from tests.deployed.conftest import SCENARIO, SITES, TOPOLOGY, World, site_files
from tests.runtime.remains import held, importances, telling, tensors


def test_orders_give_what_this_process_gives(world: World, tmp_path: Path) -> None:
    here = InProcess({s: open_site(f) for s, f in site_files(tmp_path / "alone").items()})
    alone = train_afar(SCENARIO, tmp_path / "alone-family", here, workers_here(SCENARIO, Family(tmp_path / "alone-family")))
    both = Split(workers_here(SCENARIO, alone), here, alone.id)

    copy = Copy(tmp_path / "copy", "any", "ours")
    family = copy.keep(world.done(action="train", topology=TOPOLOGY)["family"])
    assert (family.heads, family.lineage.to_json()) == (alone.heads, alone.lineage.to_json())

    record = unlearn(alone, request_of(SCENARIO, "0"), "fiun", both)
    told = world.done(action="unlearn", classes="0")
    assert told["record"]["facts"] == json.loads(json.dumps(record.facts))
    assert told["record"]["cost"]["traffic"].keys() <= set(SITES)
    assert copy.keep(told["family"]).heads == alone.heads

    rollback(alone, both, lift_exclusion=True)
    told = world.done(action="rollback", lift_exclusion=True)
    assert (told["line"], told["undoes"], told["lifted"]) == (2, 1, True)
    assert copy.keep(told["family"]).heads == alone.heads

    record = unlearn(alone, request_of(SCENARIO, named=("a", "b")), "logit_mask", both)
    told = world.done(action="unlearn", request="a,b", method="logit_mask")
    assert told["record"]["facts"] == json.loads(json.dumps(record.facts))
    assert [r["due"] for r in told["record"]["facts"]["request"]["merges"]] == [None, "2027-01-31"]
    assert copy.keep(told["family"]).heads == alone.heads
    assert "unknown request 'c'; known: a, b" in world.done(action="unlearn", request="a,c")["error"]
    assert world.done(action="settle")["line"] == 3
    assert copy.keep(world.done(action="show")["family"]).ledger.lines == Family.open(world.families / "ours").ledger.lines
    assert not [f for f in snapshot(copy.folder) if f.endswith(".safetensors")]


def test_sites_bank_their_own_and_are_not_read_again(world: World) -> None:
    world.done(action="train", topology=TOPOLOGY)
    assert world.done(action="bank")["rows_read"] > 0
    assert {site for site, file in world.files.items() if list((file.parent / "store" / "families").glob("*/bank"))} == set(
        SITES
    )
    assert not list(world.families.rglob("bank"))
    assert world.done(action="bank")["rows_read"] == 0
    assert world.done(action="unlearn", classes="0")["record"]["cost"]["rows_read"] == 0


def test_a_family_grows_at_its_sites(world: World) -> None:
    world.done(action="train", topology=TOPOLOGY, by="alice")
    more = {"models": {"later": {"born": "incremental", "from": ["eastern"], "site": "north", "epochs": 1}}}
    told = world.done(action="extend", topology=json.dumps(more), by="bob")
    lines = [json.loads(line) for line in told["family"]["ledger.jsonl"].splitlines()]
    assert [(line["kind"], line["by"]) for line in lines] == [("trained", "alice"), ("trained", "bob")]
    assert "later" in Family.open(world.families / "ours").heads
    assert not (world.families / "ours" / "homes" / "north").exists()
    again = world.done(action="extend", topology=json.dumps(more))
    assert again["error"].startswith("run-config: topology: models.later: the family has one already")


def test_a_site_that_is_gone_for_good_is_waited_for_no_more(world: World, tmp_path: Path) -> None:
    world.done(action="train", topology=TOPOLOGY)
    del world.nodes[2]
    assert "south: no node is this site" in world.done(action="unlearn", classes="1")["error"]
    assert "unknown place 'sauth'; did you mean 'south'" in world.done(action="depart", place="sauth")["error"]
    told = world.done(action="depart", place="south", reason="it closed", by="ada")
    family = Copy(tmp_path / "copy", "any", "ours").keep(told["family"])
    assert (family.ledger.lines[-1].kind, family.ledger.lines[-1].by) == ("departed", "ada")
    assert "south" not in family.places
    assert "south: departed; without its rows" in world.done(action="unlearn", classes="1", reference=True)["error"]
    told = world.done(action="unlearn", classes="1")
    assert told["record"]["facts"]["absent"] == []
    points = [p for m in told["record"]["facts"]["models"] for p in m["points"]]
    assert points
    assert not any("south" in p for p in points)
    more = {"models": {"later": {"born": "incremental", "from": ["eastern"], "site": "north", "epochs": 1}}}
    before = (world.families / "ours" / "ledger.jsonl").read_bytes()
    assert "error" not in world.done(action="extend", topology=json.dumps(more))
    cut = Path(shutil.copytree(world.families / "ours", tmp_path / "cut"))
    (cut / "ledger.jsonl").write_bytes(before)  # an extension that ended before its ledger line
    assert "later" not in Family.open(cut).heads
    more["models"] = {"last": {**more["models"]["later"], "site": "south"}}
    assert "models.last: place 'south' departed on" in world.done(action="extend", topology=json.dumps(more))["error"]
    assert "later" in Family.open(world.families / "ours").heads


def test_a_site_that_is_away_keeps_nobody_from_sealing(world: World) -> None:
    world.done(action="train", topology=TOPOLOGY)
    world.done(action="unlearn", classes="0", method="logit_mask")
    nodes = dict(world.nodes)
    del world.nodes[2]
    for action in ("seal", "settle"):
        assert re.search("not yet erased everywhere.*south: no node is this site", world.done(action=action)["error"])
        assert owed(Family.open(world.families / "ours")) == ("south",)
    world.nodes.update(nodes)
    assert "error" not in world.done(action="settle")
    assert not owed(Family.open(world.families / "ours"))


def test_a_reference_is_retrained_at_the_sites(world: World, tmp_path: Path) -> None:
    world.done(action="train", topology=TOPOLOGY)
    told = world.done(action="unlearn", classes="0", sites="north", reference=True)
    assert all(m["retrained_retained"] is not None for m in told["record"]["facts"]["models"])
    assert not list((world.families / "ours" / "reference").glob("*/homes/north"))


@pytest.mark.parametrize(
    ("words", "says", "status"),
    [
        ({"action": "unlearn", "family": "theirs", "classes": "0"}, r"theirs: no family here", 2),
        ({"action": "unlearn", "classes": "zero"}, "unknown class 'zero'", 2),
        ({"action": "unlearn", "classes": "0", "method": "fium"}, "unknown method 'fium'; did you mean 'fiun'", 2),
        ({"action": "train", "topology": TOPOLOGY}, "holds a family already|exists", 2),
        ({"action": "rollback"}, "nothing to roll back; no unlearning is in force", 2),
    ],
)
def test_what_cannot_be_done_is_told_and_the_run_fails(world: World, words: dict[str, Any], says: str, status: int) -> None:
    world.done(action="train", topology=TOPOLOGY)
    before = snapshot(world.families)
    told = world.done(**words)
    assert told["exit_status"] == status
    assert re.search(says, told["error"]), told["error"]
    assert snapshot(world.families) == before


def test_a_missing_site_is_named(world: World) -> None:
    del world.nodes[2]
    told = world.done(action="train", topology=TOPOLOGY)
    assert told["error"].startswith("1 of 3 places are missing after 0 s: south: no node is this site; there are east, north")
    assert told["exit_status"] == 1
    assert not list(world.families.iterdir())


def test_a_node_without_a_file_says_what_its_owner_does(world: World) -> None:
    del world.nodes[2][client_side.KEY]
    told = world.done(action="train", topology=TOPOLOGY)
    assert "names no 'site-file'; the site's owner starts the SuperNode with --node-config" in told["error"]


def test_a_coordinator_without_a_folder_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FAMILIES)
    assert "FEDUNLEARN_FAMILIES is not set where the ServerApp runs" in world.done(action="show")["error"]


def test_a_run_config_of_flowers_own_is_read_and_a_wrong_one_told(world: World) -> None:
    config = tomllib.loads((submit.APP / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    assert {**config, "family": "x"} == Order(family="x").config
    told, fine = world.log({**config, "action": "unlearm"})
    assert not fine
    (answer,) = [t for t in told if t.startswith(MARK)]
    reader = Reader("answer")
    assert reader.take(answer)
    assert reader.answer()["error"].startswith("run-config: unknown action 'unlearm'; did you mean 'unlearn'")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "../x"}, r"family '\.\./x': expected a name of letters"),
        ({"family": ""}, "family '': expected a name"),
        ({"reference": "yes"}, "reference is 'yes', expected bool, for example False"),
        ({"deadline": True}, "deadline is True, expected float"),
        ({"deadline": 0}, "deadline 0.0 and join 120.0, expected seconds"),
        ({"settings": "[]"}, "expected a JSON object of names and values"),
        ({"settings": "{"}, "settings '{': not JSON"),
        ({"topology": "{}"}, "action 'show' takes no topology"),
        ({"action": "train"}, "action 'train' needs topology"),
        ({"place": "north"}, "action 'show' takes no place"),
        ({"action": "depart"}, "action 'depart' needs a place"),
        ({"token": "a b"}, "token 'a b': expected letters and digits"),
    ],
)
def test_what_is_wrong_in_an_order_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Order.of({**Order(family="x").config, **changes})


@pytest.mark.parametrize("text", ['a "b" \\ c', "zwei\nZeilen\t", "ü \U0001f600 \x7f \x01"])
def test_an_order_survives_its_file(text: str) -> None:
    order = Order(action="unlearn", family="x", reason=text, deadline=7.0, atomic=True)
    assert Order.of(tomllib.loads(order.toml)) == order


def test_the_app_that_travels_is_thin() -> None:
    python = list(submit.APP.rglob("*.py"))
    assert len(python) == 3
    assert sum(len(p.read_text().splitlines()) for p in python) < 15
    assert ROOT in submit.APP.parents
    assert os.access(submit.APP / "pyproject.toml", os.R_OK)


def test_of_what_is_sealed_no_file_holds_anything(world: World, tmp_path: Path) -> None:
    """Neither with the coordinator nor at any site: no tensor of erased versions only, no importance of the class."""
    world.done(action="train", topology=TOPOLOGY)
    world.done(action="bank")
    trained, banked = tensors(tmp_path), importances(tmp_path, "0")
    world.done(action="unlearn", classes="0", reference=True)
    assert any("/sites/" in path for path in held([tmp_path], telling(trained, ())))
    world.done(action="seal")
    left = tensors(tmp_path)
    given_up = telling({name: piece for name, piece in trained.items() if name not in left}, left.values())
    banked = telling(banked, left.values())
    assert given_up
    assert banked
    assert not held([tmp_path], given_up | banked)
