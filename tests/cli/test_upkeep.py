"""Keeping a family in order, and finding what is damaged, as it is typed."""

import json
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from fedunlearn.runtime import Family
from fedunlearn.store import ledger
from tests.cli.conftest import Run
from tests.conftest import snapshot


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
