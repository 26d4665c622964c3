"""Keeping, proving and erasing, as it is typed."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from fedunlearn.data.folder import VARIABLE
from fedunlearn.runtime import Family
from fedunlearn.store import ledger
from fedunlearn.store.ledger import BY
from tests.cli.conftest import Run
from tests.conftest import snapshot


@pytest.fixture
def leaving(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A family that has forgotten what its scenario asks for."""
    shutil.rmtree(folder / "reference")
    monkeypatch.setenv(BY, "somebody")  # put back at the end, whatever --by sets
    words = ("leave", "--no-reference", "--due", "2001-01-31", "--by", "ada", "--reason", "case 12")
    assert run("unlearn", folder, *words)[0] == 0
    return folder


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


def test_a_second_command_is_told_to_come_again(run: Run, leaving: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "LOCK_SECONDS", 0.1)
    with FileLock(f"{Family.open(leaving).ledger.path}.lock"):
        before = snapshot(leaving)
        for words in (("rollback", leaving), ("seal", leaving, "--yes"), ("settle", leaving)):
            status, _, said = run(*words)
            assert (status, "another command is at work on this family" in " ".join(said.split())) == (1, True)
        assert snapshot(leaving) == before
    assert run("rollback", leaving)[0] == 0


def test_what_a_seal_erased_and_is_back_is_damage(run: Run, leaving: Path, tmp_path: Path) -> None:
    """Somebody has a copy of the store from before the seal, and puts it back."""
    kept = shutil.copytree(leaving / "homes" / "east", tmp_path / "kept")
    family = Family.open(leaving)
    old = family.ledger.lines[0].body["heads"]["eastern"]
    run("seal", leaving, "--yes")
    assert run("fsck", leaving)[0] == 0
    mirror = (leaving / "homes" / "east" / "place.json").read_bytes()
    shutil.copytree(kept, leaving / "homes" / "east", dirs_exist_ok=True)
    (leaving / "homes" / "east" / "place.json").write_bytes(mirror)
    status, text, _ = run("fsck", leaving, "--json")
    assert status == 1
    assert f"{old}.json: sealed by ledger line 2, which had it erased, and it is back" in text
    assert f"{old}.json" not in str(json.loads(text)["orphans"])
    status, _, said = run("export", leaving, "eastern", tmp_path / "old.safetensors", "--version", old[:12])
    assert (status, "erased; ledger line 2 sealed it" in " ".join(said.split())) == (2, True)
    assert not (tmp_path / "old.safetensors").exists()
    run("gc", leaving)
    assert run("fsck", leaving)[0] == 0


def test_a_place_that_owes_it_still_has_what_is_sealed_and_that_is_no_damage(run: Run, leaving: Path, tmp_path: Path) -> None:
    before = shutil.copytree(leaving, tmp_path / "before")
    old = Family.open(leaving).ledger.lines[0].body["heads"]["eastern"]
    run("seal", leaving, "--yes")
    shutil.rmtree(leaving / "homes" / "east")  # it was away
    shutil.copytree(before / "homes" / "east", leaving / "homes" / "east")
    noted = json.loads((leaving / "erased.json").read_bytes())
    (leaving / "erased.json").write_text(json.dumps({p: line for p, line in noted.items() if p != "east"}))
    status, text, _ = run("fsck", leaving, "--json")
    assert (status, json.loads(text)["damage"]) == (0, [])
    assert f"{old}.json" in str(json.loads(text)["orphans"])
    status, _, said = run("export", leaving, "eastern", tmp_path / "old.safetensors", "--version", old[:12])
    assert (status, "erased; ledger line 2 sealed it" in " ".join(said.split())) == (2, True)
    assert run("settle", leaving)[0] == 0
    assert json.loads(run("fsck", leaving, "--json")[1])["orphans"] == []


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


def test_a_place_that_is_gone_for_good(run: Run, leaving: Path) -> None:
    before = snapshot(leaving)
    status, _, said = run("depart", leaving, "east")
    assert (status, "eastern, parallel are lost with it" in " ".join(said.split())) == (2, True)
    assert snapshot(leaving) == before
    status, _, said = run("depart", leaving, "eats", "--yes")
    assert (status, "did you mean 'east'" in " ".join(said.split())) == (2, True)
    status, text, _ = run("depart", leaving, "east", "--yes", "--reason", "it closed", "--json")
    told = json.loads(text)
    assert (status, told["place"], set(told["lost"]), told["unerased"]) == (0, "east", {"eastern", "parallel"}, False)
    status, text, _ = run("show", leaving)
    assert (status, "departed: east, and with it" in text, "not yet at" in text) == (0, True, False)
    assert json.loads(run("show", leaving, "--json")[1])["departed"] == ["east"]
    status, _, said = run("export", leaving, "eastern", leaving / "x.safetensors")
    assert (status, "its weights are gone" in " ".join(said.split())) == (2, True)
    assert "departed east" in run("log", leaving, "--verify")[1]
    assert run("fsck", leaving)[0] == 0
    assert run("report", leaving)[0] == 0
    assert run("seal", leaving, "--yes")[0] == 0
    assert "east" not in json.loads(run("settle", leaving, "--json")[1])["places"]


def test_gc_says_first_and_erases_then(run: Run, leaving: Path) -> None:
    run("rollback", leaving, "--lift-exclusion", "--reason", "a mistake")
    before = snapshot(leaving)
    planned = json.loads(run("gc", leaving, "--dry-run", "--json")[1])
    assert snapshot(leaving) == before
    done = json.loads(run("gc", leaving, "--json")[1])
    assert {**done, "dry_run": True} == planned
    assert done["bytes"] > 0
    assert "erased 0.00 MB" in run("gc", leaving)[1]
    assert run("fsck", leaving)[0] == 0


def test_what_a_dry_run_says_needs_no_lock(run: Run, leaving: Path) -> None:
    """So that a folder that cannot be written to can be looked at."""
    lock = leaving / "ledger.jsonl.lock"
    for words, locked in ((("--dry-run",), False), ((), True)):
        lock.unlink(missing_ok=True)
        assert run("gc", leaving, *words)[0] == 0
        assert lock.exists() == locked


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


def test_damage_is_said_and_exits_with_1(run: Run, leaving: Path) -> None:
    pack = next((leaving / "homes" / "east" / "packs").iterdir())
    pack.write_bytes(pack.read_bytes()[:-1])
    status, text, _ = run("fsck", leaving)
    assert status == 1
    assert "damage: " in text
    assert pack.stem in "".join(text.split())
    status, text, _ = run("fsck", leaving, "--json")
    assert (status, bool(json.loads(text)["damage"])) == (1, True)
    (leaving / "scenario.yaml").unlink()
    assert run("fsck", leaving)[0] == 1
    status, text, said = run("gc", leaving)  # it cannot know which places are here
    assert (status, text) == (2, "")
    assert "scenario.yaml" in said


def test_a_ledger_is_held_against_what_was_noted_and_what_places_know(run: Run, leaving: Path) -> None:
    path = leaving / "ledger.jsonl"
    last = Family.open(leaving).ledger.lines[-1].hash
    status, text, _ = run("log", leaving, "--verify", "--expect", last)
    assert (status, f"2 lines, the last is {last}" in text) == (0, True)
    whole = path.read_bytes()
    path.write_bytes(whole.splitlines(keepends=True)[0])
    assert run("log", leaving)[0] == 0
    assert "lacks ledger lines that places have acknowledged" in " ".join(run("show", leaving)[1].split())
    status, _, said = run("settle", leaving)
    assert (status, "lacks ledger lines that places have acknowledged" in " ".join(said.split())) == (2, True)
    status, text, _ = run("log", leaving, "--verify")
    assert (status, "lacks ledger lines that places have acknowledged" in " ".join(text.split())) == (1, True)
    status, text, _ = run("log", leaving, "--expect", last)
    assert (status, "has no line" in text) == (1, True)
    for short in ("", last[:7], "head"):
        status, _, said = run("log", leaving, "--expect", short)
        assert (status, "8 or more of its first hexadecimal digits" in " ".join(said.split())) == (2, True)
    path.write_bytes(whole.replace(b'"by":"ada"', b'"by":"eve"'))
    status, text, _ = run("log", leaving)
    assert (status, "it was changed" in " ".join(text.split())) == (1, True)


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


def test_what_somebody_wrote_cannot_pass_for_a_line_of_the_ledger(run: Run, folder: Path) -> None:
    reason = "none\n  9  2026-01-01T00:00:00+00:00  dpo  sealed leave, deadbeef0000\x1b[31m"
    run("unlearn", folder, "--classes", "0", "--no-reference", "--reason", reason)
    text = run("log", folder)[1]
    assert "\x1b" not in text
    assert not any(line.startswith("  9 ") for line in text.splitlines())
    assert "none\\n" in text


def test_homes_are_checked_though_the_scenario_is_damaged(run: Run, leaving: Path) -> None:
    (leaving / "scenario.yaml").write_text("name: [")
    pack = next((leaving / "homes").glob("*/packs/*"))
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)
    status, text, _ = run("fsck", leaving, "--json")
    told = json.loads(text)
    assert (status, told["elsewhere"]) == (1, [])
    for file in ("scenario.yaml", pack.name):
        assert any(file in words for words in told["damage"]), file


def test_a_case_is_tried_again_by_its_name(run: Run, leaving: Path) -> None:
    asked = ("--sites", "east", "--case", "eastgone", "--due", "2099-01-31")
    assert run("unlearn", leaving, *asked, "--no-reference")[0] == 1  # nobody can say whether it is as good as retrained
    run("unlearn", leaving, "eastgone", "--no-reference", "--accept-untested", "for the test")
    (found,) = [x for x in json.loads(run("show", leaving, "--requests", "--json")[1])["requests"] if x["id"] == "eastgone"]
    assert (found["what"], found["due"], found["lines"]) == ("all of east", "2099-01-31", [2, 3])
    status, _, said = run("unlearn", leaving, "eastgon", "--no-reference")
    assert (status, "unknown request 'eastgon'; did you mean 'eastgone'?" in " ".join(said.split())) == (2, True)
