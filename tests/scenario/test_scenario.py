"""Every topology runs; every mistake in one is said with file, key, value and the nearest right name."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fedunlearn.errors import FedUnlearnError, InputError, StoreError
from fedunlearn.lineage import Request, discover
from fedunlearn.runtime import Family, InProcess, Reference, unlearn
from fedunlearn.scenario import find_topology, load, of_family, read_plain, reference, train, workers
from fedunlearn.scenario.files import parse
from tests.conftest import LEAVE, NORTH, ROOT, snapshot

TOPOLOGIES = sorted((ROOT / "topologies").glob("*.yaml"))
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


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ([1, 2], "here: expected a mapping with name, data, net and models, found list"),
        (changed("nett", {}), "here: nett: unknown key 'nett'; did you mean 'net'"),
        (changed("data.sharsd", "iid"), "here: data.sharsd: unknown key 'sharsd'; did you mean 'shards'"),
        (changed("data.shards", "idd"), "here: data.shards: 'idd': Input should be 'iid', 'by_label' or 'dirichlet'"),
        (changed("data.set", None), "here: data: .*give one of set, factory and sites: own"),
        (changed("data.held_out", 0.8), "here: data: .*leave nothing to train on"),
        (changed("models.one.sitte", "x"), "here: models.one.sitte: unknown key 'sitte'; did you mean 'site'"),
        (changed("models.one.site", None), "here: models.one.site: missing"),
        (
            changed("models.one.born", "incremantal"),
            "here: models.one.born: unknown kind of birth 'incremantal'; did you mean 'inc",
        ),
        (changed("models.two.from", ["onee"]), "here: model 'two': unknown parent 'onee'; did you mean 'one'"),
        (
            changed("models.one.from", ["two"]),
            "here: lineage: models inherit in a cycle: (one -> two -> one|two -> one -> two)",
        ),
        (changed("models.one.epochs", -1), "here: models.one.epochs: -1: Input should be greater than or equal to 1"),
        (changed("data.without", {"nroth": [0]}), "here: data.without: unknown site 'nroth'; did you mean 'north'"),
        (
            changed("requests.leave", {"clases": [0]}),
            "here: requests.leave.clases: unknown key 'clases'; did you mean 'classes'",
        ),
        (changed("requests.leave", {}), "here: request: names nothing to forget"),
        (changed("gate", {"forgotten_at_most": 5}), "here: gate.forgotten_at_most: 5: Input should be less than or equal to 1"),
        (changed("models.one.site", "../up"), "here: models.one.site: '../up': String should match pattern"),
        (changed("models.one.home", "a/b"), "here: models.one.home: 'a/b': String should match pattern"),
        (changed("models.a/b", {"born": "incremental", "site": "x"}), "here: models.a/b"),
        (
            changed("models.one", {"born": "federated", "clients": ["x", "x"]}),
            "here: models.one.clients: .*x stands there more than once",
        ),
        (changed("models.one.epochs", 0), "here: models.one.epochs: 0: Input should be greater than or equal to 1"),
        (
            changed("models.next", {"born": "federated", "from": ["one", "two"], "clients": ["x"]}),
            "here: models.next.from: its parents one, two have different outputs; only a transfer",
        ),
        (changed("name", "a/b"), "here: name: 'a/b': String should match pattern"),
    ],
)
def test_mistakes_are_said(plain: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(plain, "here")


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        (changed("net", {"name": "mpl"}), "unknown net 'mpl'; did you mean 'mlp'"),
        (changed("net", {"factory": "own_nets:narrow"}), "net .*own_nets:narrow.* raised RuntimeError on rows of shape"),
        (
            changed("net", {"factory": "own_nets:flat"}),
            r"net .*own_nets:flat.* gave \(2, 8, 10\) for 2 rows, expected one output a class",
        ),
        (changed("data.without", {"north": list(range(10))}), "models.one: none of its sites .north. holds a row to train on"),
        (changed("data.set", "digitts"), "unknown data set 'digitts'; did you mean 'digits'"),
        (changed("data.without", {"north": ["zero"]}), "data.without.north: unknown class 'zero'"),
        (changed("models.two.head", ["1", "eleven"]), "models.two.head: unknown class 'eleven'"),
    ],
)
def test_mistakes_that_show_when_training_starts_leave_nothing(
    plain: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FedUnlearnError, match=message):
        train(parse(plain, "here"), tmp_path / "family")
    assert not (tmp_path / "family").exists()


NETS = """
import torch
def narrow(shape, outputs): return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, outputs))
def flat(shape, outputs): return torch.nn.Sequential(torch.nn.Linear(8, outputs))
"""


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


def test_a_family_works_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    y = np.arange(60) % 3
    np.savez(home / "rows.npz", x=np.random.default_rng(0).normal(y[:, None] * 2.0, 0.2, size=(60, 4)), y=y)
    (home / "t.yaml").write_text(yaml.safe_dump(changed("data", {"set": "rows.npz"})))
    monkeypatch.chdir(tmp_path)
    train(load(home / "t.yaml"), tmp_path / "family")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    family = Family.open(tmp_path / "family")
    assert workers(of_family(family), family)["north"].data.shards["main"].classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: a\nname: b", "not YAML: name stands there more than once"),
        (b"&a [*a]", "not YAML: refers to itself"),
        (b"a: [1", "not YAML"),
        (b"\xff\xfe\x00", "not YAML"),
        (b"- 1", "expected a mapping"),
    ],
)
def test_files_that_are_no_topology(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path}: {message}"):
        load(path)


def test_topologies_by_name() -> None:
    assert load(find_topology("hospitals")).name == "hospitals"
    with pytest.raises(InputError, match="unknown topology 'hospital'; did you mean 'hospitals'"):
        find_topology("hospital")


OWN = """
import numpy as np
import torch

def load_site(site):
    rng = np.random.default_rng(sum(map(ord, site)))
    y = np.arange(120) % 3
    return rng.normal(y[:, None] * 2.0, 0.3, size=(120, 5)), y, ["low", "mid", "high"], [f"{site}-{i}" for i in range(120)]

def make_net(shape, outputs, width=16):
    return torch.nn.Sequential(torch.nn.Linear(shape[0], width), torch.nn.ReLU(), torch.nn.Linear(width, outputs))

def empty(site):
    return np.zeros((0, 5))
"""


def test_the_users_own_data_and_net_and_rows_that_nobody_can_test_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "own_parts.py").write_text(OWN)
    plain = {
        "name": "own",
        "data": {"factory": "own_parts:load_site", "without": {"west": ["high"]}},
        "net": {"factory": "own_parts:make_net", "width": 12},
        "models": {
            "all": {"born": "federated", "clients": ["east", "west"], "rounds": 3},
            "west": {"born": "incremental", "from": ["all"], "site": "west"},
        },
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(plain))
    scenario = load(tmp_path / "own.yaml")
    family = train(scenario, tmp_path / "family")
    backend = InProcess(workers(scenario, family))
    request = Request(classes=("high",))
    assert discover(family.lineage, request).untested == ("all", "west")
    record = unlearn(family, request, "fiun", backend)
    texts = {o["model"]: o["text"] for o in record.facts["objections"]}
    assert set(texts) == {"all", "west"}
    assert texts["west"] == "not tested: no row of what is forgotten can be scored at its home"
    assert "not tested" in texts["all"]
    sample = Request(samples=("east/main/east-9",))
    assert "as_retrained" in {h.target for h in discover(family.lineage, sample).heirs}


def test_a_loader_that_gives_something_else(tmp_path: Path) -> None:
    (tmp_path / "own_parts2.py").write_text(OWN)
    plain = changed("data", {"factory": "own_parts2:empty"})
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(InputError, match=r"own_parts2:empty' for site 'north' returned ndarray, expected \(x, y\)"):
        train(load(tmp_path / "own.yaml"), tmp_path / "family")


def test_npz_data_and_a_declared_test_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, rows in (("train", 90), ("test", 60)):
        y = np.arange(rows) % 3
        np.savez(tmp_path / f"{name}.npz", x=rng.normal(y[:, None] * 2.0, 0.2, size=(rows, 4)), y=y)
    plain = changed("data", {"set": str(tmp_path / "train.npz"), "test": str(tmp_path / "test.npz")})
    plain["models"]["two"]["head"] = ["1", "2"]
    scenario = parse(plain, "here")
    family = train(scenario, tmp_path / "family")
    held = workers(scenario, family)["north"].data.held_out
    assert len(held["test"]) + len(held["calibration"]) == 60


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
