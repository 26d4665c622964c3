"""Every mistake in a topology is said with file, key, value and the nearest right name."""

import math
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.errors import FedUnlearnError, InputError
from fedunlearn.scenario import load, train
from fedunlearn.scenario.files import parse
from tests.scenario.small import changed


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
        (changed("requests.leave", {"classes": "0"}), r"here: requests.leave.classes: '0': expected a list, such as \[0\]"),
        (changed("models.one.lr", math.inf), "here: models.one.lr: inf: Input should be a finite number"),
        (changed("gate", {"metrics": {"tow.after": {"at_least": math.nan}}}), "here: gate.metrics.*: nan: .* finite number"),
        (changed("models.one.epochs", -1), "here: models.one.epochs: -1: Input should be greater than or equal to 1"),
        (changed("data.without", {"nroth": [0]}), "here: data.without: unknown site 'nroth'; did you"),
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
        (changed("more", {"main": {"set": "digits"}}), "here: more: .*main is the name of the set under `data`; give"),
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
        (changed("net", {"name": "mlp", "hiden": 8}), "net mlp: unknown setting 'hiden'; did you mean 'hidden'"),
        (changed("requests.leave", {"classes": ["10"]}), "requests.leave: unknown class '10'; did you mean '1'"),
        (changed("requests.leave", {"classes": ["1"], "sites": ["nroth"]}), "requests.leave: unknown site 'nroth'; did you"),
        (
            changed("requests.leave", {"samples": ["nroth/main/1"]}),
            "requests.leave: unknown site 'nroth'; did you mean 'north'",
        ),
        (changed("requests.leave", {"samples": ["north/mian/1"]}), "request leave: unknown shard 'north/mian'; did you mean"),
        (
            changed("requests.leave", {"samples": ["north/main/none"]}),
            "unknown sample 'north/main/none'; north/main has 3.. rows",
        ),
        (changed("requests.leave", {"classes": ["1"], "since": "onee"}), "requests.leave.since: unknown model 'onee'; did you"),
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


def test_a_round_that_is_kept_may_be_what_a_request_counts_from(tmp_path: Path) -> None:
    one = {"born": "federated", "clients": ["north", "south"], "rounds": 2, "keep": "all", "epochs": 1}
    plain = changed("models.one", one) | {"requests": {"late": {"classes": ["1"], "since": "one/r1"}}}
    family = train(parse(plain, "here"), tmp_path / "family")
    assert "one/r1" in family.heads
