"""A site's own file decides what messages mean at the site."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from fedunlearn.data import MIRROR, Selection
from fedunlearn.errors import InputError
from fedunlearn.evaluation import Scores
from fedunlearn.runtime import InProcess, Split, Worker, unlearn
from fedunlearn.runtime.backend import answer
from fedunlearn.runtime.tasks import (
    Apply,
    Failure,
    Question,
    Survey,
    Surveyed,
)
from fedunlearn.scenario import open_site, open_site_in, workers_here
from fedunlearn.scenario.build import open_data
from fedunlearn.scenario.files import parse
from fedunlearn.scenario.site import SITES
from fedunlearn.store import Store
from tests.cli.conftest import Run, run as run
from tests.conftest import LEAVE
from tests.scenario.elsewhere import MODELS, afar, elsewhere, in_process, load_site
from tests.scenario.site_files import DATA, sites_at, write


def test_a_family_of_site_files_is_the_one_that_other_workers_train(tmp_path: Path) -> None:
    scenario = elsewhere(MODELS)
    ours = afar(scenario, tmp_path / "ours", InProcess(sites_at(tmp_path / "sites")))
    theirs = afar(scenario, tmp_path / "theirs", in_process(scenario, tmp_path / "other"))
    assert ours.heads == theirs.heads
    assert ours.lineage.to_json() == theirs.lineage.to_json()
    assert (tmp_path / "sites" / "north" / "store" / "families" / ours.id / "versions").is_dir()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"nmae": "x"},
            r"site.yaml: nmae: unknown key 'nmae'; did you mean 'name'\? known: data, device, evidence, methods, more, name",
        ),
        ({"data": {"sett": "digits"}}, r"data.sett: unknown key 'sett'; did you mean 'set'\?"),
        ({"data": {}}, "data: .*give one of set, factory and folder"),
        ({"data": {"set": "digits", "factory": "a:b"}}, "give one of set, factory and folder"),
        ({"data": {"set": "digits", "calibration": 0.5, "held_out": 0.5}}, "leave nothing to train on"),
        ({"net": None}, "net: missing; a value is needed here"),
        ({"policy": "never"}, "policy: 'never': Input should be 'auto' or 'ask'"),
        ({"methods": ["os.system"]}, r"method 'os.system': expected their\.module:Class"),
        ({"data": {"folder": "rows"}, "more": {"x": DATA}}, "a folder of shards under `data` names all sets"),
        ({"more": {"main": DATA}}, "more: .*main is the name of the set under `data`; give this one another"),
        ({"more": {"x": {"folder": "rows"}}}, "a folder of shards stands under `data` only"),
        ({"name": "../north"}, "name: '../north': String should match"),
    ],
)
def test_what_is_wrong_in_the_file_is_said(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        open_site(write(tmp_path, **changes))


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.yaml: cannot be read"):
        open_site(tmp_path / "nowhere.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(InputError, match="expected a mapping with name, store, data and net, found list"):
        open_site(tmp_path / "list.yaml")


def test_what_cannot_be_opened_is_the_sites_answer_and_the_next_task_tries_again(tmp_path: Path) -> None:
    site = open_site(write(tmp_path, data={"set": "rows.npz"}))
    told = answer(site, Survey("north", ("main",)), ())
    assert isinstance(told, Failure)
    assert told.text.startswith("cannot open its rows, nets or store: InputError; its words stay there")
    assert "data set 'rows.npz': no such file; looked for" in site.error
    x, y, classes, keys = load_site("north")
    np.savez(tmp_path / "rows.npz", x=x, y=y, classes=list(classes), keys=list(keys))
    for without in ({}, {"r": Selection(("0",))}):
        assert isinstance(answer(site, Survey("north", ("main",), without), ()), Surveyed)
    wrong = open_site(write(tmp_path / "b", net={"name": "mpl"}))
    assert isinstance(answer(wrong, Survey("north", ()), ()), Failure)
    assert "unknown net 'mpl'; did you mean 'mlp'" in wrong.error


def test_a_folder_of_shards_is_its_sets(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    for name, classes in (("main", ["a", "b"]), ("letters", ["c", "d", "e"])):
        y = np.arange(60) % len(classes)
        np.savez(tmp_path / "rows" / f"{name}.npz", x=np.random.default_rng(0).random((60, 4)), y=y, classes=classes)
    site = open_site(write(tmp_path, data={"folder": "rows"}))
    told = answer(site, Survey("north", ("main", "letters")), ())
    assert isinstance(told, Surveyed)
    assert told.classes == {"main": ("a", "b"), "letters": ("c", "d", "e")}
    assert set(told.tests) == {"a", "b", "c", "d", "e"}
    assert sum(told.shards["main"].values()) + sum(told.tests[c] for c in "ab") == 60 - round(0.2 * 30) * 2
    (tmp_path / "rows" / "main.npz").unlink()
    lost = open_site(tmp_path / "site.yaml")
    assert isinstance(answer(lost, Survey("north", ()), ()), Failure)
    assert "unknown shard 'main'; known: letters" in lost.error


def test_a_site_is_found_by_the_name_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites_at(tmp_path, ("north",))
    assert open_site_in(str(tmp_path), "north").place == "north"
    monkeypatch.setenv(SITES, str(tmp_path))
    assert open_site_in("/not/here", "north").place == "north"
    shutil.copytree(tmp_path / "north", tmp_path / "south")
    with pytest.raises(InputError, match="name: 'north', expected 'south', as the folder is called"):
        open_site_in(str(tmp_path), "south")


def test_sites_in_one_process_have_loaders_of_their_own_though_they_are_called_alike(tmp_path: Path) -> None:
    """Each `mine.py` reads what lies beside it."""
    found = {}
    for site, n in (("north", 12), ("south", 7)):
        (tmp_path / site).mkdir()
        np.savez(tmp_path / site / "rows.npz", x=np.ones((n, 2), np.float32), y=np.arange(n) % 3)
        (tmp_path / site / "mine.py").write_text(
            "import numpy as np\nfrom pathlib import Path\n\n\ndef load_site(site):\n"
            "    found = np.load(Path(__file__).parent / 'rows.npz')\n    return found['x'], found['y'], ['a', 'b', 'c']\n"
        )
        plain = {"name": site, "data": {"factory": "mine:load_site"}, "net": {"name": "mlp", "hidden": 4}}
        (tmp_path / site / "site.yaml").write_text(yaml.safe_dump(plain))
        found[site] = open_site(tmp_path / site / "site.yaml")
    rows = {}
    for site, opened in found.items():
        worker = opened.answerer
        assert isinstance(worker, Worker)
        rows[site] = sum(len(r) for r in (*worker.data.shards.values(), *worker.data.held_out.values()))
    assert rows == {"north": 12, "south": 7}


def test_a_method_beyond_the_menu_is_allowed_by_the_file(tmp_path: Path) -> None:
    named = "tests.runtime.test_flower_backend:Mine"
    task = Apply(
        "north", "v", named, {}, (), None, (), Question(("0",)), Scores(None, None, 0, 0), Scores(0.0, None, 0, 0), (0.1, 0.1)
    )
    told = [answer(open_site(write(tmp_path / n, methods=m)), task, ()) for n, m in (("a", []), ("b", [named]))]
    assert "is not allowed at north; it allows steer, " in str(getattr(told[0], "text", ""))
    assert ", and its owner can allow more there" in str(getattr(told[0], "text", ""))
    assert "StoreError" in str(getattr(told[1], "text", ""))
    assert "unknown version" in open_site(tmp_path / "b" / "site.yaml").error


def test_the_owner_exports_what_a_site_keeps(run: Run, tmp_path: Path) -> None:
    scenario = elsewhere({n: MODELS[n] for n in ("shared", "eastern")})
    families = [afar(scenario, tmp_path / name, InProcess(sites_at(tmp_path / "sites"))) for name in ("one", "two")]
    path = tmp_path / "sites" / "east" / "site.yaml"
    shown = json.loads(run("site", "show", path, "--json")[1])["models"]
    expected = {(f.id, name, version) for f in families for name, version in f.heads.items() if f.lineage[name].home == "east"}
    assert {(m["family"], m["name"], m["version"]) for m in shown} == expected
    assert run("site", "show", path)[1].count("model 'eastern' of family ") == 2

    to = tmp_path / "eastern.safetensors"
    code, _, err = run("site", "export", path, "eastern", to)
    assert (code, "kept of 2 families" in err, to.exists()) == (2, True, False)
    assert run("site", "export", path, "eastern", to, "--family", families[0].id[:12])[0] == 0
    store = Store(tmp_path / "sites" / "east" / "store" / "families" / families[0].id)
    held, found = store.read(families[0].heads["eastern"]).weights, load_file(to)
    assert set(found) == set(held)
    assert all(torch.equal(found[n], held[n]) for n in held)
    assert "exists already" in run("site", "export", path, "eastern", to, "--family", families[0].id)[2]
    assert "unknown model 'estern'; did you mean 'eastern'?" in " ".join(run("site", "export", path, "estern", to)[2].split())
    said = " ".join(run("export", tmp_path / "one", "eastern", to)[2].split())
    assert "at its home 'east'; there: fedunlearn site export site.yaml eastern FILE" in said

    mirror = store.folder / MIRROR
    mirror.write_bytes(mirror.read_bytes().replace(b"0", b"1", 1))
    assert f"{mirror}: not a mirror of the ledger" in "".join(run("site", "export", path, "eastern", to)[2].split("\n"))


@pytest.mark.parametrize("test", ["rows.npz", "./rows.npz", "copy.npz"])
def test_nothing_is_tested_on_rows_that_are_trained_on(test: str, tmp_path: Path) -> None:
    """By content: a path may be spelled in many ways, and a file be a copy."""
    chance, labels = np.random.default_rng(0), np.arange(60) % 3
    x = chance.normal(size=(60, 5))
    np.savez(tmp_path / "rows.npz", x=x, y=labels)
    np.savez(tmp_path / "copy.npz", x=x[::-1], y=labels[::-1])
    np.savez(tmp_path / "other.npz", x=np.concatenate([x[:9], chance.normal(size=(51, 5))]), y=labels)  # sets have some twins
    net, model = {"name": "mlp", "hidden": 4}, {"born": "incremental", "site": "north"}
    said = r"data.test: '.*': 60 of its 60 rows are among those that are trained on; .*leave `test` out"
    for name, refused in ((test, True), ("other.npz", False)):
        data = {"set": "rows.npz", "test": name}
        path = tmp_path / "site.yaml"
        path.write_text(yaml.safe_dump({"name": "north", "data": data, "net": net}))
        topology = parse({"name": "t", "folder": str(tmp_path), "data": data, "net": net, "models": {"m": model}}, "t")
        for opening in (lambda of=path: open_site(of).answerer, lambda of=topology: open_data(of, tmp_path)):
            with pytest.raises(InputError, match=said) if refused else nullcontext():
                opening()


def test_what_is_not_trained_on_any_more_is_told_to_the_owner_and_to_other_families(run: Run, tmp_path: Path) -> None:
    scenario = elsewhere({n: MODELS[n] for n in ("shared", "eastern")})
    path, away = tmp_path / "sites" / "east" / "site.yaml", InProcess(sites_at(tmp_path / "sites"))
    one = afar(scenario, tmp_path / "one", away)
    unlearn(one, LEAVE, "logit_mask", Split(workers_here(scenario, one), away, one.id), accept_untested="for the test")
    out = run("site", "show", path)[1]
    assert f"not trained on any more, for any family: class 0 (request {LEAVE.id!r} of family {one.id[:12]})" in out
    (excluded,) = json.loads(run("site", "show", path, "--json")[1])["excluded"]
    assert excluded == {"classes": ["0"], "samples": [], "request": LEAVE.id, "family": one.id}
    afar(scenario, tmp_path / "two", away)
    told = "rows of north/main, which requests on other families"
    assert [told in run("show", tmp_path / family)[1] for family in ("one", "two")] == [False, True]
