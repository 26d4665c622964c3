"""Evaluating afterwards: only what is missing is taken, and what was found is kept as the format says."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from filelock import FileLock

from fedunlearn.errors import InputError, SiteError, StoreError
from fedunlearn.evaluation import costs
from fedunlearn.lineage import Heir, Request
from fedunlearn.methods import make
from fedunlearn.plain import digest
from fedunlearn.report import document, page
from fedunlearn.runtime import Family, behind, fsck, rollback, unlearn
from fedunlearn.runtime.books.evaluations import file_of, named
from fedunlearn.runtime.books.records import record_of
from fedunlearn.runtime.settle import witness
from fedunlearn.runtime.tasks import Answer, Audit, Evaluate, Evaluated, Failure, Task
from fedunlearn.scenario import assess, assessed, line_of, of_family, train, workers
from fedunlearn.scenario.assess import _rounds
from fedunlearn.scenario.files import parse
from fedunlearn.store import Ledger
from fedunlearn.store.ledger import LOCK_SECONDS
from tests.runtime.test_evaluating import SINGLE, ZERO
from tests.scenario.elsewhere import Counting

TWO = {**SINGLE, "models": {**SINGLE["models"], "two": {"born": "incremental", "from": ["one"], "site": "south", "epochs": 1}}}  # type: ignore[dict-item]


def unlearned(plain: dict[str, Any], folder: Path) -> tuple[Family, Counting]:
    scenario = parse(plain, "here")
    family = train(scenario, folder)
    backend = Counting(workers(scenario, family))
    unlearn(family, ZERO, "logit_mask", backend)
    backend.carried.clear()
    return family, backend


def tiers(backend: Counting) -> list[str]:
    """Of what homes were asked to evaluate."""
    return [t.tier for tasks in backend.carried for t in tasks if isinstance(t, Evaluate)]


def test_many_homes_in_one_process_are_kept_a_few_at_a_time() -> None:
    heirs = [Heir(f"m{i}", f"site-{i % 20}", "absent", ("0",), *[()] * 5, True, True) for i in range(40)]
    some = list(_rounds("full", heirs, 8))
    assert sorted(h.name for of in some for h in of) == sorted(h.name for h in heirs)
    assert max(map(len, some)) == 8
    assert all(len({h.home for h in of}) == len(of) for of in some)
    assert [len(of) for of in _rounds("full", heirs, 40)] == [20, 20]
    assert [len(of) for of in _rounds("quick", heirs, 8)] == [40]


def left_out_of_the_rest(backend: Counting) -> set[tuple[str, ...]]:
    """By what homes were asked to evaluate."""
    return {t.question.gone for tasks in backend.carried for t in tasks if isinstance(t, Evaluate)}


def test_only_what_is_missing_is_taken_and_kept(tmp_path: Path) -> None:
    family, backend = unlearned(SINGLE, tmp_path / "family")
    line = family.ledger.lines[-1]
    assert assessed(family, line) == {}
    said: list[str] = []
    quick = assess(family, line, "quick", backend, retrained=False)
    assert quick["one"]["quick"]["nets"] == ["before", "after", "mask"]
    found = assess(family, line, "full", backend, progress=said.append)
    assert tiers(backend) == ["quick", "quick", "full"]
    assert "full: one (0 of 1 models done)" in said
    assert found["one"]["quick"]["nets"] == ["before", "after", "mask", "retrained"]
    (row,) = record_of(family, line).facts["models"]
    for tier in ("quick", "full"):
        of = found["one"][tier]
        assert of["metrics"].keys() | of["not_measurable"].keys() == costs(tier).keys()
        assert (of["version_before"], of["version_after"]) == (row["version_before"], row["version_after"])
    assert found["one"]["full"]["metrics"]["probe"]["after"]["recovery"]["value"] > 0.6
    assert found["one"]["quick"]["metrics"]["accuracy"]["after"]["forgotten_training"]["n"] > 9  # though it is excluded by now
    told = [x for x in family.ledger.lines if x.kind == "evaluated"]
    assert [sorted(x.body["results"]["one"]) for x in told] == [["quick"], ["quick"], ["full"]]  # the first had no reference
    assert {x.body["evaluates"] for x in told} == {line.number}
    kept = {p.stem: json.loads(p.read_text()) for p in (family.folder / "evaluations").iterdir()}
    assert kept.keys() == {h for x in told for h in x.body["results"]["one"].values()}  # nothing that was found is dropped
    assert all(name == digest(plain) and plain["line"] == line.hash for name, plain in kept.items())
    assert {t: kept[x.body["results"]["one"][t]]["result"] for x in told for t in x.body["results"]["one"]} == found["one"]
    assert behind(family) == ()

    backend.carried.clear()
    rollback(family, backend, lift_exclusion=True)
    unlearn(family, ZERO, "fiun", backend)
    backend.carried.clear()
    for tier in ("quick", "full"):
        assert assess(family, line, tier, backend) == found == assessed(family, line)
    assert backend.carried == []
    assert len([x for x in family.ledger.lines if x.kind == "evaluated"]) == 3
    several = assess(family, line, "quick", backend, seeds=2)
    assert several["one"]["quick"]["metrics"]["tow"]["retrained_to_retrained"]["pairs"] == 1
    assert several["one"]["full"] == found["one"]["full"]
    assert tiers(backend) == ["quick"]
    assert assessed(family, family.ledger.lines[-1]) == {}


def test_what_was_forgotten_later_is_no_part_of_an_earlier_comparison(tmp_path: Path) -> None:
    """Retrained models that lack a class forgotten since are not compared on it, and it is told; one kept from then is used."""
    family, backend = unlearned(TWO, tmp_path / "family")
    line = family.ledger.lines[-1]
    soon = Family.open(Path(shutil.copytree(family.folder, tmp_path / "soon")))
    held = Counting(workers(of_family(soon), soon))
    by_then = assess(soon, soon.ledger.lines[line.number], "quick", held)
    for each, carrier in ((family, backend), (soon, held)):
        unlearn(each, Request(("1",), id="later"), "logit_mask", carrier)
    for file in (soon.folder / "evaluations").iterdir():  # so that it is taken anew, beside what was retrained then
        file.unlink()
    held.carried.clear()
    assess(soon, soon.ledger.lines[line.number], "quick", held)
    assert left_out_of_the_rest(held) == {()}
    assert "lacking" not in soon.ledger.lines[-1].body
    assert len(list((soon.folder / "reference").iterdir())) == 1
    assess(soon, soon.ledger.lines[line.number], "quick", held, seeds=2)  # of the other seed none is kept from then
    assert soon.ledger.lines[-1].body["lacking"] == ["class 1 (later)"]
    without = [Family(twin).ledger.lines[0].body["without"] for twin in (soon.folder / "reference").iterdir()]
    assert sorted(map(len, without)) == [1, 2, 2]
    backend.carried.clear()
    later = assess(family, line, "quick", backend)
    assert left_out_of_the_rest(backend) == {("1",)}
    assert family.ledger.lines[-1].body["lacking"] == ["class 1 (later)"]
    assert later.keys() == by_then.keys()
    plain = document(family, line, later)
    said = {x["about"]: x["text"] for x in plain["limits"]}
    assert "class 1 (later) (ledger line 3)" in said["Compared with models that know less"]
    assert "that was excluded since: class 1 (later)" in page(plain)


@pytest.mark.slow
def test_the_audit_trains_its_pools_once_and_edits_them_as_the_heir_was(tmp_path: Path) -> None:
    family, backend = unlearned(SINGLE, tmp_path / "family")
    first = assess(family, family.ledger.lines[-1], "audit", backend)["one"]["audit"]
    assert first["not_measurable"] == {}
    found = first["metrics"]["ulira"]
    assert (found["attack"], found["shadows"]) == ("U-LiRA", 16)
    pools = {p: p.stat().st_mtime_ns for p in (family.folder / "homes" / "north" / "shadows").rglob("*.safetensors")}
    assert len(pools) == 32
    rollback(family, backend, lift_exclusion=True)
    unlearn(family, ZERO, "fiun", backend)
    second = assess(family, family.ledger.lines[-1], "audit", backend)["one"]["audit"]
    assert second["metrics"]["ulira"]["before"] == found["before"]
    assert second["metrics"]["ulira"]["after"] != found["after"]
    assert pools == {p: p.stat().st_mtime_ns for p in (family.folder / "homes" / "north" / "shadows").rglob("*.safetensors")}


def test_the_audit_names_the_code_of_a_method_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from fedunlearn.methods.logit_mask import LogitMask\n\nclass Mine(LogitMask):\n    name = 'mine'\n"
    (tmp_path / "mine_of_assess.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    method = make("mine_of_assess:Mine")
    scenario = parse(SINGLE, "here")
    family = train(scenario, tmp_path / "family")
    backend = Counting(workers(scenario, family))
    record = unlearn(family, ZERO, method, backend)
    asked: list[Audit] = []

    def instead(task: Task, *_: object) -> Evaluated:
        assert isinstance(task, Evaluate)
        if task.audit is not None:
            asked.append(task.audit)
        nothing = {"tier": task.tier, "nets": ["before", "after"], "rows": {}, "metrics": {}, "seconds": {}}
        return Evaluated(task.before, task.after, {**nothing, "not_measurable": dict.fromkeys(costs(task.tier), "not taken")})

    monkeypatch.setattr("fedunlearn.runtime.place.worker.examine", instead)
    assess(family, family.ledger.lines[-1], "audit", backend, retrained=False)
    (audit,) = asked
    code = {"class": audit.method, "text": audit.text}
    assert code == record.facts["code"] == {"class": "mine_of_assess:Mine", "text": blake3(text.encode()).hexdigest()}


def test_what_some_homes_found_is_kept_when_another_refuses(tmp_path: Path) -> None:
    family, backend = unlearned(TWO, tmp_path / "family")
    line = family.ledger.lines[-1]

    def refuse(task: Task, answer: Answer) -> Answer:
        return Failure("south", "not today") if task.place == "south" and isinstance(answer, Evaluated) else answer

    backend.alter = refuse
    with pytest.raises(SiteError, match="what was found is kept; 1 of 2 places failed: south: not today"):
        assess(family, line, "quick", backend)
    assert assessed(family, line).keys() == {"one"}
    backend.alter = lambda _, answer: answer
    backend.carried.clear()
    assert assess(family, line, "quick", backend).keys() == {"one", "two"}
    assert [t.place for tasks in backend.carried for t in tasks if isinstance(t, Evaluate)] == ["south"]


def test_nobody_else_changes_the_family_meanwhile(tmp_path: Path) -> None:
    """References are trained, and what is found is written."""
    family, backend = unlearned(SINGLE, tmp_path / "family")
    lock = FileLock(f"{family.ledger.path}.lock", timeout=LOCK_SECONDS, is_singleton=True)  # the very one
    held: list[bool] = []

    def watched(_: Task, answer: Answer) -> Answer:
        held.append(lock.is_locked)
        return answer

    backend.alter = watched
    assess(family, family.ledger.lines[-1], "quick", backend)
    assert held
    assert all(held)
    assert not lock.is_locked


def test_a_case_is_reported_by_its_line_in_force(tmp_path: Path) -> None:
    family, backend = unlearned(SINGLE, tmp_path / "family")
    first = family.ledger.lines[-1]
    rollback(family, backend, lift_exclusion=True)
    assert line_of(family, ZERO.id) == first  # none is: the newest tells
    unlearn(family, ZERO, make("steer", {"factor": 0}), backend)
    refused = family.ledger.lines[-1]
    unlearn(family, ZERO, "logit_mask", backend)
    applied = family.ledger.lines[-1]
    assert line_of(family, ZERO.id) == applied
    rollback(family, backend, lift_exclusion=False)
    assert line_of(family, ZERO.id) == refused
    assert [line_of(family, number=line.number) for line in (first, refused, applied)] == [first, refused, applied]
    with pytest.raises(InputError, match=r"--line 0: is no unlearning of .*; those are lines 1, 3, 4"):
        line_of(family, number=0)
    with pytest.raises(InputError, match="--request case with --line 1: give one of both"):
        line_of(family, "case", 1)


def test_wrong_words_and_damaged_files_are_named(tmp_path: Path) -> None:
    family, backend = unlearned(SINGLE, tmp_path / "family")
    trained, line = family.ledger.lines
    with pytest.raises(InputError, match="unknown tier 'ful'; did you mean 'full'"):
        assess(family, line, "ful", backend)
    with pytest.raises(InputError, match="seeds: 0 retrained families, expected one or more"):
        assess(family, line, "quick", backend, seeds=0)
    with pytest.raises(InputError, match="ledger line 0: is 'trained'; only what an unlearning edited"):
        assess(family, trained, "quick", backend)


def test_a_result_that_was_changed_or_is_gone_is_damage_and_is_not_used(tmp_path: Path) -> None:
    family, backend = unlearned(TWO, tmp_path / "family")
    line = family.ledger.lines[-1]
    found = assess(family, line, "quick", backend, retrained=False)
    assert not fsck(family.folder).damage
    path = file_of(family.folder, named(family.ledger, line.number)["one", "quick"])
    whole = path.read_bytes()
    forged = json.loads(whole)
    forged["result"]["metrics"]["accuracy"]["after"]["forgotten"]["value"] = 0.123
    other = file_of(family.folder, named(family.ledger, line.number)["two", "quick"]).read_bytes()
    for text in (b"{", b"[]", other, json.dumps(forged, indent=1).encode(), whole + b" "):
        path.write_bytes(text)
        assert assessed(family, line).keys() == {"two"}
        (damage,) = fsck(family.folder).damage
        assert f"{path}: not what ledger line {line.number + 1} says was found of one, tier quick" in damage
    path.unlink()
    assert len(fsck(family.folder).damage) == 1
    stray = file_of(family.folder, digest(forged))
    stray.write_text(json.dumps(forged, indent=1))
    assert "no ledger line names" in fsck(family.folder).orphans[stray]
    assert assessed(family, line) == {"two": found["two"]}
    path.write_bytes(whole)
    assert assessed(family, line) == found


def test_a_line_that_was_cut_off_again_is_missed(tmp_path: Path) -> None:
    """By places in the family's folder; a copy of it, evaluated, tells nothing to places elsewhere."""
    family, backend = unlearned(SINGLE, tmp_path / "family")
    assess(family, family.ledger.lines[-1], "quick", backend, retrained=False)
    shutil.rmtree(family.folder / "evaluations")
    family.ledger.path.write_bytes(b"".join(family.ledger.path.read_bytes().splitlines(keepends=True)[:-1]))
    assert any("lacks ledger lines that places have acknowledged" in words for words in fsck(family.folder).damage)
    with pytest.raises(StoreError, match="lacks ledger lines"):
        assess(Family.open(family.folder), Family.open(family.folder).ledger.lines[-1], "quick", backend, retrained=False)
    far = Family.open(Path(shutil.copytree(tmp_path / "family", tmp_path / "far")))
    for place in far.places:
        shutil.rmtree(far.store(place).folder)
    backend.carried.clear()
    witness(far, backend)
    assert not any(backend.carried)


def test_a_line_that_names_results_of_what_it_is_not_about_is_refused(tmp_path: Path) -> None:
    family, _ = unlearned(SINGLE, tmp_path / "family")
    line = family.ledger.lines[-1]
    for body, message in (
        ({"evaluates": 0, "request": "x", "results": {}}, "line 1 is no unlearning"),
        ({"evaluates": line.number, "request": "x", "results": {"else": {}}}, "'else' is not among the models of line 2"),
        ({"evaluates": line.number, "request": "x", "results": {"one": {"quick": "../x"}}}, "results.one.quick"),
    ):
        ledger = Ledger(family.ledger.path)
        ledger.append("evaluated", body)
        with pytest.raises(StoreError, match=message):
            Family.open(family.folder)
        family.ledger.path.write_bytes(b"".join(family.ledger.path.read_bytes().splitlines(keepends=True)[:-1]))
