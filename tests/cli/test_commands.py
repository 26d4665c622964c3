"""What people type, and what they get back: text, JSON, exit status, and one clear message when something is wrong."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedunlearn.cli import say
from fedunlearn.cli.draw import closeness_table
from fedunlearn.deployed import Order
from fedunlearn.errors import SiteError
from fedunlearn.runtime import Family, Record
from fedunlearn.runtime.backend import DEADLINE
from fedunlearn.scenario import find_topology, load, of_family
from tests.cli.conftest import Run
from tests.conftest import snapshot

FIELDS = {"name", "home", "born", "target", "forgotten_before", "forgotten_after", "retained_before", "retained_after",
          "mask_retained", "retrained_forgotten", "retrained_retained", "holds_class"}  # fmt: skip

OWN = """
name: own
data: {sites: own, test: digits}
net: {name: mlp}
models: {one: {born: federated, clients: [north]}}
"""


def test_the_demo_forgets_and_says_what_to_do_next(run: Run, tmp_path: Path) -> None:
    status, text, said = run("demo", "--out", tmp_path / "demo")
    assert status == 0
    for expected in ("lineage", "plan: forget class 0", "no: inherits it", "every heir was accepted", "fedunlearn show"):
        assert expected in text
    assert text.count("\n  fedunlearn ") == 4
    assert "training shared" in said
    for line in re.findall(r"^  fedunlearn (.*)$", text, re.M):
        assert run(*shlex.split(line))[0] == 0


def test_the_demo_as_json_and_honest_about_a_class_that_it_cannot_forget(run: Run, tmp_path: Path) -> None:
    status, text, _ = run(
        "demo", "--out", tmp_path / "demo", "--classes", "1,3", "--set", "alpha=1", "--set", "lam=1", "--json"
    )
    found = json.loads(text)
    assert status == 0
    assert not found["accepted"]
    assert found["objections"]
    assert {"model", "text"} == set(found["objections"][0])
    assert set(found["models"][0]) >= FIELDS


def test_unlearn_as_json(run: Run, folder: Path) -> None:
    status, text, _ = run("unlearn", folder, "leave", "--reason", "case 12", "--json")
    found = json.loads(text)
    assert status == 0
    assert json.loads(run("show", folder, "--json")[1])["due"] == []
    assert found["accepted"]
    assert found["objections"] == []
    assert found["seconds"] > 0
    rows = {m["name"]: m for m in found["models"]}
    assert set(rows["shared"]) >= FIELDS
    assert rows["triage"]["forgotten_before"] is None
    assert rows["shared"]["holds_class"]
    assert not rows["eastern"]["holds_class"]
    assert rows["eastern"]["retrained_forgotten"] == 0.0
    quick = rows["eastern"]["evaluation"]["quick"]["metrics"]
    assert quick["tow"]["before"] < 0.5 < quick["tow"]["after"]
    table = closeness_table(found["models"])
    assert table is not None
    assert table.row_count == len(rows)
    assert f"-> {quick['tow']['after']:.3f} (" in list(table.columns[1].cells)[list(rows).index("eastern")]
    assert Family.open(folder).ledger.lines[-1].body["reason"] == "case 12"


def test_what_the_gate_holds_back_exits_with_1(run: Run, folder: Path) -> None:
    status, text, _ = run("unlearn", folder, "--classes", "0", "--set", "alpha=50", "--set", "lam=1")
    assert status == 1
    assert "held back: shared: " in text
    assert "--method steer" in text
    status, text, _ = run("show", folder)
    assert "pending: candidate" in text
    assert "open: " in text


@pytest.mark.parametrize(("left", "method", "named"), [(0.4, "fiun", True), (None, "fiun", False), (0.4, "steer", False)])
def test_another_method_is_named_where_one_failed_not_where_rows_are_missing(
    left: float | None, method: str, named: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for table in ("record_table", "closeness_table"):
        monkeypatch.setattr(say, table, lambda _: None)
    facts = {
        "request": {"classes": ["0"]},
        "models": [{"status": "pending", "forgotten_before": 0.9, "forgotten_after": left}],
        "objections": [{"model": "a", "text": "b"}],
        "guarded": {},
        "method": method,
    }
    say.say_record(Record(facts, {"seconds": 1.0, "bytes_up": 0}))
    assert ("--method steer" in capsys.readouterr().out) == named


def test_show_plan_rollback_and_export(run: Run, folder: Path, tmp_path: Path) -> None:
    before = json.loads(run("show", folder, "--json")[1])
    status, text, _ = run("plan", folder, "--classes", "0", "--sites", "north", "--json")
    plan = json.loads(text)
    assert status == 0
    assert plan["cost"]["rows"] > 0
    assert plan["cost"]["seconds"] is not None
    assert {h["target"] for h in plan["heirs"]} == {"as_retrained", "not_expressible"}
    assert set(map(tuple, plan["unopposed"].values())) == {("north",)}
    said = " ".join(run("plan", folder, "--classes", "0")[1].split())
    assert "only north and south can measure it for shared, " in said
    assert "cannot be told apart if they disagree" in said
    assert json.loads(run("show", folder, "--json")[1]) == before
    run("unlearn", folder, "--classes", "0", "--no-reference")
    after = json.loads(run("show", folder, "--json")[1])
    status, text, _ = run("rollback", folder, "--json")
    assert (status, json.loads(text)["lifted"]) == (0, False)
    back = json.loads(run("show", folder, "--json")[1])
    versions = [{m["name"]: m["version"] for m in state["models"]} for state in (before, after, back)]
    assert versions[0] == versions[2] != versions[1]
    assert back["behind"] == []
    file = tmp_path / "eastern.safetensors"
    assert run("export", folder, "eastern", file)[0] == 0
    family = Family.open(folder)
    stored = family.store("east").read(family.heads["eastern"]).weights
    exported = load_file(file)
    assert all(torch.equal(exported[n], t) for n, t in stored.items())
    status, _, said = run("export", folder, "eastern", file)
    assert (status, "exists already" in said) == (2, True)
    candidate = versions[1]["eastern"][:12]
    assert run("export", folder, "eastern", file, "--force", "--version", candidate)[0] == 0
    assert not torch.equal(load_file(file)["head.weight"], exported["head.weight"])


def test_train_takes_a_seed(run: Run, tmp_path: Path) -> None:
    texts = [run("train", "federation", "--out", tmp_path / str(s), "--seed", s, "--json")[1] for s in (1, 2)]
    one, two = ({m["name"]: m["version"] for m in json.loads(t)["models"]} for t in texts)
    assert one["global"] != two["global"]
    assert of_family(Family.open(tmp_path / "1")) == load(find_topology("federation")).seeded(1)


def test_nothing_to_forget_is_an_answer(run: Run, tmp_path: Path) -> None:
    run("train", "transfers", "--out", tmp_path / "family")
    before = Family.open(tmp_path / "family")
    status, text, _ = run("unlearn", tmp_path / "family", "--classes", "2", "--since", "round")
    assert status == 0
    assert "nothing to forget" in text
    status, text, _ = run("plan", tmp_path / "family", "--classes", "2", "--since", "round")
    assert "nothing to forget" in text
    after = Family.open(tmp_path / "family")
    assert after.heads == before.heads
    assert len(after.ledger.lines) == len(before.ledger.lines) + 1
    assert "held by no model: class 2 since round" in run("show", tmp_path / "family", "--requests")[1]
    assert "not yet at" not in run("show", tmp_path / "family")[1]


def test_a_model_without_an_output_is_told_what_edits_it(run: Run, tmp_path: Path) -> None:
    """A method of the last layer leaves it untouched and says so; the one it names then finishes the request."""
    run("train", "transfers", "--out", tmp_path / "family")
    status, text, _ = run("unlearn", tmp_path / "family", "leave", "--method", "logit_mask")
    assert status == 1
    assert "--method fiun" in " ".join(text.split())
    assert run("unlearn", tmp_path / "family", "leave", "--method", "fiun")[0] == 0
    assert "leave  applied" in run("show", tmp_path / "family", "--requests")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("unlearn FOLDER --classes 11", "unknown class '11'; did you mean '1'"),
        ("unlearn FOLDER --classes 0 --sites nort", "unknown site 'nort'; did you mean 'north'"),
        ("unlearn FOLDER --classes 0 --method fium", "unknown method 'fium'; did you mean 'fiun'"),
        ("unlearn FOLDER --classes 0 --set alfa=1", "unknown setting 'alfa'; did you mean 'alpha'"),
        ("unlearn FOLDER --classes 0 --set alpha", "expected key=value"),
        ("unlearn FOLDER --classes 0 --set alpha=1 --set alpha=2", "--set alpha=2: alpha is '1' already"),
        ("unlearn FOLDER --classes 0 --due soon", "due 'soon': expected a date"),
        (
            "unlearn FOLDER --classes 0 --received 2026-11-20 --due 2026-11-01",
            "due 2026-11-01, before it was received (2026-11-20)",
        ),
        ("unlearn FOLDER --since shared", "since 'shared' alone names nothing to forget"),
        ("unlearn FOLDER leave --backend rya", "unknown backend 'rya'; did you mean 'ray'? known: flower, in-process, ray"),
        ("unlearn FOLDER leve", "unknown request 'leve'; did you mean 'leave'"),
        ("unlearn FOLDER leave --classes 0", "leave: a named request stands alone"),
        ("unlearn FOLDER", "names nothing to forget"),
        ("unlearn FOLDER --resume --atomic --reason x", "--resume with --atomic, --reason: stands alone"),
        ("unlearn FOLDER leave --federation x", "--federation x: goes with --backend flower, not with 'in-process'"),
        ("settle FOLDER --federation x", "--federation x: goes with --backend flower"),
        ("unlearn FOLDER leave --atomic --skip-offline", "all heirs or none needs every place online"),
        ("train hospitals --out FOLDER-2 --sites-in .", "--sites-in .: goes with data that says `sites: own`"),
        ("unlearn FOLDER --samples north/main/abc", "unknown sample 'north/main/abc'"),
        ("plan FOLDER --classes 0 --since sharde", "unknown model 'sharde'; did you mean 'shared'"),
        ("rollback FOLDER", "nothing to roll back"),
        ("export FOLDER estern x.safetensors", "unknown model 'estern'; did you mean 'eastern'"),
        ("export FOLDER shared/r1/north x.safetensors", "is retired: its weights are gone; kept are: "),
        ("export FOLDER eastern x.safetensors --version 000", "unknown version of eastern '000'"),
        ("show FOLDER-2", "no family here; make one with"),
        ("show FOLDER/..", "/..: holds families, "),
        ("train nothing.yaml", "unknown topology 'nothing.yaml'"),
        ("train hospitals --out FOLDER", "holds a family already"),
    ],
)
def test_wrong_input_exits_with_2_one_message_and_nothing_changed(run: Run, folder: Path, words: str, message: str) -> None:
    before = snapshot(folder)
    status, text, said = run(*(w.replace("FOLDER", str(folder)) for w in words.split()))
    assert status == 2
    assert text == ""
    flat = " ".join(said.split())
    assert flat.count("error:") == 1
    assert message in flat
    assert snapshot(folder) == before


@pytest.mark.parametrize("seconds", ["0", "-1", "inf", "nan"])
def test_a_deadline_is_seconds(run: Run, folder: Path, seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEADLINE, "60")
    status, _, said = run(f"--deadline={seconds}", "show", folder)
    assert status == 2
    assert "FEDUNLEARN_DEADLINE is" in said
    assert "expected seconds above 0" in said


def test_a_deadline_reaches_ray_and_the_orders_to_flower(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []

    def stop(*_: object, deadline: float, **__: object) -> None:
        told.append(deadline)
        raise SiteError("far enough")

    def order(self: object, order: Order, say: object, keep: object) -> None:
        stop(deadline=order.deadline)

    monkeypatch.setenv(DEADLINE, "60")
    monkeypatch.setattr("fedunlearn.runtime.ray.Ray", stop)
    monkeypatch.setattr("fedunlearn.deployed.Deployment.carry_out", order)
    assert run("unlearn", folder, "--classes", "0", "--backend", "ray")[0] == 1
    assert run("--deadline", "7200", "unlearn", folder, "--classes", "0", "--backend", "ray")[0] == 1
    (tmp_path / "own.yaml").write_text(OWN)
    run(
        "--deadline",
        "7201",
        "train",
        tmp_path / "own.yaml",
        "--out",
        tmp_path / "x",
        "--backend",
        "flower",
        "--federation",
        "f",
    )
    assert told == [60, 7200, 7201]


def test_a_torn_last_line_is_noted_and_passed_over(run: Run, folder: Path) -> None:
    path = folder / "ledger.jsonl"
    path.write_bytes(path.read_bytes() + b'{"body": {"heads": {"sha')
    before = snapshot(folder)
    status, text, said = run("show", folder)
    assert status == 0
    assert "the last line is torn" in " ".join(said.split())
    assert "trained: 5 models" in text
    assert snapshot(folder) == before


def test_a_folder_without_a_ledger_says_what_it_is(run: Run, folder: Path) -> None:
    def said() -> str:
        status, _, text = run("show", folder)
        assert status == 2
        return " ".join(text.split())

    (folder / "ledger.jsonl").unlink()
    assert "has no ledger.jsonl; if models were trained to the end, restore it from a backup, or train again" in said()
    (folder / "lineage.json").unlink()
    assert "its training was cut off; run `fedunlearn train` again" in said()
    for file in (*folder.glob("*.yaml"), *folder.glob("*.lock")):
        file.unlink()
    assert "no family here; make one" in said()


def test_a_place_that_is_behind_is_shown_and_settled(run: Run, folder: Path) -> None:
    (folder / "homes" / "west" / "place.json").write_text("{")
    assert "not yet at west: run fedunlearn settle" in run("show", folder)[1]
    assert run("settle", folder)[0] == 0
    assert "not yet" not in run("show", folder)[1]


def test_an_interrupted_command_says_what_holds(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedunlearn.cli.families.load", stopped)
    status, _, said = run("train", "hospitals", "--out", tmp_path / "family")
    assert status == 130
    assert "nothing holds but what the ledger says" in " ".join(said.split())
