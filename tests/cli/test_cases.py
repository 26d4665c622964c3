"""A request as a case, from the day that it came in until it is sealed, as it is typed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from fedunlearn.data.folder import VARIABLE
from fedunlearn.runtime import Family
from tests.cli.conftest import Run


def test_a_case_from_the_request_to_the_seal(run: Run, leaving: Path) -> None:
    status, text, _ = run("show", leaving, "--requests")
    assert status == 0
    assert text.startswith("leave  LATE  applied: class 0; received ")
    assert "due 2001-01-31" in text
    status, _, said = run("seal", leaving)
    assert (status, "say --yes to do it" in " ".join(said.split())) == (2, True)
    status, text, _ = run("seal", leaving, "--request", "leave", "--yes", "--reason", "over", "--json")
    told = json.loads(text)
    assert (status, told["requests"], told["unerased"], told["left"]) == (0, ["leave"], [], [])
    assert len(told["erases"]) == 5
    assert json.loads(run("show", leaving, "--requests", "--json")[1])["requests"][0]["state"] == "sealed"
    assert "sealed: leave" in run("show", leaving)[1]
    status, _, said = run("rollback", leaving)
    assert (status, "was sealed on" in " ".join(said.split())) == (2, True)
    first = Family.open(leaving).ledger.lines[0].body["heads"]["eastern"]
    status, _, said = run("export", leaving, "eastern", leaving / "old.safetensors", "--version", first[:12])
    assert (status, "erased; ledger line 2 sealed it" in " ".join(said.split())) == (2, True)
    status, _, said = run("report", leaving, "--tier", "full", "--no-reference")
    assert (status, "which are erased since it was sealed on" in " ".join(said.split())) == (2, True)
    assert run("report", leaving)[0] == 0
    status, text, _ = run("fsck", leaving)
    assert (status, "0 damaged, 0 that nothing needs" in text) == (0, True)
    lines = json.loads(run("log", leaving, "--verify", "--json")[1])["lines"]
    assert [(x["kind"], x["by"], x["body"].get("reason")) for x in lines[1:]] == [
        ("unlearned", "ada", "case 12"),
        ("sealed", "ada", "over"),
    ]


def test_part_of_what_was_done_is_answered(run: Run, leaving: Path) -> None:
    asked, heads = ("--classes", "0", "--sites", "north"), Family.open(leaving).heads
    assert "nothing is left to do: " in run("plan", leaving, *asked)[1]
    status, text, _ = run("unlearn", leaving, *asked, "--case", "part")
    assert (status, "with a wider request (ledger line 1)" in " ".join(text.split())) == (0, True)
    assert Family.open(leaving).heads == heads
    told = " ".join(run("show", leaving, "--requests")[1].split())
    assert "part applied: class 0 of north; received" in told
    assert "; by wider requests, ledger line 1" in told


def test_what_is_not_done_in_time_is_overdue(run: Run, folder: Path) -> None:
    words = ("--classes", "0", "--set", "alpha=50", "--set", "lam=1", "--no-reference", "--due", "2001-01-31")
    assert run("unlearn", folder, *words)[0] == 1
    (one,) = json.loads(run("show", folder, "--requests", "--json")[1])["requests"]
    assert (one["state"] in ("refused", "pending"), one["overdue"]) == (True, True)
    assert "OVERDUE" in run("show", folder, "--requests")[1]


def test_a_case_that_no_scenario_names_has_a_name_and_dates(run: Run, folder: Path) -> None:
    words = ("--no-reference", "--case", "erasure-7", "--received", "2001-01-03", "--due", "2001-01-31")
    assert run("unlearn", folder, "--classes", "0", *words)[0] == 0
    (one,) = (x for x in json.loads(run("show", folder, "--requests", "--json")[1])["requests"] if x["lines"])
    assert (one["id"], one["received"], one["due"], one["state"]) == ("erasure-7", "2001-01-03", "2001-01-31", "applied")
    assert run("report", folder, "--request", "erasure-7")[0] == 0
    run("rollback", folder, "--lift-exclusion")
    assert run("unlearn", folder, "--classes", "0", "--no-reference", "--case", "again")[0] == 0
    assert "erasure-7 (also again, leave)  LATE  applied: class 0" in " ".join(run("show", folder, "--requests")[1].split("\n"))
    for wrong, says in (
        (("leave", "--case", "x"), "leave: a named request stands alone; leave out .* --case"),
        (("--classes", "1", "--case", "leave"), "--case leave: is a request that the scenario names"),
        (("--classes", "1", "--received", "soon"), "received 'soon': expected a date like"),
        (("--resume", "--case", "x"), "--resume with --case: stands alone"),
    ):
        status, _, said = run("unlearn", folder, *wrong)
        assert status == 2
        assert re.search(says, " ".join(said.split()))


def test_what_was_rolled_back_and_erased_is_not_evaluated(run: Run, leaving: Path) -> None:
    run("rollback", leaving, "--keep-exclusion")
    run("gc", leaving)
    status, _, said = run("report", leaving, "--tier", "quick")
    assert (status, "have been erased since, as nothing needed them (by a gc or a seal)" in " ".join(said.split())) == (2, True)
    assert not (leaving / "reference").exists()  # nothing was retrained for it
    assert run("report", leaving)[0] == 0


def test_who_tests_afterwards_is_in_the_ledger(run: Run, leaving: Path) -> None:
    words = ("report", leaving, "--tier", "quick", "--no-reference", "--by", "grace", "--json")
    told = json.loads(run(*words)[1])["report"]
    (test,) = told["tests"]
    models = test["models"]["quick"]
    assert (test["number"], test["by"], test["of"]) == (2, "grace", 1)
    assert {*models} == {*told["evaluations"]}
    assert json.loads(run(*words)[1])["report"]["tests"] == [test]  # nothing was taken again
    assert f"evaluated leave (line 1): quick of {len(models)} models" in run("log", leaving, "--verify")[1]
    assert f"evaluated: leave, line 1: quick of {len(models)} models" in run("show", leaving)[1]
    assert "0 damaged, 0 that nothing needs" in run("fsck", leaving)[1]
    assert run("rollback", leaving, "--lift-exclusion")[0] == 0  # the unlearning, not the test of it


def test_data_that_others_exclude_is_not_said_to_be_free(run: Run, leaving: Path) -> None:
    again = ("--classes", "0", "--sites", "north", "--no-reference", "--accept-untested", "a test", "--case", "more")
    assert run("unlearn", leaving, *again)[0] == 0
    status, text, _ = run("rollback", leaving, "--lift-exclusion", "--json")
    assert (status, json.loads(text)["still_excluded_by"]) == (0, ["leave"])
    text = run("rollback", leaving, "--lift-exclusion")[1]
    assert "rolled back request leave; its data may be trained on again" in " ".join(text.split())


def test_sealing_opens_the_sites_data_where_it_is_said_to_be(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "spots.npz", x=rng.random((60, 4, 4), dtype=np.float32), y=np.arange(60) % 3)
    models = {"one": {"born": "incremental", "site": "a", "epochs": 1}}
    plain = {"name": "spots", "data": {"set": "spots.npz"}, "net": {"name": "mlp", "hidden": 8}, "models": models}
    (tmp_path / "spots.yaml").write_text(json.dumps(plain))
    data, family = ("--data", tmp_path / "data"), tmp_path / "family"
    assert run("train", tmp_path / "spots.yaml", "--out", family, *data)[0] == 0
    assert run("unlearn", family, "--classes", "0", "--method", "logit_mask", "--no-reference", *data)[0] == 0
    monkeypatch.setenv(VARIABLE, "")
    status, _, said = run("seal", family, "--yes")
    assert (status, "pass --data DIR, or set FEDUNLEARN_DATA" in " ".join(said.split())) == (2, True)
    assert run("seal", family, "--yes", *data)[0] == 0


def test_a_case_is_tried_again_by_its_name(run: Run, leaving: Path) -> None:
    asked = ("--sites", "east", "--case", "eastgone", "--due", "2099-01-31")
    assert run("unlearn", leaving, *asked, "--no-reference")[0] == 1  # nobody can say whether it is as good as retrained
    run("unlearn", leaving, "eastgone", "--no-reference", "--accept-untested", "for the test")
    (found,) = [x for x in json.loads(run("show", leaving, "--requests", "--json")[1])["requests"] if x["id"] == "eastgone"]
    assert (found["what"], found["due"], found["lines"]) == ("all of east", "2099-01-31", [2, 3])
    status, _, said = run("unlearn", leaving, "eastgon", "--no-reference")
    assert (status, "unknown request 'eastgon'; did you mean 'eastgone'?" in " ".join(said.split())) == (2, True)


def test_a_case_that_was_asked_for_by_what_it_says_goes_by_the_scenarios_name_too(run: Run, folder: Path) -> None:
    """Whatever name `show --requests` tells is taken."""
    assert run("unlearn", folder, "--classes", "0", "--no-reference")[0] == 0
    (case,) = json.loads(run("show", folder, "--requests", "--json")[1])["requests"]
    assert (case["id"] == "leave", "leave" in case["names"]) == (False, True)
    assert run("report", folder, "--request", "leave")[0] == 0
    assert json.loads(run("rollback", folder, "--request", "leave", "--json")[1])["undoes"] == 1
    assert run("unlearn", folder, "--classes", "0", "--no-reference")[0] == 0
    assert json.loads(run("seal", folder, "--request", "leave", "--yes", "--json")[1])["requests"] == [case["id"]]


def test_a_name_that_the_ledger_knows_stays_that_cases(run: Run, folder: Path, tmp_path: Path) -> None:
    """Whatever a scenario calls so later."""
    for c, case in (("2", "x"), ("4", "y")):
        words = ("--classes", c, "--case", case, "--method", "logit_mask", "--no-reference")
        assert run("unlearn", folder, *words)[0] == 0
    (tmp_path / "more.yaml").write_text("requests:\n  x: {classes: ['4']}\n")
    assert run("extend", folder, tmp_path / "more.yaml")[0] == 0
    status, _, said = run("rollback", folder, "--request", "x")
    assert (status, "is for request y, not for 'x'" in " ".join(said.split())) == (2, True)
    assert json.loads(run("seal", folder, "--request", "x", "--yes", "--json")[1])["requests"] == ["x"]
