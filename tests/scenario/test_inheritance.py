"""What a model inherits: rows of heads by name, replayed rows, anchors, carried state, versions it started from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedunlearn.errors import InputError
from fedunlearn.lineage import Request, discover
from fedunlearn.runtime.tasks import Measure
from fedunlearn.scenario import Scenario, extend, of_family, open_site_data, train, workers
from fedunlearn.scenario.train import BACKENDS
from fedunlearn.store import Store
from fedunlearn.tensors import equal
from tests.scenario.digits import FOUR, forget, known, scenario, weights


def test_a_head_grows_by_name_and_old_rows_stay(tmp_path: Path) -> None:
    """Trained on nothing (its site holds no row of what it adds), the old rows are the parent's to the bit."""
    family = train(
        scenario(
            {
                "four": {"born": "incremental", "site": "a", "head": FOUR[::-1], "epochs": 1},
                "six": {
                    "born": "incremental",
                    "from": "four",
                    "site": "b",
                    "adds": ["9", "7"],
                    "classes": ["9", "7"],
                    "epochs": 1,
                },
            },
            data={"only": {"b": ["9", "7"]}},
        ),
        tmp_path / "f",
    )
    assert family.lineage["six"].head == ("3", "2", "1", "0", "9", "7")
    old, new = weights(family, "four"), weights(family, "six")
    assert new["head.weight"].shape == (6, 8)
    assert set(family.lineage["six"].data[0].rows) == {"7", "9"}
    assert not torch.equal(old["head.weight"], new["head.weight"][:4])  # trained on: other classes push them down
    still = train(
        scenario(
            {
                "four": {"born": "incremental", "site": "a", "head": FOUR, "epochs": 1},
                "six": {"born": "incremental", "from": "four", "site": "b", "adds": ["9"], "epochs": 1, "lr": 1e-30},
            }
        ),
        tmp_path / "still",
    )
    old, new = weights(still, "four"), weights(still, "six")
    assert torch.equal(old["head.weight"], new["head.weight"][:4])
    assert equal({k: v for k, v in old.items() if "head" not in k}, {k: v for k, v in new.items() if "head" not in k})


def chain(**second: Any) -> Any:
    return scenario(
        {
            "first": {"born": "incremental", "site": "a", "head": ["0", "1"], "epochs": 6},
            "second": {
                "born": "incremental",
                "from": "first",
                "site": "a",
                "adds": ["2"],
                "classes": ["2"],
                "epochs": 4,
                "lr": 0.1,
            }
            | second,
        }
    )


def test_without_replay_a_chain_forgets_by_itself_and_with_it_it_does_not(tmp_path: Path) -> None:
    plain = train(chain(), tmp_path / "plain")
    assert known(plain, "first", ["0", "1"]) > 0.9
    assert known(plain, "second", ["0", "1"]) < 0.3
    again = train(chain(replay=80, lr=0.05), tmp_path / "replay")
    assert known(again, "second", ["0", "1"]) > 0.9
    assert again.lineage["second"].data[0].rows["0"] == 80  # what is replayed trained it, and the lineage says so


def test_an_anchor_holds_what_mattered_the_more_the_stronger_it_is(tmp_path: Path) -> None:
    """The Fisher-weighted distance from the start falls with the strength; it is measured anew on the version started from."""
    far = []
    for strength in (0, 100, 10_000):
        held = train(chain(ewc=strength), tmp_path / str(strength))
        start, end = weights(held, "first"), weights(held, "second")
        worker = workers(of_family(held), held)["a"]
        asked = Measure("a", held.heads["first"], "main", "squares", "all", None, ("0", "1"))
        fisher = worker.handle(asked).importance.mean("squares")  # type: ignore[union-attr]
        shared = [n for n in fisher if "head" not in n]
        far.append(float(sum((fisher[n] * (end[n] - start[n]).square()).sum() for n in shared)))
    assert far[0] > far[1] > far[2]
    words = held.ledger.lines[0].body["carried"]["second"][0]
    assert words == f"ewc: anchor measured anew on first {held.heads['first'][:12]}"


ADAM = {"born": "federated", "clients": ["a", "b"], "rounds": 2, "epochs": 1, "lr": 0.05, "strategy": "fedadam"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_servers_moments_are_resumed_and_after_an_unlearning_they_are_not(backend: str, tmp_path: Path) -> None:
    family = train(scenario({"one": ADAM}), tmp_path / "f", backend=backend)
    store, before = family.store("server"), family.heads["one"]
    assert store.read_state(before)
    family = extend(family, {"models": {"two": {**ADAM, "from": ["one"]}}}, "more.yaml", backend=backend)
    assert family.ledger.lines[-1].body["carried"]["two"] == [f"server optimiser: resumed with one {before[:12]}"]
    assert family.lineage["two/r1/a"].started == {"one": before}
    forget(family, "0")
    after = family.heads["one"]
    assert after != before
    assert not store.read_state(after)
    family = extend(family, {"models": {"three": {**ADAM, "from": ["one"]}}}, "more.yaml", backend=backend)
    assert family.ledger.lines[-1].body["carried"]["three"] == [
        f"server optimiser: started anew, none is kept for one {after[:12]}"
    ]
    assert family.lineage["three/r1/a"].started == {"one": after}
    assert store.read_state(family.heads["three"])


def test_what_is_resumed_matters(tmp_path: Path) -> None:
    """A second federation that finds the state of the first ends elsewhere than one that finds none."""
    family = train(scenario({"one": ADAM, "two": {**ADAM, "from": ["one"]}}), tmp_path / "f")
    fresh = train(scenario({"one": ADAM}), tmp_path / "g")
    fresh.store("server").folder.joinpath("carried", f"{fresh.heads['one']}.safetensors").unlink()
    fresh = extend(fresh, {"models": {"two": {**ADAM, "from": ["one"]}}}, "more.yaml")
    assert fresh.heads["one"] == family.heads["one"]
    assert fresh.heads["two"] != family.heads["two"]


def two_sets(folder: Path) -> Any:
    """A family whose second model is trained on a set of its own."""
    rng = np.random.default_rng(0)
    x = rng.random((120, 8, 8), dtype=np.float32) + np.arange(120)[:, None, None] % 3
    np.savez(folder / "shades.npz", x=x, y=np.arange(120) % 3, classes=["dark", "grey", "light"])
    return scenario(
        {
            "base": {"born": "incremental", "site": "a", "epochs": 2},
            "shades": {
                "born": "transfer",
                "from": "base",
                "site": "b",
                "data": "shades",
                "head": ["dark", "grey", "light"],
                "layers": "all",
            },
        },
        more={"shades": {"set": "shades.npz"}},
        folder=str(folder),
    )


def test_two_sets_in_one_family(tmp_path: Path) -> None:
    """A transfer onto another data set: classes of both stand in one list, and every head is tested on its own."""
    plain = two_sets(tmp_path)
    family = train(plain, tmp_path / "f")
    assert [s.key for s in family.lineage["shades"].data] == ["b/shades"]
    assert family.lineage["base"].head == tuple("0123456789")
    body = [n for n in weights(family, "base") if "head" not in n]
    assert any(
        not torch.equal(weights(family, "base")[n], weights(family, "shades")[n]) for n in body
    )  # all layers were trained
    plan = discover(family.lineage, Request(classes=("grey",)))
    assert [h.name for h in plan.heirs] == ["shades"]
    assert not plan.untested
    with pytest.raises(InputError, match="sets main and shades both name a class '0'"):
        train(plain.model_copy(update={"more": {"shades": plain.data}}), tmp_path / "clash")


def test_another_seed_deals_every_set_anew(tmp_path: Path) -> None:
    plain = two_sets(tmp_path)
    one, two, again = (open_site_data(plain.seeded(seed), tmp_path / "none") for seed in (1, 2, 1))
    for site, name in (("a", "main"), ("b", "shades")):
        assert set(one[site].shards[name].keys) != set(two[site].shards[name].keys)
        assert one[site].shards[name].keys == again[site].shards[name].keys
    for held in ("calibration", "test"):
        keys = [{k for k in of["b"].held_out[held].keys if k.startswith("shades/")} for of in (one, two)]
        assert keys[0] != keys[1]


def test_another_seed_leaves_rows_that_sites_hold_themselves_and_deals_what_everybody_tests_on(tmp_path: Path) -> None:
    plain = two_sets(tmp_path).model_dump(by_alias=True)
    data = {"main": {"sites": "own"}, "shades": {"sites": "own", "test": "shades.npz"}}
    own = Scenario.model_validate({**plain, "data": data["main"], "more": {"shades": data["shades"]}})
    found = own.seeded(3)
    assert (found.data, found.more["shades"].seed) == (own.data, 3)
    assert Scenario.model_validate(found.model_dump(by_alias=True)) == found


WIDTHS = """
from collections import OrderedDict
from torch import nn

def make_net(shape, outputs):
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 4 * outputs), nn.ReLU())
    return nn.Sequential(OrderedDict(body=body, head=nn.Linear(4 * outputs, outputs)))
"""


def test_parents_whose_shapes_do_not_match_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "widths.py").write_text(WIDTHS)
    monkeypatch.syspath_prepend(tmp_path)
    models = {
        "a": {"born": "incremental", "site": "a", "head": FOUR, "epochs": 1},
        "b": {"born": "incremental", "site": "a", "head": FOUR[:2], "epochs": 1},
        "c": {"born": "transfer", "from": ["a", "b"], "site": "a", "head": FOUR},
    }
    plain = scenario(models).model_copy(update={"net": {"factory": "widths:make_net"}})
    with pytest.raises(
        InputError, match=r"parents a, b cannot be averaged to start from: .*has shape \(16, 64\) in one and \(8, 64\)"
    ):
        train(plain, tmp_path / "f")
    assert not (tmp_path / "f" / "ledger.jsonl").exists()


def test_an_unknown_backend_is_refused(tmp_path: Path) -> None:
    assert BACKENDS == ("in-process", "flower")
    with pytest.raises(InputError, match="backend 'flour': expected in-process or flower"):
        train(scenario({"one": ADAM}), tmp_path / "f", backend="flour")


def test_training_reads_what_is_in_a_store_once_not_for_every_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a family of ten thousand models would take the better part of its training to look for what it holds already."""
    read = Store.manifest
    seen: list[str] = []
    monkeypatch.setattr(Store, "manifest", lambda store, version: (seen.append(version), read(store, version))[1])

    def reads(models: int) -> int:
        seen.clear()
        born = {"m0": {"born": "incremental", "site": "a", "epochs": 1}}
        for i in range(1, models):
            born[f"m{i}"] = {"born": "incremental", "from": [f"m{i - 1}"], "site": "a", "epochs": 1}
        train(scenario(born), tmp_path / str(models))
        return len(seen)

    few, many = reads(5), reads(20)
    assert many <= 4 * few + 4
