"""Commands for a deployment: what they submit, and that they print what they print in one process."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedunlearn.deployed import Deployment, Order
from fedunlearn.deployed.submit import Keep, outcome
from fedunlearn.errors import SiteError
from fedunlearn.runtime import Family, InProcess, Split, fsck, owed
from fedunlearn.runtime.books.evaluations import named
from fedunlearn.runtime.books.records import record_of
from fedunlearn.scenario import assess, assessed, keep_assessed, line_of, open_site, workers_here
from tests.cli.conftest import Run, run as run
from tests.conftest import snapshot
from tests.deployed.conftest import TOPOLOGY, World, plain, site_files
from tests.scenario.elsewhere import elsewhere


@pytest.fixture
def submitted(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """What commands submit is done in this process."""

    def carry_out(self: Deployment, order: Order, say: Any = None, keep: Keep = lambda _: None) -> dict[str, Any]:
        assert self.federation == "fed"
        return outcome(world.done(**{**vars(order), "join": 0.0}), self.federation, keep)

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
    for kept in set(snapshot(submitted.families)) - set(before):
        (submitted.families / kept).unlink()

    ask = ("report", folder, "--tier", tier, "--no-reference", *how, "--federation", "fed", "--json")
    status, out, _ = run(*ask)
    assert status == 0
    told = json.loads(out)["report"]["evaluations"]
    assert {n: set(of) for n, of in told.items()} == {"one": {"quick", tier}}
    copy = Family.open(folder)
    line = line_of(copy)
    found = assessed(copy, line)
    assert [timeless(of) for of in found.values()] == [timeless(of) for of in json.loads(json.dumps(by_hand)).values()]
    assert found == assessed(Family.open(submitted.families / "ours"), line)
    assert not fsck(folder, here=()).damage
    assert not [f for f in snapshot(folder) if f.endswith(".safetensors")]
    assert Path(json.loads(out)["file"]).parent == folder / "reports"

    assert json.loads(run(*ask)[1])["report"]["evaluations"] == told  # seconds too: nothing was taken again
    assert json.loads(run("report", folder, "--json")[1])["report"]["evaluations"] == told
    with pytest.raises(SiteError, match="no evaluation of one, tier"):
        keep_assessed(copy, line, {"one": {tier: {**told["one"][tier], "metrics": {}}}})
    other = {**told["one"][tier], "seconds": {}}
    for unnamed in ({"two": told["one"]}, {"one": {tier: other}}):
        with pytest.raises(SiteError, match=r"no evaluation of .*, that ledger lines name; nothing was kept"):
            keep_assessed(copy, line, unnamed)
    with pytest.raises(SiteError, match="no evaluation of ledger line 1"):
        keep_assessed(copy, line, {"one": []})
    (copy.folder / "evaluations" / f"{named(copy.ledger, 1)['one', tier]}.json").unlink()
    assert not fsck(folder, here=()).damage  # it is a copy
    limits = json.loads(run("report", folder, "--json")[1])["report"]["limits"]
    (gone,) = [one["text"] for one in limits if one["about"] == "Found, and not at hand"]
    assert f"Of one the {tier} tier was run" in gone
    assert "what it found is not in this copy (with --tier it comes home)" in gone
    status, _, err = run("report", folder, *how)
    assert (status, "--backend flower: goes with --tier" in " ".join(err.split())) == (2, True)
    status, _, err = run("report", folder, "--tier", "full")
    assert (status, "or ask them: `--backend flower --federation NAME`" in " ".join(err.split())) == (2, True)
    status, _, err = run(*ask[:-1], "--request", "leave")
    assert (status, "--request: unknown request 'leave'" in " ".join(err.split())) == (2, True)


def timeless(tiers: dict[str, Any]) -> dict[str, Any]:
    return {tier: {k: v for k, v in of.items() if k != "seconds"} for tier, of in tiers.items()}


def test_candidates_are_scored_at_the_roots_where_an_order_says_so(run: Run, submitted: World, tmp_path: Path) -> None:
    folder, how = tmp_path / "runs" / "ours", ("--backend", "flower", "--federation", "fed")
    models = {"one": {"born": "incremental", "site": "north"}, "two": {"born": "incremental", "from": ["one"], "site": "east"}}
    submitted.done(action="train", topology=plain(elsewhere(models)))
    for more in ((), ("--score-at-roots",)):
        ask = ("unlearn", folder, "--classes", "0", "--method", "logit_mask", "--no-reference", *more, *how, "--json")
        assert run(*ask)[0] == (0 if more else 1)
        copy = Family.open(folder)
        facts = record_of(copy, copy.ledger.lines[-1]).facts
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
    assert run("unlearn", folder, "--classes", "0", "--backend", "flower", "--method", "fium")[0] == 2
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


def test_an_order_in_view_of_an_older_ledger_is_refused(run: Run, submitted: World, tmp_path: Path) -> None:
    """Or it would undo, or make final, what another operator has done since, and say that it was about one's own."""
    mine, theirs = tmp_path / "mine" / "ours", tmp_path / "theirs" / "ours"
    how = ("--backend", "flower", "--federation", "fed")
    submitted.done(action="train", topology=TOPOLOGY)
    ask = ("--method", "logit_mask", "--no-reference", *how, "--json")
    run("unlearn", mine, "--classes", "0", *ask)
    run("unlearn", theirs, "--classes", "1", *ask, "--by", "bob")
    family = Family.open(submitted.families / "ours")
    assert len(family.ledger.lines) == 3
    for order in (("rollback", "--lift-exclusion"), ("seal", "--yes"), ("depart", "east", "--yes")):
        copy = Path(shutil.copytree(mine, tmp_path / order[0] / "ours"))
        code, _, err = run(order[0], copy, *order[1:], *how)
        said = f"{order[0]}: the family has moved on since the copy here was brought home, up to ledger line 2 (unlearned, by"
        assert (code, said in " ".join(err.split())) == (2, True)
        assert Family.open(family.folder).ledger.lines == family.ledger.lines
        assert Family.open(copy).ledger.lines == family.ledger.lines  # it came home with the refusal
    code, out, _ = run("rollback", copy, "--lift-exclusion", *how, "--json")
    assert (code, json.loads(out)["undoes"]) == (0, 2)


def test_what_is_refused_by_a_copy_says_that_it_is_one(run: Run, submitted: World, tmp_path: Path) -> None:
    folder, how = tmp_path / "ours", ("--backend", "flower", "--federation", "fed")
    submitted.done(action="train", topology=TOPOLOGY)
    assert run("show", folder, *how)[0] == 0
    for order in (("rollback", "--keep-exclusion"), ("seal", "--yes"), ("depart", "nowhere", "--yes")):
        code, _, err = run(order[0], folder, *order[1:], *how)
        assert (code, "so it is by the copy here: bring it up to date (fedunlearn show" in " ".join(err.split())) == (2, True)
        assert "by the copy here" not in run(order[0], folder, *order[1:])[2]


def test_a_key_of_the_operators_signs_nothing_in_a_deployment(
    run: Run, submitted: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, how = tmp_path / "ours", ("--backend", "flower", "--federation", "fed")
    submitted.done(action="train", topology=TOPOLOGY)
    monkeypatch.setenv("FEDUNLEARN_KEY", str(tmp_path / "key.pem"))
    assert run("show", folder, *how)[0] == 0
    code, _, err = run("unlearn", folder, "--classes", "0", *how)
    assert (code, "FEDUNLEARN_KEY is set here, where no ledger line is written" in " ".join(err.split())) == (2, True)
    monkeypatch.delenv("FEDUNLEARN_KEY")
    assert len(Family.open(submitted.families / "ours").ledger.lines) == 1


def test_what_is_committed_and_not_yet_everywhere_is_known_at_home(run: Run, submitted: World, tmp_path: Path) -> None:
    """A store that is not where it was does not say that it erased; the copy knows of the seal and of who owes it."""
    topology, folder, how = tmp_path / "t.yaml", tmp_path / "runs" / "ours", ("--backend", "flower")
    topology.write_text(yaml.safe_dump(json.loads(TOPOLOGY)))
    assert run("train", topology, "--out", folder, *how, "--federation", "fed")[0] == 0
    run("unlearn", folder, "--classes", "0", "--no-reference", *how, "--accept-untested", "for the test")
    (home,) = {m.home for m in Family.open(folder).lineage.models if m.name == "eastern"}
    store = submitted.files[home].parent / "store"
    there = next(p for p in store.rglob("versions") if any(p.iterdir()))
    there.rename(store / "elsewhere")
    code, _, err = run("seal", folder, "--yes", *how)
    assert (code, "lacks the current version of eastern" in " ".join(err.split())) == (1, True)
    assert Family.open(folder).ledger.sealed
    assert home in owed(Family.open(folder))
    if there.exists():  # made anew, and empty
        for made in there.iterdir():
            made.unlink()
        there.rmdir()
    (store / "elsewhere").rename(there)
    assert run("settle", folder, *how)[0] == 0
    assert not owed(Family.open(folder))


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
