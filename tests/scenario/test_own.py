"""Data, nets and files of the user's own train a family, which works from any folder; what a loader gives is checked."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from fedunlearn.errors import InputError
from fedunlearn.lineage import Request, discover
from fedunlearn.runtime import Family, InProcess, unlearn
from fedunlearn.scenario import load, of_family, train, workers
from fedunlearn.scenario.files import parse
from tests.scenario.small import changed


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


def test_a_net_that_does_not_give_logits_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "own_parts4.py").write_text(
        OWN.replace("torch.nn.Linear(width, outputs)", "torch.nn.Linear(width, outputs), torch.nn.Softmax(1)")
    )
    plain = changed("data", {"factory": "own_parts4:load_site"}) | {"net": {"factory": "own_parts4:make_net"}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(InputError, match="its outputs are not those of its last linear layer"):
        train(load(tmp_path / "own.yaml"), tmp_path / "family")


DROPPING = """
class Net(torch.nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.body, self.head = torch.nn.Linear(inputs, 16), torch.nn.Linear(16, outputs)
        self.drop = torch.nn.Dropout(0.3)

    def forward(self, x):
        h = torch.relu(self.body(x))
        return self.head(DROP)

def make_net(shape, outputs):
    return Net(shape[0], outputs)
"""


def test_a_net_that_drops_in_eval_mode_too_is_refused_and_one_that_does_not_is_trained(tmp_path: Path) -> None:
    drops = ("torch.nn.functional.dropout(h, 0.3)", "torch.nn.functional.dropout(h, 0.3, self.training)", "self.drop(h)")
    for i, drop in enumerate(drops):
        (tmp_path / f"own_parts5{i}.py").write_text(
            OWN.replace('"low", "mid", "high"', '"0", "1", "2"') + DROPPING.replace("DROP", drop)
        )
        plain = changed("data", {"factory": f"own_parts5{i}:load_site"}) | {"net": {"factory": f"own_parts5{i}:make_net"}}
        (tmp_path / f"own{i}.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(InputError, match="its outputs differ from call to call on the same 2 rows, in eval mode"):
        train(load(tmp_path / "own0.yaml"), tmp_path / "family0")
    for i in (1, 2):
        assert train(load(tmp_path / f"own{i}.yaml"), tmp_path / f"family{i}").heads.keys() == {"one", "two"}


@pytest.mark.parametrize(
    ("names", "told"),
    [('["a"] * 3', "class 'a' is named 3 times"), ('["1", "a", 1]', "class '1' is named 2 times")],
)
def test_a_loader_that_names_a_class_twice(names: str, told: str, tmp_path: Path) -> None:
    module = f"own_parts6{len(names)}"
    (tmp_path / f"{module}.py").write_text(OWN.replace('["low", "mid", "high"]', names))
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(changed("data", {"factory": f"{module}:load_site"})))
    with pytest.raises(
        InputError, match=f"data factory '{module}:load_site' for site 'north': {told}; every class needs a name"
    ):
        train(load(tmp_path / "own.yaml"), tmp_path / "family")


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
