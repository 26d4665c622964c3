"""Several requests in one pass, as it is typed."""

import json
from pathlib import Path

import pytest

from fedunlearn.runtime import Family
from tests.cli.conftest import Run
from tests.conftest import snapshot

MODELS = {
    "one": {"born": "incremental", "site": "north", "epochs": 1},
    "two": {"born": "incremental", "from": ["one"], "site": "south", "epochs": 1},
}
REQUESTS = {
    "ada": {"classes": ["0"], "received": "2001-01-02", "due": "2001-02-02"},
    "bob": {"classes": ["4"], "received": "2001-01-03"},
    "eve": {"classes": ["7"], "due": "2100-01-01"},
    "south": {"sites": ["south"]},
}
PASS = ("ada", "bob", "eve")
MASK = ("--method", "logit_mask", "--no-reference")


@pytest.fixture
def three(run: Run, tmp_path: Path) -> Path:
    plain = {"name": "three", "data": {"set": "digits"}, "net": {"name": "mlp", "hidden": 8}}
    (tmp_path / "three.yaml").write_text(json.dumps({**plain, "models": MODELS, "requests": REQUESTS}))
    assert run("train", tmp_path / "three.yaml", "--out", tmp_path / "family")[0] == 0
    return tmp_path / "family"


def states(run: Run, folder: Path) -> dict[str, tuple[str, str | None, str | None]]:
    found = json.loads(run("show", folder, "--requests", "--json")[1])["requests"]
    return {one["id"]: (one["state"], one["received"], one["due"]) for one in found}


def test_several_names_are_one_pass_and_every_case_is_told(run: Run, three: Path) -> None:
    before = snapshot(three)
    status, text, _ = run("plan", three, *PASS)
    assert (status, snapshot(three)) == (0, before)
    assert [line for line in text.splitlines() if "reaches" in line] == [
        f"{name}: class {REQUESTS[name]['classes'][0]}: reaches one, two" for name in PASS
    ]
    found = json.loads(run("plan", three, *PASS, "--json")[1])
    assert found["cases"] == {name: {"roots": ["one", "two"], "heirs": ["one", "two"]} for name in PASS}

    status, text, _ = run("unlearn", three, *PASS, *MASK, "--json")
    told = json.loads(text)
    assert (status, told["accepted"], told["request"]["classes"]) == (0, True, ["0", "4", "7"])
    assert [one["id"] for one in told["request"]["merges"]] == list(PASS)
    assert [line.body["request"] for line in Family.open(three).ledger.lines[1:]] == ["ada+bob+eve"]
    today = told["request"]["merges"][2]["received"]
    dates = {"ada": ("2001-01-02", "2001-02-02"), "bob": ("2001-01-03", None), "eve": (today, "2100-01-01")}
    south = {"south": ("planned", None, None)}
    assert states(run, three) == {name: ("applied", *dates[name]) for name in PASS} | south
    assert [line for line in run("show", three)[1].splitlines() if line.startswith("open: ")] == ["open: south: all of south"]

    assert "report of line 1 (ada+bob+eve)" in " ".join(run("report", three, "--request", "bob")[1].split())
    assert run("rollback", three, "--lift-exclusion")[0] == 0
    assert [states(run, three)[name][0] for name in PASS] == ["rolled back"] * 3
    assert run("unlearn", three, *PASS, *MASK)[0] == 0
    status, text, _ = run("seal", three, "--request", "eve", "--yes")
    assert (status, "sealed ada, bob, eve" in text) == (0, True)
    assert [states(run, three)[name][0] for name in PASS] == ["sealed"] * 3
    assert run("fsck", three)[0] == 0


def test_what_cannot_be_one_pass_says_what_can(run: Run, three: Path) -> None:
    assert run("unlearn", three, "ada", *MASK)[0] == 0
    before = snapshot(three)
    for words, message in (
        (("unlearn", "ada", "bob"), "request ada (class 0): is applied already (ledger line 1); leave it out"),
        (("plan", "ada", "bob"), "request ada (class 0): is applied already (ledger line 1); leave it out"),
        (("unlearn", "bob", "eve", "south"), "run one pass each for: bob, eve; south"),
        (("unlearn", "bob", "bob"), "bob (class 4) and bob (class 4) have one name or ask for the same; leave one out"),
        (("unlearn", "bob", "evee"), "unknown request 'evee'; did you mean 'eve'"),
        (("unlearn", "bob", "eve", "--classes", "1"), "bob, eve: a named request stands alone; leave out --classes"),
        (("unlearn", "bob", "--resume"), "--resume with what to forget: stands alone"),
    ):
        status, text, said = run(words[0], three, *words[1:])
        assert (status, text, message in " ".join(said.split())) == (2, "", True), (words, said)
    assert snapshot(three) == before
