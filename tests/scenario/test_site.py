"""A site's own file decides what messages mean at the site, and its owner may be asked first."""

import json
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from fedunlearn.data import MIRROR, Selection
from fedunlearn.errors import InputError, SiteError, TrainingError
from fedunlearn.evaluation import Scores
from fedunlearn.lineage import Request
from fedunlearn.methods import Evidence
from fedunlearn.runtime import InProcess, Split, unlearn
from fedunlearn.runtime.backend import answer
from fedunlearn.runtime.consent import MOST_WAITING, Consent, free, identity, words
from fedunlearn.runtime.flower import Flower, client_app
from fedunlearn.runtime.tasks import (
    Apply,
    Commit,
    Deposit,
    Evaluate,
    Failure,
    Fetch,
    Fetched,
    Measure,
    Question,
    Score,
    Seal,
    Survey,
    Surveyed,
    Task,
    Train,
)
from fedunlearn.scenario import open_site, open_site_in, workers_here
from fedunlearn.scenario.build import open_data
from fedunlearn.scenario.files import parse
from fedunlearn.scenario.site import SITES, Site
from fedunlearn.store import Store
from fedunlearn.tensors import Head
from fedunlearn.training import Recipe
from fedunlearn.training.flower import LocalGrid
from tests.cli.conftest import Run
from tests.cli.conftest import run as run
from tests.scenario.elsewhere import MODELS, NET, afar, elsewhere, in_process, load_site

DATA: dict[str, Any] = {"factory": "tests.scenario.elsewhere:load_site"}
PLAIN: dict[str, Any] = {"name": "north", "data": DATA, "net": NET, "nets": {"wide": {"name": "mlp", "hidden": 12}}}


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def write(folder: Path, **changes: Any) -> Path:
    plain = {k: v for k, v in {**PLAIN, **changes}.items() if v is not None}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "site.yaml").write_text(yaml.safe_dump(plain))
    return folder / "site.yaml"


def sites_at(folder: Path, names: tuple[str, ...] = ("north", "south", "east"), **changes: Any) -> dict[str, Site]:
    return {name: open_site(write(folder / name, name=name, **changes)) for name in names}


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
    assert told.text.startswith("cannot open its rows, nets or store: data set 'rows.npz': no such file; looked for")
    x, y, classes, keys = load_site("north")
    np.savez(tmp_path / "rows.npz", x=x, y=y, classes=list(classes), keys=list(keys))
    for without in ({}, {"r": Selection(("0",))}):
        assert isinstance(answer(site, Survey("north", ("main",), without), ()), Surveyed)
    wrong = open_site(write(tmp_path / "b", net={"name": "mpl"}))
    assert "unknown net 'mpl'; did you mean 'mlp'" in str(getattr(answer(wrong, Survey("north", ()), ()), "text", ""))


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
    lost = answer(open_site(tmp_path / "site.yaml"), Survey("north", ()), ())
    assert "unknown shard 'main'; known: letters" in str(getattr(lost, "text", ""))


def test_a_site_is_found_by_the_name_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites_at(tmp_path, ("north",))
    assert open_site_in(str(tmp_path), "north").place == "north"
    monkeypatch.setenv(SITES, str(tmp_path))
    assert open_site_in("/not/here", "north").place == "north"
    shutil.copytree(tmp_path / "north", tmp_path / "south")
    with pytest.raises(InputError, match="name: 'north', expected 'south', as the folder is called"):
        open_site_in(str(tmp_path), "south")


RECIPE = Recipe("shared", "server", (), ("0", "1"), 1, 0.1, 8, 0)
SENT, NONE = torch.ones(3), Scores(None, None, 0, 0)
ASKED = [
    Train("north", RECIPE, "federated", "main", ("0", "1"), start={"w": SENT}, give=True),
    Measure("north", "v" * 64, "main", "squares", "all", None, ("0",)),
    Measure("north", "v" * 64, "main", "squares", "all", Selection(samples=("main/1",)), ()),
    Deposit("north", "v" * 64, "main", "squares"),
    Apply(
        "north",
        "v" * 64,
        "fiun",
        {},
        (Evidence({"w": SENT}, 1),),
        None,
        (),
        Question(("0",)),
        Scores(None, None, 0, 0),
        Scores(0.0, None, 0, 0),
        (0.1, 0.1),
    ),
    Fetch("north", "v" * 64),
    Evaluate("north", "full", "v" * 64, "w" * 64, Question(("0",))),
    Evaluate("north", "quick", "v", "w", Question(("0",)), (), ("r",), {"r": Fetched({"w": SENT}, Head("w", ("0",)))}),
    Seal("north", ("v" * 64,), {}, "line", ("line",)),
    Survey("north", ("main",), {"r": Selection(samples=("main/1",))}, again=True),
    Score("north", "v" * 64, Question(selections={"main": Selection(samples=("main/1",))})),
    Evaluate("north", "quick", "v", "w", Question(selections={"main": Selection(samples=("main/1",))}), (), ("r",)),
]


@pytest.mark.parametrize("task", ASKED, ids=lambda t: type(t).__name__)
def test_what_computes_changes_or_gives_waits_for_the_owner(task: Any, tmp_path: Path) -> None:
    site = open_site(write(tmp_path, policy="ask"))
    told = answer(site, task, ())
    assert isinstance(told, Failure)
    assert not told.wrong_input
    assert told.text.startswith("this site's owner is asked first, and has not allowed it yet: ")
    (wish,) = site.consent.wishes()
    assert wish.what == words(task)
    assert f"`fedunlearn site approve site.yaml {wish.id}`" in told.text
    assert answer(site, task, ()) == told
    assert site.consent.wishes() == [wish]
    site.consent.approve(wish.id[:6])
    after = answer(open_site(tmp_path / "site.yaml"), task, ())  # it is on disk
    assert "owner is asked first" not in str(getattr(after, "text", ""))


def test_whatever_is_not_free_is_asked_about() -> None:
    """A kind of task that is new asks until somebody says that it need not."""
    assert {type(t) for t in ASKED} | {Commit} == set(get_args(Task))
    assert not any(free(t) for t in ASKED)


def test_what_is_allowed_is_that_very_task(tmp_path: Path) -> None:
    site, (train, *_) = open_site(write(tmp_path, policy="ask")), ASKED
    answer(site, train, ())
    site.consent.approve(site.consent.wishes()[0].id)
    for other in (
        Train("north", RECIPE, "federated", "main", ("0", "1"), start={"w": SENT + 1e-6}, give=True),
        Train("north", RECIPE, "federated", "main", ("0", "1"), start={"w": SENT.reshape(3, 1)}, give=True),
        Train("north", RECIPE, "federated", "main", ("0", "1", "2"), start={"w": SENT}, give=True),
    ):
        assert identity(other) != identity(train)
        assert "owner is asked first" in str(getattr(answer(site, other, ()), "text", ""))


def test_what_tells_only_counts_and_scores_is_answered(tmp_path: Path) -> None:
    site = open_site(write(tmp_path, policy="ask"))
    for without in ({}, {"r": Selection(("0",))}):
        assert isinstance(answer(site, Survey("north", ("main",), without), ()), Surveyed)
    assert not isinstance(answer(site, Commit("north", {}, {}, ("line",)), ()), Failure)
    looks = Evaluate("north", "quick", "v", "w", Question(("0",)), (), ("r",))
    whole = Question(selections={"main": Selection(("0",))})
    for task in (Score("north", "v", Question()), Score("north", "v", whole), looks):
        assert "unknown version" in str(getattr(answer(site, task, ()), "text", ""))
    assert site.consent.wishes() == []


def test_an_owner_is_not_flooded(tmp_path: Path) -> None:
    site = open_site(write(tmp_path, policy="ask"))
    folder = site.consent.folder
    folder.mkdir(parents=True)
    for i in range(MOST_WAITING):
        (folder / f"{i:016x}.json").write_text(json.dumps({"id": f"{i:016x}", "what": "w", "asked": "t", "approved": ""}))
    told = answer(site, ASKED[-1], ())
    assert "nothing more is taken until they are seen to" in str(getattr(told, "text", ""))
    assert len(list(folder.iterdir())) == MOST_WAITING


def test_a_training_of_rounds_is_taken_up_as_the_owner_allows_it(tmp_path: Path) -> None:
    scenario = elsewhere({"shared": {**MODELS["shared"], "keep": "last"}})
    held = sites_at(tmp_path / "sites") | {"east": open_site(write(tmp_path / "sites" / "east", name="east", policy="ask"))}
    app = client_app(lambda context: held[str(context.node_config["site"])])
    backend = Flower(LocalGrid(app, {i: {"site": s} for i, s in enumerate(held, 1)}), deadline=60, join=0)
    for number in (1, 2):
        with pytest.raises(
            TrainingError, match=r"east: this site's owner is asked first, .*train 'shared/r\d/east' .*then ask again"
        ):
            afar(scenario, tmp_path / "family", backend)
        waits = [w for w in held["east"].consent.wishes() if not w.approved]
        assert (len(waits), len(held["east"].consent.wishes())) == (1, number)
        held["east"].consent.approve(waits[0].id)
    family = afar(scenario, tmp_path / "family", backend)
    assert family.heads == afar(scenario, tmp_path / "free", in_process(scenario, tmp_path / "other")).heads
    both = Split(workers_here(scenario, family), backend, family.id)
    before = (tmp_path / "family" / "ledger.jsonl").read_bytes()
    with pytest.raises(SiteError, match="nothing was changed; 1 of 3 places failed: east: this site's owner is asked first"):
        unlearn(family, Request(classes=("1",), sites=("east",)), "fiun", both, accept_untested="a test")
    assert (tmp_path / "family" / "ledger.jsonl").read_bytes() == before


def test_a_method_beyond_the_menu_is_allowed_by_the_file(tmp_path: Path) -> None:
    named = "tests.runtime.test_flower_backend:Mine"
    task = Apply(
        "north", "v", named, {}, (), None, (), Question(("0",)), Scores(None, None, 0, 0), Scores(0.0, None, 0, 0), (0.1, 0.1)
    )
    told = [answer(open_site(write(tmp_path / n, methods=m)), task, ()) for n, m in (("a", []), ("b", [named]))]
    assert "is not allowed at north; it allows steer, " in str(getattr(told[0], "text", ""))
    assert ", and its owner can allow more there" in str(getattr(told[0], "text", ""))
    assert "unknown version" in str(getattr(told[1], "text", ""))


def test_the_owner_sees_and_allows(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path, policy="ask")
    site = open_site(path)
    for task in ASKED[:2]:
        answer(site, task, ())
    code, out, _ = run("site", "show", path)
    assert (code, out.count("waits since")) == (0, 2)
    assert "train 'shared'" in out
    ids = [w.id for w in site.consent.wishes()]
    assert run("site", "approve", path, *ids)[0] == 0
    code, out, _ = run("site", "show", path, "--json")
    assert all(t["approved"] for t in json.loads(out)["tasks"])
    code, _, err = run("site", "approve", path, "zz")
    assert code == 2
    assert "unknown task 'zz'" in err
    assert run("site", "fsck", path)[0] == 0
    damaged = site.consent.files()[0]
    damaged.write_text("{}")
    code, out, _ = run("site", "fsck", path, "--json")
    assert code == 1
    assert str(damaged) in json.loads(out)["damage"][0]


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


def test_a_damaged_wish_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError, match="not a task that waits for its owner"):
        Consent(tmp_path).wishes()
    task = ASKED[0]
    with pytest.raises(SiteError, match="owner is asked first"):
        Consent(tmp_path / "other").check(task, str)
    (wish,) = Consent(tmp_path / "other").wishes()
    Consent(tmp_path / "other").approve(wish.id)
    (tmp_path / "other" / "a.json").write_text("{}")
    Consent(tmp_path / "other").check(task, str)  # what is allowed does not depend on other files


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
