"""Every topology runs; a family is recorded as it was born, and its reference never saw the data."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.errors import InputError, StoreError
from fedunlearn.lineage import Request, discover
from fedunlearn.runtime import Family, InProcess, Reference, unlearn
from fedunlearn.scenario import find_topology, load, of_family, read_plain, reference, train, workers
from fedunlearn.scenario.files import parse
from tests.conftest import LEAVE, NORTH, ROOT, snapshot
from tests.scenario.small import PLAIN

TOPOLOGIES = sorted((ROOT / "topologies").glob("*.yaml"))


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda p: p.stem)
def test_every_topology_trains_plans_and_unlearns(path: Path, tmp_path: Path) -> None:
    scenario = load(path)
    family = train(scenario, tmp_path / "family")
    for name, asked in scenario.requests.items():
        request = asked.request(name)
        plan = discover(family.lineage, request)
        assert plan.heirs
        assert not plan.untested
        twin = reference(family, scenario, request)
        again = Reference.of(twin, plan, InProcess(workers(scenario, twin)))
        assert all(not s.test.forgotten for s in again.scored.values())
        record = unlearn(family, request, "fiun", InProcess(workers(scenario, family)), scenario.gate.gate, retrained=again)
        for m in record.facts["models"]:
            assert m["target"] in ("absent", "not_expressible")
            assert (m["status"] == "pending") == any(o["model"] == m["name"] for o in record.facts["objections"])
            assert m["target"] != "absent" or m["forgotten_before"] > 0.5


def test_the_family_is_recorded_as_it_was_born(trained: Path) -> None:
    lineage = Family.open(trained).lineage
    assert {m.name: m.born for m in lineage.models if m.kept} == {
        "shared": "federated",
        "parallel": "distributed",
        "eastern": "incremental",
        "merged": "federated",
        "triage": "transfer",
    }
    assert len([m for m in lineage.models if not m.kept]) == 5 * 3 + 4 + 2
    assert lineage.kept_parents("merged") == ("parallel", "eastern")
    keys = {s.key: s.rows for m in lineage.models for s in m.data if m.born != "transfer"}
    assert "0" in keys["north/main"]
    assert "0" not in keys["east/main"]
    assert sum(keys["north/main"].values()) == sum(lineage["shared/r1/north"].data[0].rows.values())


def test_the_reference_never_saw_the_data_and_is_trained_once(trained: Path) -> None:
    family = Family.open(trained)
    scenario = of_family(family)
    twin = reference(family, scenario, LEAVE, lambda text: pytest.fail(f"it trained again: {text}"))
    assert not any("0" in s.rows for m in twin.lineage.models for s in m.data)
    south = reference(family, scenario, NORTH)
    rows = {s.site: s.rows for m in south.lineage.models for s in m.data if m.name.startswith("shared/")}
    assert "0" not in rows["north"]
    assert "0" in rows["south"]
    assert {m.name for m in twin.lineage.models if m.kept} == {m.name for m in family.lineage.models if m.kept}


def test_a_reference_that_was_cut_off_is_trained_again(folder: Path) -> None:
    family = Family.open(folder)
    twin = reference(family, of_family(family), LEAVE)
    heads = dict(twin.heads)
    (twin.folder / "ledger.jsonl").unlink()
    assert reference(family, of_family(family), LEAVE).heads == heads


def test_a_reference_without_single_samples_and_since(tmp_path: Path) -> None:
    plain = deepcopy(PLAIN)
    plain["models"]["next"] = {"born": "incremental", "from": ["one"], "site": "north", "epochs": 1}
    scenario = parse(plain, "here")
    family = train(scenario, tmp_path / "family")
    total = sum(family.lineage["one"].data[0].rows.values())
    worker = workers(scenario, family)["north"]
    samples = tuple(f"north/main/{k}" for k in worker.data.shards["main"].keys[:3])
    twin = reference(family, scenario, Request(samples=samples))
    assert sum(twin.lineage["one"].data[0].rows.values()) == total - 3
    since = reference(family, scenario, Request(classes=("3",), since="one"))
    assert "3" in since.lineage["one"].data[0].rows
    assert "3" not in since.lineage["next"].data[0].rows


def test_the_same_seed_trains_the_same_family(hospitals: Any, trained: Path, tmp_path: Path) -> None:
    assert train(hospitals, tmp_path / "again").heads == Family.open(trained).heads


def test_a_scenario_survives_its_own_file(trained: Path, hospitals: Any) -> None:
    assert of_family(Family.open(trained)) == hospitals


def test_a_folder_that_holds_something_is_not_trained_into(folder: Path, hospitals: Any, tmp_path: Path) -> None:
    before = snapshot(folder)
    with pytest.raises(InputError, match="holds a family already; choose another folder"):
        train(hospitals, folder)
    assert snapshot(folder) == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and not ours"):
        train(hospitals, tmp_path / "notes")


def test_an_increment_of_a_transfer_keeps_its_head_and_a_transfer_may_start_from_different_heads(tmp_path: Path) -> None:
    plain = deepcopy(PLAIN)
    plain["models"]["on"] = {"born": "incremental", "from": ["two"], "site": "north", "epochs": 1}
    plain["models"]["both"] = {"born": "transfer", "from": ["one", "two"], "site": "north", "head": ["5"], "epochs": 1}
    lineage = train(parse(plain, "here"), tmp_path / "family").lineage
    assert lineage["on"].head == ("1", "2")
    assert set(lineage["on"].data[0].rows) == {"1", "2"}
    assert lineage["both"].head == ("5",)


def test_without_anything_left_the_reference_is_what_it_started_from(tmp_path: Path) -> None:
    scenario = parse(PLAIN, "here")
    family = train(scenario, tmp_path / "family")
    twin = reference(family, scenario, Request(sites=("north", "south")))
    assert not any(m.data for m in twin.lineage.models)
    assert {m.name for m in twin.lineage.models if m.kept} == {"one", "two"}


def test_topologies_by_name() -> None:
    assert load(find_topology("hospitals")).name == "hospitals"
    with pytest.raises(InputError, match="unknown topology 'hospital'; did you mean 'hospitals'"):
        find_topology("hospital")


def test_a_family_that_lost_a_file_says_which(folder: Path) -> None:
    (folder / "lineage.json").write_text("{}")
    with pytest.raises(StoreError, match=r"lineage\.json: not a lineage"):
        Family.open(folder)
    (folder / "scenario.yaml").unlink()
    with pytest.raises(StoreError, match=r"scenario\.yaml: missing"):
        of_family(Family(folder))


def test_a_date_needs_no_quotes(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("requests: {leave: {classes: ['0'], due: 2026-12-01}}\n")
    assert read_plain(tmp_path / "some.yaml") == {"requests": {"leave": {"classes": ["0"], "due": "2026-12-01"}}}
