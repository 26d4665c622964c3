"""The app of a deployment over a grid in this process: orders, answers, and what becomes of them when something is wrong."""

import json
import os
import re
import stat
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from flwr.app import Context, RecordDict

from fedunlearn.deployed import Copy, Deployment, Order, submit
from fedunlearn.deployed import client as client_side
from fedunlearn.deployed import server as server_side
from fedunlearn.deployed.coordinator import FAMILIES
from fedunlearn.deployed.wire import MARK, Reader, lines
from fedunlearn.errors import FedUnlearnError, InputError, SiteError
from fedunlearn.runtime import Family, InProcess, Split, rollback, unlearn
from fedunlearn.scenario import Scenario, assess, assessed, keep_assessed, open_site, request_of, train_afar, workers_here
from fedunlearn.scenario.schema import Asked
from fedunlearn.training.flower import LocalGrid
from fedunlearn.training.flower.grid import at_server
from tests.cli.conftest import Run
from tests.cli.conftest import run as run
from tests.conftest import ROOT, snapshot
from tests.runtime.remains import held, importances, telling, tensors
from tests.scenario.elsewhere import MODELS, NET, elsewhere

SITES = ("north", "south", "east")
SCENARIO = elsewhere({k: MODELS[k] for k in ("shared", "eastern")}, test="tests.scenario.elsewhere:load_test").model_copy(
    update={"requests": {"a": Asked(classes=("0",)), "b": Asked(classes=("3",), due="2027-01-31")}}
)


def plain(scenario: Scenario) -> str:
    return json.dumps(scenario.model_dump(by_alias=True, mode="json", exclude_unset=True, exclude={"folder"}))


TOPOLOGY = plain(SCENARIO)


def site_files(folder: Path, **changes: Any) -> dict[str, Path]:
    plain = {"data": {"factory": "tests.scenario.elsewhere:load_site"}, "net": NET, **changes}
    for site in SITES:
        (folder / site).mkdir(parents=True)
        (folder / site / "site.yaml").write_text(yaml.safe_dump({"name": site, **plain}))
    return {site: folder / site / "site.yaml" for site in SITES}


class World:
    """A coordinator's folder, sites with files of their own, and Flower between them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], **changes: Any) -> None:
        self.files, self.capsys, self.families = site_files(folder / "sites", **changes), capsys, folder / "families"
        self.families.mkdir()
        self.nodes = {i: {"site": s, client_side.KEY: str(f)} for i, (s, f) in enumerate(self.files.items(), 1)}

    def log(self, order: Order | dict[str, Any]) -> tuple[list[str], bool]:
        """What a run prints, and whether it ends well."""
        config = order.config if isinstance(order, Order) else order
        grid, fine = LocalGrid(client_side.app, self.nodes, config), True
        with at_server():
            try:
                server_side.app(grid, Context(1, 1, {}, RecordDict(), config))
            except server_side.Refused:
                fine = False
        return self.capsys.readouterr().out.splitlines(), fine

    def done(self, **words: Any) -> dict[str, Any]:
        told, fine = self.log(Order(**{"family": "ours", "join": 0.0, "deadline": 60.0, **words}))
        reader = Reader("answer")
        for line in told:
            reader.take(line)
        found: dict[str, Any] = reader.answer()
        assert fine != ("error" in found)
        return found


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, capsys)
    monkeypatch.setenv(FAMILIES, str(made.families))
    monkeypatch.setattr(sys, "path", list(sys.path))
    client_side.site_at.cache_clear()
    return made


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
    world.done(action="train", topology=TOPOLOGY)
    more = {"models": {"later": {"born": "incremental", "from": ["eastern"], "site": "north", "epochs": 1}}}
    told = world.done(action="extend", topology=json.dumps(more))
    assert [line["kind"] for line in map(json.loads, told["family"]["ledger.jsonl"].splitlines())] == ["trained", "trained"]
    assert "later" in Family.open(world.families / "ours").heads
    assert not (world.families / "ours" / "homes" / "north").exists()
    again = world.done(action="extend", topology=json.dumps(more))
    assert again["error"].startswith("run-config: topology: models.later: the family has one already")


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


ANSWER = {"record": {"facts": [str(i) for i in range(4000)]}}


def test_an_answer_comes_home_out_of_any_log() -> None:
    told = list(lines("t0", ANSWER))
    assert len(told) > 2
    assert max(map(len, told)) < 3200
    reader = Reader("t0")
    for line in [*told[1:], "INFO : something else", *lines("another", {"x": 1}), told[0], told[0]]:
        reader.take(line + "\n")
    assert reader.whole
    assert reader.answer() == ANSWER


def spoiled(told: list[str], how: str) -> list[str]:
    first = told[0]
    return {
        "lost": told[1:],
        "none": [],
        "changed": [first[:-8] + ("AAAAAAAA" if not first.endswith("AAAAAAAA") else "BBBBBBBB"), *told[1:]],
        "two": [*told, *lines("t0", {"error": "forged"})],
    }[how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("lost", r"holds \d of \d lines"),
        ("none", "holds no answer"),
        ("changed", "changed or damaged"),
        ("two", "2 different answers"),
    ],
)
def test_an_answer_that_is_not_whole_is_not_believed(how: str, message: str) -> None:
    reader = Reader("t0")
    for line in spoiled(list(lines("t0", ANSWER)), how):
        reader.take(line)
    with pytest.raises(SiteError, match=message):
        reader.answer()


def test_what_a_site_says_cannot_be_taken_for_an_answer(world: World) -> None:
    """Its words stand in the answer and in lines of progress, never at the beginning of a line of their own."""
    world.done(action="train", topology=TOPOLOGY)
    forged = next(lines("answer", {"error": "forged"}))
    server_side.say(f"a site says:\n{forged}")
    (line,) = world.capsys.readouterr().out.splitlines()
    assert not Reader("answer").take(line)


def test_a_ledger_that_does_not_continue_is_refused(world: World, tmp_path: Path) -> None:
    copy = Copy(tmp_path / "copy", "any", "ours")
    files = world.done(action="train", topology=TOPOLOGY)["family"]
    copy.keep(files)
    again = world.done(action="unlearn", classes="0")["family"]
    copy.keep(again)
    before = snapshot(copy.folder)
    with pytest.raises(SiteError, match="the ledger of ours does not continue the one in"):
        copy.keep(files)
    with pytest.raises(SiteError, match=r"sent a file '\.\./x' that belongs to no family"):
        copy.keep({**again, "../x": "here"})
    with pytest.raises(SiteError, match="the family that came home is damaged"):
        copy.keep({**again, "ledger.jsonl": again["ledger.jsonl"].replace("unlearned", "unlearnt")})
    with pytest.raises(SiteError, match="what came home is no family"):
        copy.keep({})
    assert snapshot(copy.folder) == before


FLWR = """#!{python}
import json, sys, time
from pathlib import Path
said = json.loads(Path({said!r}).read_text())
word = sys.argv[1]
with Path({said!r} + ".calls").open("a") as calls:
    calls.write(word + "\\n")
if word == "run":
    sys.stdout.write("Loading project\\n")
    token = Path(sys.argv[sys.argv.index("--run-config") + 1]).read_text().rpartition("token = ")[2].strip().strip('"')
    Path({said!r} + ".token").write_text(token)
    print(json.dumps(said["run"]))
if word == "log" and (sys.argv[-1] == "--show" or not said.get("deaf")):
    print(said["log"].replace("TOKEN", Path({said!r} + ".token").read_text()), flush=True)
if word == "list":
    print(json.dumps({{"success": True, "runs": [{{"run-id": "7", "status": said["status"], "status-details": "so"}}]}}))
if word == "stop":
    print(json.dumps({{"success": True}}))
sys.exit(said.get("exit", 4 if word == "list" and said.get("lost") else 0))
"""


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A `flwr` that says what a test wants."""

    def say(**said: Any) -> Path:
        path, program = tmp_path / "said", tmp_path / "flwr"
        path.write_text(
            json.dumps({"run": {"success": True, "run-id": "7"}, "log": "", "status": "finished:completed", **said})
        )
        program.write_text(FLWR.format(python=sys.executable, said=str(path)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(submit, "_program", lambda: [str(program)])
        monkeypatch.setattr(submit, "POLL", 0.05)
        monkeypatch.setattr(submit, "LATE", 1.0)
        return tmp_path / "said.calls"

    return say


def log_of(plain: Any) -> str:
    return "\n".join(["INFO : starting", "fedunlearn-says training", *lines("TOKEN", plain)])


def test_a_run_is_followed_until_its_answer_is_home(pretend: Callable[..., Path]) -> None:
    pretend(log=log_of({"line": 3}))
    said: list[str] = []
    assert Deployment("fed").carry_out(Order(family="x"), said.append) == {"line": 3}
    assert said[0] == "run 7 is submitted to fed"
    assert {"training", "run 7: finished:completed"} == set(said[1:])


def test_a_stream_that_broke_off_is_made_up_for(pretend: Callable[..., Path]) -> None:
    calls = pretend(log=log_of({"line": 3}), deaf=True)
    assert Deployment("fed").carry_out(Order(family="x")) == {"line": 3}
    assert calls.read_text().split().count("log") == 2


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        (
            {"status": "finished:failed", "log": log_of({"error": "north: no", "exit_status": 1})},
            FedUnlearnError,
            "fed: north: no",
        ),
        ({"status": "finished:failed", "log": log_of({"error": "bad", "exit_status": 2})}, InputError, "fed: bad"),
        ({"status": "finished:failed"}, SiteError, "fed: run 7 is finished:failed: so; the log of the run holds no answer"),
        ({"status": "finished:failed", "log": log_of({"line": 1})}, SiteError, "is finished:failed, though it answered"),
        ({"run": {"success": False, "error-message": "No such SuperLink"}}, SiteError, "`flwr run` failed: No such SuperLink"),
        ({"run": {"success": True}}, SiteError, "did not take the run"),
        ({"lost": True}, SiteError, r"`flwr list` failed: .*; run 7 may go on: look at it with `flwr list --run-id 7`"),
        ({"exit": 3}, SiteError, "`flwr run` failed: "),
        ({"status": "pending"}, SiteError, r"still pending after 0.2 s and was stopped; does a ServerApp process"),
        ({"log": log_of([1])}, SiteError, "answered with list, expected an object"),
    ],
)
def test_a_run_that_fails_is_an_error_in_words(
    said: dict[str, Any], kind: type[FedUnlearnError], message: str, pretend: Callable[..., Path]
) -> None:
    calls = pretend(**said)
    with pytest.raises(kind, match=message) as told:
        Deployment("fed", start=0.2).carry_out(Order(family="x"))
    assert type(told.value) is kind
    assert ("stop" in calls.read_text()) == (said.get("status") == "pending")


@pytest.fixture
def submitted(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """What commands submit is done in this process."""

    def carry_out(self: Deployment, order: Order, say: Any = None) -> dict[str, Any]:
        assert self.federation == "fed"
        told = world.done(**{**vars(order), "join": 0.0})
        if "error" in told:
            raise FedUnlearnError(told["error"])
        return told

    monkeypatch.setattr(Deployment, "carry_out", carry_out)
    return world


@pytest.mark.parametrize("tier", ["quick", pytest.param("full", marks=pytest.mark.slow)])
def test_an_edit_is_evaluated_at_the_sites_and_reported_at_home(run: Run, submitted: World, tmp_path: Path, tier: str) -> None:
    folder, how = tmp_path / "runs" / "ours", ("--backend", "flower")
    scenario = elsewhere({"one": {"born": "incremental", "site": "north", "batch": 8}})
    submitted.done(action="train", topology=plain(scenario))
    submitted.done(action="unlearn", classes="0", method="logit_mask")
    family, before = Family.open(submitted.families / "ours"), snapshot(submitted.families)
    here = InProcess({s: open_site(f) for s, f in submitted.files.items()})
    with_sites = Split(workers_here(scenario, family), here, family.id)
    by_hand = assess(family, family.ledger.lines[-1], tier, with_sites, retrained=False)
    (kept,) = set(snapshot(submitted.families)) - set(before)
    (submitted.families / kept).unlink()

    ask = ("report", folder, "--tier", tier, "--no-reference", *how, "--federation", "fed", "--json")
    status, out, _ = run(*ask)
    assert status == 0
    told = json.loads(out)["report"]["evaluations"]
    assert {n: set(of) for n, of in told.items()} == {"one": {"quick", tier}}
    found = assessed(Family.open(folder), Family.open(folder).ledger.lines[-1])
    assert [timeless(of) for of in found.values()] == [timeless(of) for of in json.loads(json.dumps(by_hand)).values()]
    assert (submitted.families / kept).is_file()
    assert not [f for f in snapshot(folder) if f.endswith(".safetensors")]
    assert Path(json.loads(out)["file"]).parent == folder / "reports"

    assert json.loads(run(*ask)[1])["report"]["evaluations"] == told  # seconds too: nothing was taken again
    assert json.loads(run("report", folder, "--json")[1])["report"]["evaluations"] == told
    with pytest.raises(SiteError, match="no evaluation of one, tier"):
        keep_assessed(Family.open(folder), family.ledger.lines[-1], {"one": {tier: {**told["one"][tier], "metrics": {}}}})
    with pytest.raises(SiteError, match="no evaluation of ledger line 1"):
        keep_assessed(Family.open(folder), family.ledger.lines[-1], {"two": told["one"]})
    status, _, err = run("report", folder, *how)
    assert (status, "--backend flower: goes with --tier" in " ".join(err.split())) == (2, True)
    status, _, err = run("report", folder, "--tier", "full")
    assert (status, "use `--backend flower`, which asks them" in " ".join(err.split())) == (2, True)
    status, _, err = run(*ask[:-1], "--request", "leave")
    assert (status, "--request: unknown request 'leave'" in " ".join(err.split())) == (1, True)


def timeless(tiers: dict[str, Any]) -> dict[str, Any]:
    return {tier: {k: v for k, v in of.items() if k != "seconds"} for tier, of in tiers.items()}


def test_candidates_are_scored_at_the_roots_where_an_order_says_so(run: Run, submitted: World, tmp_path: Path) -> None:
    folder, how = tmp_path / "runs" / "ours", ("--backend", "flower", "--federation", "fed")
    models = {"one": {"born": "incremental", "site": "north"}, "two": {"born": "incremental", "from": ["one"], "site": "east"}}
    submitted.done(action="train", topology=plain(elsewhere(models)))
    for more in ((), ("--score-at-roots",)):
        ask = ("unlearn", folder, "--classes", "0", "--method", "logit_mask", "--no-reference", *more, *how, "--json")
        assert run(*ask)[0] == (0 if more else 1)
        facts = Family.open(folder).ledger.lines[-1].body["record"]["facts"]
        assert facts["gate"]["score_at_roots"] == bool(more)
        assert {m["name"]: bool(m["scored_at"]["forgotten"]) for m in facts["models"]}["two"] == bool(more)


def test_commands_submit_and_print_what_they_print_in_one_process(run: Run, submitted: World, tmp_path: Path) -> None:
    topology, folder = tmp_path / "t.yaml", tmp_path / "runs" / "ours"
    topology.write_text(yaml.safe_dump(json.loads(TOPOLOGY)))
    assert run("train", topology, "--out", folder, "--backend", "flower", "--federation", "fed", "--json")[0] == 0
    code, out, _ = run("bank", folder, "--backend", "flower", "--json")
    assert code == 0
    assert json.loads(out)["rows_read"] > 0
    code, out, _ = run("unlearn", folder, "--classes", "0", "--no-reference", "--backend", "flower", "--json")
    assert json.loads(out)["request"]["classes"] == ["0"]
    assert code == (0 if json.loads(out)["accepted"] else 1)
    assert run("unlearn", folder, "--classes", "0", "--backend", "flower", "--method", "fium")[0] == 1
    (tmp_path / "more.yaml").write_text("models: {later: {born: incremental, from: [eastern], site: north, epochs: 1}}")
    code, out, _ = run("extend", folder, tmp_path / "more.yaml", "--backend", "flower", "--json")
    assert code == 0
    assert "later" in {m["name"] for m in json.loads(out)["models"]}
    code, out, _ = run("rollback", folder, "--keep-exclusion", "--backend", "flower", "--json")
    assert (code, json.loads(out)["line"], json.loads(out)["lifted"]) == (0, 3, False)
    code, out, _ = run("settle", folder, "--backend", "flower", "--json")
    assert (code, json.loads(out)["line"]) == (0, 3)
    shown = json.loads(run("show", folder, "--json")[1])
    assert shown == json.loads(run("show", folder, "--backend", "flower", "--json")[1])
    assert (len(shown["ledger"]), shown["behind"]) == (4, [])
    assert run("plan", folder, "--classes", "1")[0] == 0
    elsewhere_ = tmp_path / "again" / "ours"  # another operator, who knows the family's name
    assert shown == json.loads(run("show", elsewhere_, "--backend", "flower", "--federation", "fed", "--json")[1])


def test_commands_that_lack_a_federation_say_how_to_name_one(run: Run, tmp_path: Path) -> None:
    code, _, err = run("unlearn", tmp_path / "x", "--classes", "0", "--backend", "flower")
    assert (code, "does not say in which Flower federation its family lives" in " ".join(err.split())) == (2, True)
    code, _, err = run("train", "hospitals", "--federation", "fed")
    assert (code, "--federation fed: goes with --backend flower, not with 'in-process'" in " ".join(err.split())) == (2, True)
    code, _, err = run("train", "hospitals", "--backend", "flower", "--federation", "fed", "--out", tmp_path / "y")
    assert (code, "each site opens its own: say `data: {sites: own}`" in " ".join(err.split())) == (2, True)


def test_sites_of_this_machine_are_asked_by_their_files(run: Run, tmp_path: Path) -> None:
    site_files(tmp_path / "sites")
    plain = json.loads(TOPOLOGY)
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({**plain, "data": {"sites": "own"}}))
    how = ("--sites-in", tmp_path / "sites")
    assert run("train", tmp_path / "t.yaml", "--out", tmp_path / "f", "--seed", "3", "--bank", *how)[0] == 0
    (tmp_path / "more.yaml").write_text("models: {later: {born: incremental, from: [eastern], site: north, epochs: 1}}")
    assert run("extend", tmp_path / "f", tmp_path / "more.yaml", *how)[0] == 0
    assert json.loads(run("bank", tmp_path / "f", *how, "--json")[1])["rows_read"] > 0  # of the new model
    assert json.loads(run("bank", tmp_path / "f", *how, "--json")[1])["rows_read"] == 0
    _, out, _ = run("unlearn", tmp_path / "f", "--classes", "0", *how, "--json")
    assert json.loads(out)["models"]
    assert json.loads(out)["cost"]["rows_read"] == 0
    assert run("rollback", tmp_path / "f", "--lift-exclusion", *how)[0] == 0
    assert run("settle", tmp_path / "f", *how)[0] == 0
    assert run("show", tmp_path / "f")[0] == 0
    assert run("unlearn", tmp_path / "f", "--classes", "0")[0] == 2


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
