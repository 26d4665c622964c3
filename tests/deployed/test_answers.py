"""Answers come home whole, out of any log, or the run is an error in words; nothing forged is believed."""

import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.deployed import Copy, Deployment, Order, server as server_side, submit
from fedunlearn.deployed.wire import Reader, lines
from fedunlearn.errors import FedUnlearnError, InputError, SiteError
from tests.conftest import snapshot
from tests.deployed.conftest import TOPOLOGY, World

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
