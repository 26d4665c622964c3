"""What `log` says of a ledger that is signed, and of one that somebody else wrote."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fedunlearn.runtime import Family
from fedunlearn.runtime.books.yardstick import FOLDER
from fedunlearn.store import Line
from fedunlearn.store.signing import KEY, VOUCH, Signer
from tests.cli.conftest import Run
from tests.conftest import snapshot
from tests.store.forging import added, new_key, rewritten, same, stripped


def joined(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def made(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A family that is signed from its first line on, of two lines."""
    new_key(tmp_path / "key.pem")
    monkeypatch.setenv(KEY, str(tmp_path / "key.pem"))
    rewritten(folder / "ledger.jsonl", same, Signer.configured())
    forget_mirrors(folder)
    shutil.rmtree(folder / FOLDER)  # which are not signed
    assert run("settle", folder)[0] == 0
    assert run("unlearn", folder, "leave", "--no-reference")[0] == 0
    return folder


def forget_mirrors(folder: Path) -> None:
    for path in (*folder.glob("homes/*/place.json"), folder / "acknowledged.json"):
        path.unlink()


def eve(line: Line) -> Line:
    return replace(line, by="eve")


COMMANDS = [
    ("settle",),
    ("unlearn", "--classes", "1", "--no-reference", "--accept-untested", "a test"),
    ("rollback", "--keep-exclusion"),
    ("seal", "--yes"),
    ("depart", "east", "--yes"),
    ("gc",),
]


@pytest.mark.parametrize("forge", [lambda path: rewritten(path, eve), added])
def test_what_somebody_else_wrote_is_said_and_nothing_is_done_on_top(
    run: Run, made: Path, forge: Callable[[Path], None]
) -> None:
    assert run("log", made)[0] == run("fsck", made)[0] == 0
    assert "signature does not match" not in run("log", made)[1]
    forge(made / "ledger.jsonl")
    forget_mirrors(made)
    for words in (("log", made), ("log", made, "--verify")):
        status, text, _ = run(*words)
        assert status == 1
        assert ("signature does not match" in text) == (forge is not added)
        assert ("not signed" in text) == (forge is added)
    assert run("fsck", made)[0] == 1
    before = snapshot(made)
    for command, *more in COMMANDS:
        status, _, said = run(command, made, *more)
        assert (status, "nothing was done; find out who wrote it" in joined(said)) == (2, True), command
        assert snapshot(made) == before


def test_a_ledger_whose_signatures_were_taken_off_gets_none(
    run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewritten(made / "ledger.jsonl", lambda line: eve(stripped(line)))
    forget_mirrors(made)
    before, last = snapshot(made), Family.open(made).ledger.lines[-1].hash
    for command, *more in COMMANDS[1:]:
        status, _, said = run(command, made, *more)
        assert (status, f"{VOUCH}={last[:16]}" in joined(said)) == (2, True), command
        assert snapshot(made) == before
    monkeypatch.setenv(VOUCH, last)
    assert run("rollback", made, "--keep-exclusion")[0] == 0
    status, text, _ = run("log", made, "--verify")
    assert (status, "not signed: lines 0 to 1; line 2, which is, vouches for them" in joined(text)) == (0, True)
    public = tmp_path / "key.pub"
    status, text, _ = run("log", made, "--key", public)  # one command, for who knows that it was signed from the first line on
    assert (status, "say --signed-from 2" in joined(text), "ledger line 0: not signed" in joined(text)) == (1, True, True)
    assert run("log", made, "--key", public, "--signed-from", "2")[0] == 0
    assert run("log", made, "--key", public, "--signed-from", "1")[0] == 1
    told = json.loads(run("log", made, "--json")[1])
    assert [x["signed"] for x in told["lines"]] == ["none", "none", "valid"]


def test_a_clock_that_was_set_back_is_noted_and_no_damage(run: Run, folder: Path) -> None:
    assert run("rollback", folder, "--keep-exclusion")[0] == 2  # nothing was undone, and nothing written
    assert run("unlearn", folder, "leave", "--no-reference")[0] == 0
    for words in (("log", folder, "--verify"), ("fsck", folder)):
        assert "set back" not in run(*words)[1]
    rewritten(folder / "ledger.jsonl", lambda line: replace(line, time=f"200{2 - line.number}-01-01T00:00:00+00:00"))
    forget_mirrors(folder)
    assert run("settle", folder)[0] == 0
    assert "its time is before line 0's" in joined(run("log", folder)[1])
    for words in (("log", folder, "--verify"), ("fsck", folder)):
        status, text, _ = run(*words)
        assert (status, "note: " in text, "a clock was set back, or had been ahead" in joined(text)) == (0, True, True)
        (note,) = json.loads(run(*words, "--json")[1])["notes"]
        assert "ledger line 1: its time, 2001-01-01T00:00:00+00:00, is before that of line 0" in note
    assert run("rollback", folder, "--keep-exclusion")[0] == 0  # never a reason to refuse


def test_what_finding_no_line_missing_rests_on(run: Run, folder: Path) -> None:
    assert run("unlearn", folder, "leave", "--no-reference")[0] == 0
    ledger, places = folder / "ledger.jsonl", Family.open(folder).places
    last = Family.open(folder).ledger.lines[-1].hash
    text = joined(run("log", folder, "--verify")[1])
    assert f"confirmed: line 1 by {len(places)} of {len(places)} places; all by files in this folder" in text
    assert "then only --expect with a hash that was noted elsewhere finds it" in text
    assert json.loads(run("log", folder, "--verify", "--json")[1])["confirmed"] == {"1": list(places)}
    whole = ledger.read_bytes()
    ledger.write_bytes(whole.splitlines(keepends=True)[0])
    for path in folder.glob("homes/*/place.json"):
        path.unlink()
    noted = folder / "acknowledged.json"  # says that they had one
    noted.write_text(json.dumps(dict.fromkeys(places, Family.open(folder).ledger.lines[0].hash)))
    for words in (("log", folder, "--verify"), ("fsck", folder)):
        status, text, _ = run(*words)
        assert (status, "has its mirror of it" in joined(text)) == (1, True)
    noted.unlink()  # so does what a crash right behind the first line leaves
    for words in (("log", folder, "--verify"), ("fsck", folder)):
        status, text, _ = run(*words)
        assert (status, "note: " in text, "no place in this folder has acknowledged it yet" in joined(text)) == (0, True, True)
    assert "confirmed: no line by any place" in joined(run("log", folder, "--verify")[1])
    assert run("log", folder, "--expect", last)[0] == 1
    ledger.write_bytes(whole)  # behind which no crash leaves all places
    for words in (("log", folder, "--verify"), ("fsck", folder)):
        assert run(*words)[0] == 1
    assert run("settle", folder)[0] == 0
    assert run("log", folder, "--verify")[0] == run("fsck", folder)[0] == 0
