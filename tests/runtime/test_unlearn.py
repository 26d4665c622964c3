"""The one path on a real family: what is committed, what is held back, and that nothing else moves."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedunlearn.data import MIRROR
from fedunlearn.errors import InputError
from fedunlearn.evaluation import Gate
from fedunlearn.importance import measure, pool
from fedunlearn.lineage import Request, discover
from fedunlearn.methods import Case, FIUn, Method
from fedunlearn.methods.base import Strength
from fedunlearn.methods.fisher_mask import FisherMask
from fedunlearn.nets import load
from fedunlearn.runtime import Family, InProcess, Record, rollback, unlearn
from fedunlearn.runtime.coordinator import _told
from fedunlearn.runtime.roll import Roll
from fedunlearn.runtime.rounds import measure as round1
from fedunlearn.scenario import Scenario, reference, retrained as retrain, train, workers
from fedunlearn.tensors import Tensors
from tests.conftest import LEAVE, NORTH, snapshot
from tests.runtime.forgetting import BackendOf, by_name, done as done, retrained, site_training
from tests.scenario.digits import scenario


def test_every_heir_forgets_those_that_only_inherit_included(done: Record, family: Family) -> None:
    assert done.accepted
    absent = [m for m in done.facts["models"] if m["target"] == "absent"]
    assert {m["name"] for m in absent} == {"shared", "parallel", "eastern", "merged"}
    assert sorted(m["name"] for m in absent if not m["holds_class"]) == ["eastern", "merged", "parallel"]
    for m in absent:
        assert m["rows_forgotten"] >= 40
        assert m["forgotten_before"] >= 0.6
        assert m["forgotten_after"] <= 0.05
        assert m["retained_before"] - m["retained_after"] <= 0.05
        assert m["retrained_forgotten"] <= 0.05
        assert m["mask_retained"] is not None
    assert family.heads == {m["name"]: m["version_after"] for m in done.facts["models"]}


def test_the_same_request_gives_the_same_facts_hashes_included(
    done: Record, trained: Path, tmp_path: Path, hospitals: Scenario, backend_of: BackendOf
) -> None:
    twin = Family.open(Path(shutil.copytree(trained, tmp_path / "twin")))
    again = unlearn(twin, LEAVE, "fiun", backend_of(twin), retrained=retrained(twin, hospitals, LEAVE))
    assert again.facts == done.facts


def test_one_of_two_sites_is_judged_by_the_retrained_family(family: Family, hospitals: Scenario, backend_of: BackendOf) -> None:
    again = retrained(family, hospitals, NORTH)
    record = unlearn(family, NORTH, "fiun", backend_of(family), retrained=again)
    rows = by_name(record)
    for name in ("shared", "parallel", "eastern", "merged"):
        assert rows[name]["target"] == "as_retrained"
        assert rows[name]["retrained_forgotten"] == again.scored[name].test.forgotten
        assert again.scored[name].test.forgotten > 0.6  # type: ignore[operator]
    held = {o["model"] for o in record.facts["objections"]}
    for name, m in rows.items():
        if m["target"] == "as_retrained":
            gap = abs(float(m["forgotten_after"]) - float(m["retrained_forgotten"]))  # type: ignore[arg-type]
            assert (gap > 0.10) <= (name in held)
    assert "0" not in site_training(hospitals, family, "north")
    assert "0" in site_training(hospitals, family, "south")


@pytest.mark.parametrize("method", ["steer", "logit_mask", "fiun"])
def test_a_class_that_another_site_may_keep_is_part_of_the_rest(method: str, tmp_path: Path) -> None:
    """North is asked for two classes and has one of them: of the other, which is south's alone, nothing may be lost."""
    data = {"without": {"north": ["1"], "south": ["0"]}}
    shared = {"born": "federated", "clients": ["north", "south"], "rounds": 4, "home": "server"}
    plain = scenario({"shared": shared}, data=data)
    folder = train(plain, tmp_path / "whole").folder
    facts = []
    for classes in (("0", "1"), ("0",)):
        held = Family.open(Path(shutil.copytree(folder, tmp_path / "-".join(classes))))
        request = Request(classes=classes, sites=("north",))
        assert [h.classes for h in discover(held.lineage, request).heirs] == [("0",)]
        facts.append(by_name(unlearn(held, request, method, InProcess(workers(plain, held))))["shared"])
    both, one = facts
    assert both["version_after"] == one["version_after"]
    assert both["forgotten_by_class"].keys() == {"0"}  # type: ignore[attr-defined]
    assert both["retained_after"] == one["retained_after"]


@pytest.mark.parametrize("sites", [("north",), ("north", "south")])
def test_heirs_of_which_retraining_leaves_nothing_are_untested_and_the_others_judged(
    sites: tuple[str, ...], tmp_path: Path
) -> None:
    """A client without rows trains nothing, so that its own update is not in the retrained family."""
    shared = {"born": "federated", "clients": ["north", "south", "east"], "rounds": 1, "keep": "all", "home": "server"}
    plain = scenario({"shared": {**shared, "epochs": 1}}, gate={"score_at_roots": True})
    family = train(plain, tmp_path / "family")
    backend = InProcess(workers(plain, family))
    again = retrain(family, plain, Request(sites=sites), backend)
    record = unlearn(family, Request(sites=sites), "fiun", backend, plain.gate.gate, retrained=again)
    rows = by_name(record)
    assert rows.keys() == {"shared", *(f"shared/r1/{s}" for s in sites)}
    for site in sites:
        assert rows[f"shared/r1/{site}"]["retrained_forgotten"] is None
    assert rows["shared"]["retrained_forgotten"] is not None


def test_a_mask_is_no_answer_where_another_source_remains(family: Family, hospitals: Scenario, backend_of: BackendOf) -> None:
    record = unlearn(family, NORTH, "logit_mask", backend_of(family), retrained=retrained(family, hospitals, NORTH))
    texts = {o["model"]: o["text"] for o in record.facts["objections"]}
    assert "a retrained model recognises" in texts["shared"]
    assert "needs deeper layers" in texts["triage"]
    assert family.heads == Family.open(family.folder).ledger.heads(1)


def test_without_a_retrained_family_such_a_request_is_untested(family: Family, backend_of: BackendOf) -> None:
    heads = dict(family.heads)
    record = unlearn(family, NORTH, "fiun", backend_of(family))
    texts = [o["text"] for o in record.facts["objections"]]
    assert texts.count("not tested: there is no retrained model to compare with") == 4
    assert {n for n in heads if family.heads[n] != heads[n]} <= {"triage"}
    wide = Gate(retained_drop_at_most=0.15)  # nothing but the cost on few rows bounds such an edit
    accepted = unlearn(family, NORTH, "fiun", backend_of(family), wide, accept_untested="no time to retrain", reason="case 7")
    assert accepted.accepted
    line = family.ledger.lines[-1].body
    assert line["record"]["facts"]["accepted_untested"] == "no time to retrain"
    assert line["reason"] == "case 7"


def test_objections_hold_back_that_heir_alone_and_atomic_holds_back_all(
    trained: Path, tmp_path: Path, backend_of: BackendOf
) -> None:
    strict = Gate(forgotten_at_most=0.0, retained_drop_at_most=0.0)
    records = {}
    for atomic in (False, True):
        family = Family.open(Path(shutil.copytree(trained, tmp_path / str(atomic))))
        before = dict(family.heads)
        records[atomic] = unlearn(family, LEAVE, FIUn(alpha=0.0, lam=0.5), backend_of(family), strict, atomic=atomic)
        held = {m["name"] for m in records[atomic].facts["models"] if m["status"] == "pending"}
        assert {n for n in before if family.heads[n] == before[n]} == held
        for m in records[atomic].facts["models"]:
            assert m["version_after"] in family.store(m["home"]).versions()
    with pytest.raises(InputError, match="atomic with a quorum of 0: all heirs or none needs every place online"):
        unlearn(family, LEAVE, "fiun", backend_of(family), atomic=True, quorum=0)
    some = {o["model"] for o in records[False].facts["objections"]}
    assert len(some) > 0
    assert {o["model"] for o in records[True].facts["objections"]} == {"shared", "parallel", "eastern", "triage", "merged"}


def test_an_heir_that_shares_nothing_of_the_edited_layers_is_left_untouched_and_unresolved(
    family: Family, backend_of: BackendOf
) -> None:
    before = family.heads["triage"]
    record = unlearn(family, LEAVE, FIUn(layers="last"), backend_of(family))
    assert by_name(record)["triage"]["status"] == "untouched"
    assert not record.accepted
    texts = {o["model"]: o["text"] for o in record.facts["objections"]}
    assert texts["triage"].startswith("untouched: needs deeper layers")
    assert family.heads["triage"] == before
    assert by_name(record)["eastern"]["status"] == "committed"


def test_a_known_class_that_nobody_holds_changes_no_model(family: Family, backend_of: BackendOf) -> None:
    lineage = family.lineage
    head = (*lineage["shared"].head, "none")
    shared = replace(lineage["shared"], head=head)
    changed = replace(lineage, models=tuple(shared if m.name == "shared" else m for m in lineage.models))
    body = family.ledger.lines[0].body | {"lineage": family.write_lineage(changed)}
    family.ledger.append("trained", body)
    opened, before = Family.open(family.folder), snapshot(family.folder / "homes")
    heads = dict(opened.heads)
    assert unlearn(opened, Request(classes=("none",)), "fiun", backend_of(opened)).nothing
    assert Family.open(family.folder).heads == heads
    after = snapshot(family.folder / "homes")
    written = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert {Path(name).name for name in written} == {MIRROR}


def test_samples_are_measured_where_they_lie_and_untested_where_they_do_not(family: Family, backend_of: BackendOf) -> None:
    backend = backend_of(family)
    key = backend.workers["east"].data.shards["main"].keys[5]
    request = Request(samples=(f"east/main/{key}",))
    record = unlearn(family, request, "fiun", backend)
    rows = by_name(record)
    assert {m["target"] for m in rows.values()} <= {"as_retrained"}
    assert rows["eastern"]["rows_forgotten"] == 1
    assert rows["shared"]["forgotten_after"] is None
    assert {o["model"] for o in record.facts["objections"]} == set(rows)
    accepted = unlearn(family, request, "fiun", backend, accept_untested="one row")
    assert accepted.accepted
    worker = backend_of(family).workers["east"]
    assert key not in worker.data.training("main").keys
    assert key in worker.data.all("main").keys


def test_what_was_forgotten_before_is_no_part_of_the_rest(
    done: Record, family: Family, hospitals: Scenario, backend_of: BackendOf
) -> None:
    request = Request(classes=("8",))
    record = unlearn(family, request, "fiun", backend_of(family), accept_untested="the reference is not the point here")
    rows, before = by_name(record), by_name(done)
    assert int(str(rows["shared"]["rows_retained"])) < int(str(before["shared"]["rows_retained"]))
    assert float(str(rows["parallel"]["retained_before"])) > 0.9
    twin = reference(family, hospitals, request)
    assert not {"0", "8"} & {c for m in twin.lineage.models for s in m.data for c in s.rows}


def test_all_classes_and_a_site_that_is_excluded_for_good_are_answered(family: Family, backend_of: BackendOf) -> None:
    with pytest.raises(
        InputError, match=r"logit_mask: no heir can be edited: .*all its outputs would be masked; retire the model"
    ):
        unlearn(family, Request(classes=tuple("0123456789")), "logit_mask", backend_of(family))
    everything = Request(sites=("east", "west"))
    unlearn(family, everything, "fiun", backend_of(family), accept_untested="all of it goes")
    record = unlearn(family, LEAVE, "fiun", backend_of(family))
    texts = {o["model"]: o["text"] for o in record.facts["objections"]}
    assert texts["eastern"].startswith("untouched: cannot be weighed: every row of its own is excluded")
    assert by_name(record)["shared"]["status"] == "committed"


def test_strengths_are_chosen_on_calibration_rows_and_aims_come_from_them(
    family: Family, hospitals: Scenario, backend_of: BackendOf
) -> None:
    """Test rows that are wrong on purpose change the verdict, and nothing that is chosen."""
    right, wrong = backend_of(family), backend_of(family)
    for name, worker in wrong.workers.items():
        test = worker.data.held_out["test"]
        twisted = replace(test, y=test.y.flip(0))
        wrong.workers[name] = replace(worker, data=replace(worker.data, held_out={**worker.data.held_out, "test": twisted}))
    again = retrained(family, hospitals, NORTH)
    upside_down = {n: replace(s, test=replace(s.test, forgotten=0.0, by_class={"0": 0.0})) for n, s in again.scored.items()}
    records = []
    for backend, reference_ in ((right, again), (wrong, replace(again, scored=upside_down))):
        records.append(unlearn(family, NORTH, "fiun", backend, retrained=reference_))
        if records[-1].facts["objections"] != records[0].facts["objections"]:
            break
        rollback(family, right, lift_exclusion=True)
    one, two = (by_name(r) for r in records)
    assert {n: m["strength"] for n, m in one.items()} == {n: m["strength"] for n, m in two.items()}
    assert {n: m["forgotten_after"] for n, m in one.items()} != {n: m["forgotten_after"] for n, m in two.items()}


@pytest.mark.parametrize("kind", [FIUn, FisherMask])
@pytest.mark.parametrize("what", ["class", "site", "samples", "everything"])
def test_heirs_are_weighed_without_what_is_forgotten_where_a_method_says_so(
    what: str, kind: type[Method], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FisherMask scores against what is retained; FIUn against all that a model was trained on."""
    models = {"one": {"born": "federated", "clients": ["north", "south"], "rounds": 1, "home": "server"}}
    plain = scenario({**models, "two": {"born": "incremental", "from": ["one"], "site": "north", "epochs": 1}})
    family = train(plain, tmp_path / "family")
    held = workers(plain, family)
    north, south = (held[site].data.all("main") for site in ("north", "south"))
    request, left = {
        "class": (NORTH, len(north.without(["0"]))),
        "site": (Request(sites=("north",)), 0),
        "samples": (Request(samples=tuple(f"north/main/{k}" for k in north.keys[:30])), len(north) - 30),
        "everything": (Request(samples=tuple(f"north/main/{k}" for k in north.keys)), 0),
    }[what]
    seen = {}

    def edit(self: Method, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
        seen[len(seen)] = case.own.rows
        return dict(weights)

    monkeypatch.setattr(kind, "edit", edit)
    unlearn(family, request, kind(), InProcess(held), accept_untested="only rows are counted")
    whole = {len(north) + len(south), len(north)}  # of the federation, and of the increment
    assert set(seen.values()) == ({left + len(south), left or len(north)} if kind.retained else whole)


def test_the_own_importance_of_a_global_model_is_pooled_over_its_clients(family: Family, backend_of: BackendOf) -> None:
    backend = backend_of(family)
    plan = discover(family.lineage, LEAVE)
    found = round1(family, plan, FIUn(), backend, Roll(family.places))
    version = family.store("server").read(family.heads["shared"])
    net = load(backend.workers["server"].make_net(10, ""), version.weights)
    parts = []
    for site in ("east", "north", "south"):
        rows = backend.workers[site].data.all("main")
        parts.append(measure(net, rows.x, rows.y, head=version.head))
    expected = pool(parts).mean()
    assert all(torch.allclose(found.own["shared"].means[n], t, rtol=1e-6) for n, t in expected.items())


@pytest.mark.parametrize(("precision", "share"), [("float32", 2), ("bfloat16", 4)])
def test_evidence_may_travel_rounded_and_the_record_says_so(
    precision: str, share: int, family: Family, folder: Path, backend_of: BackendOf
) -> None:
    whole = unlearn(family, LEAVE, FIUn(layers="last"), backend_of(family), atomic=True, gate=Gate(retained_drop_at_most=0))
    record = unlearn(Family.open(folder), LEAVE, FIUn(layers="last"), backend_of(family), precision=precision)
    assert record.facts["precision"] == precision
    assert whole.facts["precision"] == "float64"
    assert share * record.cost["bytes_up"] == whole.cost["bytes_up"]
    versions = {m["name"]: m["version_after"] for m in whole.facts["models"]}
    assert any(m["version_after"] != versions[m["name"]] for m in record.facts["models"])
    forgotten = [m["forgotten_after"] for m in record.facts["models"] if m["target"] == "absent"]
    assert max(f for f in forgotten if f is not None) <= 0.05
    with pytest.raises(InputError, match="unknown precision 'float16'; did you mean 'bfloat16'"):
        unlearn(Family.open(folder), LEAVE, FIUn(layers="last"), backend_of(family), precision="float16")


def test_what_is_said_of_many_heirs_is_said_once() -> None:
    told = _told({**{f"head-{i}": "cannot be weighed" for i in range(9)}, "other": "waits for north to be online"})
    assert told == ("head-0, head-1, head-2, head-3, head-4 and 4 more cannot be weighed; other waits for north to be online")
