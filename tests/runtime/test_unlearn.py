"""The one path on a real family: what is committed, what is held back, and that nothing else moves."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedunlearn.data import MIRROR
from fedunlearn.errors import ExcludedError, InputError, SiteError
from fedunlearn.evaluation import Gate
from fedunlearn.importance import Importance, measure, pool
from fedunlearn.lineage import Request, discover
from fedunlearn.methods import Case, Evidence, FIUn, Method
from fedunlearn.methods.base import Strength
from fedunlearn.nets import load
from fedunlearn.runtime import Family, InProcess, Record, Reference, rollback, settle, unlearn
from fedunlearn.runtime.roll import Roll
from fedunlearn.runtime.rounds import measure as round1
from fedunlearn.runtime.tasks import Answer, Applied, Measured, Scored, Task
from fedunlearn.scenario import Scenario, open_site_data, reference, workers
from fedunlearn.tensors import Tensors, equal
from fedunlearn.training import Portion, Recipe, incremental
from tests.conftest import LEAVE, NORTH, snapshot

BackendOf = Callable[[Family], InProcess]


def retrained(family: Family, scenario: Scenario, request: Request) -> Reference:
    twin = reference(family, scenario, request)
    return Reference.of(twin, discover(family.lineage, request), InProcess(workers(scenario, twin)))


def by_name(record: Record) -> dict[str, dict[str, object]]:
    return {m["name"]: m for m in record.facts["models"]}


@pytest.fixture
def done(family: Family, hospitals: Scenario, backend_of: BackendOf) -> Record:
    return unlearn(family, LEAVE, "fiun", backend_of(family), retrained=retrained(family, hospitals, LEAVE))


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


def test_old_versions_stay_and_rollback_brings_them_back_byte_for_byte(
    trained: Path, done: Record, family: Family, backend_of: BackendOf
) -> None:
    old = Family.open(trained)
    assert family.heads != old.heads
    rollback(family, backend_of(family), lift_exclusion=False)
    assert Family.open(family.folder).heads == old.heads
    for model, version in old.heads.items():
        home = family.lineage[model].home
        assert equal(family.store(home).read(version).weights, old.store(home).read(version).weights)
    before, after = snapshot(trained / "homes"), snapshot(family.folder / "homes")
    assert all(after[name] == data for name, data in before.items() if "packs" in name or "versions" in name)
    with pytest.raises(InputError, match="nothing to roll back"):
        rollback(family, backend_of(family), lift_exclusion=False)


def test_rollback_refuses_a_damaged_version_and_changes_nothing(done: Record, family: Family, backend_of: BackendOf) -> None:
    for path in (family.folder / "homes" / "server" / "packs").iterdir():
        path.write_bytes(path.read_bytes()[:-8] + b"\0" * 8)
    before = snapshot(family.folder)
    with pytest.raises(InputError, match=r"server: .*restore it from a backup"):
        rollback(family, backend_of(family), lift_exclusion=True)
    assert snapshot(family.folder) == before


def site_training(scenario: Scenario, family: Family, site: str) -> set[str]:
    return set(open_site_data(scenario, family.folder / "homes")[site].training("main").labels)


def test_a_committed_request_excludes_its_data_until_a_rollback_lifts_it(
    done: Record, family: Family, hospitals: Scenario, backend_of: BackendOf
) -> None:
    assert all("0" not in site_training(hospitals, family, s) for s in ("north", "south"))
    held = open_site_data(hospitals, family.folder / "homes")["north"]
    stubborn = Portion("north", "main", held.all("main"), held.exclusions)
    backend = backend_of(family)
    net, weights = backend.workers["north"].make_net(10, ""), family.store("server").read(family.heads["shared"]).weights
    recipe = Recipe("again", "north", ("shared",), held.all("main").classes, 1, 0.1, 32, 0)
    with pytest.raises(ExcludedError, match=f"training on .* excluded rows .* request {LEAVE.id}"):
        incremental(recipe, lambda: net, weights, [stubborn])
    rollback(family, backend, lift_exclusion=True)
    assert "0" in site_training(hospitals, family, "north")


def test_a_rollback_may_keep_the_exclusion(done: Record, family: Family, hospitals: Scenario, backend_of: BackendOf) -> None:
    rollback(family, backend_of(family), lift_exclusion=False)
    assert "0" not in site_training(hospitals, family, "north")


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
    accepted = unlearn(family, NORTH, "fiun", backend_of(family), accept_untested="no time to retrain", reason="case 7")
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
    family.write_lineage(replace(lineage, models=tuple(shared if m.name == "shared" else m for m in lineage.models)))
    opened, before = Family.open(family.folder), snapshot(family.folder / "homes")
    heads = dict(opened.heads)
    assert unlearn(opened, Request(classes=("none",)), "fiun", backend_of(opened)).nothing
    assert Family.open(family.folder).heads == heads
    after = snapshot(family.folder / "homes")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert {Path(name).name for name in changed} == {MIRROR}


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


def test_a_sample_that_its_site_does_not_hold_is_refused(family: Family, backend_of: BackendOf) -> None:
    before = snapshot(family.folder)
    with pytest.raises(InputError, match="unknown sample 'east/main/99999'"):
        unlearn(family, Request(samples=("east/main/99999",)), "fiun", backend_of(family))
    assert snapshot(family.folder) == before


class Broken(InProcess):
    """Answers what a test says instead of the truth."""

    def __init__(self, backend: InProcess, lie: Callable[[Task, Answer], Answer]) -> None:
        super().__init__(backend.workers)
        self.lie = lie

    def carry(self, tasks: Sequence[Task]) -> list[Answer]:
        return [self.lie(t, a) for t, a in zip(tasks, super().carry(tasks), strict=True)]


def other_version(task: Task, answer: Answer) -> Answer:
    return replace(answer, version="f" * 64) if isinstance(answer, Measured) and task.place == "north" else answer


def other_shape(task: Task, answer: Answer) -> Answer:
    if not isinstance(answer, Measured) or task.place != "north":
        return answer
    sums = {s: {n: t[:1] for n, t in ts.items()} for s, ts in answer.importance.sums.items()}
    return replace(answer, importance=Importance(sums, answer.importance.count))


def nothing_measured(task: Task, answer: Answer) -> Answer:
    return replace(answer, importance=replace(answer.importance, count=0)) if isinstance(answer, Measured) else answer


def other_kind(task: Task, answer: Answer) -> Answer:
    return Measured("", Importance({}, 0), 0) if isinstance(answer, Scored) else answer


def other_base(task: Task, answer: Answer) -> Answer:
    return replace(answer, base="e" * 64) if isinstance(answer, Applied) else answer


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (other_version, "north/main: answered for version ffffffffffff, asked was"),
        (other_shape, "north/main: sent importances of .* with shapes that are not the model's"),
        (nothing_measured, "no row of what is to be forgotten is left in .*; it cannot be measured any more"),
        (other_kind, "nothing was changed; .* did not answer with Scored"),
        (other_base, "edited version eeeeeeeeeeee of shared"),
    ],
)
def test_answers_are_untrusted(
    family: Family, backend_of: BackendOf, lie: Callable[[Task, Answer], Answer], message: str
) -> None:
    heads, lines = dict(family.heads), len(family.ledger.lines)
    with pytest.raises(SiteError, match=message):
        unlearn(family, LEAVE, "fiun", Broken(backend_of(family), lie))
    assert Family.open(family.folder).heads == heads
    assert len(Family.open(family.folder).ledger.lines) == lines


def test_one_error_names_every_site_that_failed_and_nothing_moves(family: Family, backend_of: BackendOf) -> None:
    backend = backend_of(family)
    for site in ("north", "south"):
        worker = backend.workers[site]
        poisoned = replace(worker.data.shards["main"], x=worker.data.shards["main"].x.clone())
        poisoned.x[:] = 3e38  # finite, but no sum of two of them is
        backend.workers[site] = replace(worker, data=replace(worker.data, shards={"main": poisoned}))
    before = snapshot(family.folder)
    with pytest.raises(SiteError, match=r"nothing was changed; 2 of \d places failed: north, south: .*NaN or infinite"):
        unlearn(family, LEAVE, "fiun", backend)
    assert snapshot(family.folder) == before


class Greedy(Method):
    name = "greedy"
    needs = frozenset({"forget data at the heir"})

    def merge(self, evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
        return ()

    def misses(self, case: Case) -> str | None:
        return None

    def strengths(self, case: Case, most: int) -> Sequence[Strength]:
        return [{}]

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
        return dict(weights)


def test_a_backend_that_cannot_grant_a_need_refuses(family: Family, backend_of: BackendOf) -> None:
    with pytest.raises(InputError, match="method greedy needs forget data at the heir, which no deployment grants"):
        unlearn(family, LEAVE, Greedy(), backend_of(family))


def test_layers_that_nobody_has_are_refused(family: Family, backend_of: BackendOf) -> None:
    with pytest.raises(InputError, match="unknown layer or parameter 'heed'; did you mean 'head'"):
        unlearn(family, LEAVE, FIUn(layers="heed"), backend_of(family))


def test_a_crash_after_the_ledger_line_is_finished_by_settling(
    family: Family, hospitals: Scenario, backend_of: BackendOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedunlearn.runtime.coordinator.settle", crash)
    with pytest.raises(KeyboardInterrupt):
        unlearn(family, LEAVE, "fiun", backend_of(family))
    again = Family.open(family.folder)
    assert again.ledger.lines[-1].kind == "unlearned"
    assert "0" in site_training(hospitals, again, "north")
    settle(again, backend_of(again))
    assert "0" not in site_training(hospitals, again, "north")
    settled = snapshot(family.folder)
    settle(again, backend_of(again))
    assert snapshot(family.folder) == settled


def test_a_place_that_cannot_settle_is_named_and_the_commit_stands(family: Family, backend_of: BackendOf) -> None:
    backend = backend_of(family)
    del backend.workers["west"]
    before = snapshot(family.folder)
    with pytest.raises(SiteError, match=r"nothing was changed; 1 of \d places failed: west: unknown place 'west'"):
        unlearn(family, LEAVE, "fiun", backend)
    assert snapshot(family.folder) == before
    with pytest.raises(
        SiteError, match=r"committed \(ledger line 0\), but not yet everywhere; run `fedunlearn settle`; .*west"
    ):
        settle(family, backend)


def test_a_rollback_lifts_only_the_exclusion_of_what_it_undoes(
    family: Family, hospitals: Scenario, backend_of: BackendOf
) -> None:
    for request in (LEAVE, Request(classes=("1",)), LEAVE):
        unlearn(family, request, "logit_mask", backend_of(family))
    assert not {"0", "1"} & site_training(hospitals, family, "north")
    rollback(family, backend_of(family), lift_exclusion=True)  # the second time class 0 was asked for: the first stands
    assert not {"0", "1"} & site_training(hospitals, family, "north")
    rollback(family, backend_of(family), lift_exclusion=True)
    assert {"0", "1"} & site_training(hospitals, family, "north") == {"1"}


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


def test_a_version_that_cannot_be_read_is_never_committed(family: Family, backend_of: BackendOf) -> None:
    unlearn(family, LEAVE, "fiun", backend_of(family))
    rollback(family, backend_of(family), lift_exclusion=True)
    for home in ("server", "east", "west"):
        for path in sorted((family.folder / "homes" / home / "packs").iterdir(), key=lambda p: p.stat().st_mtime_ns)[-1:]:
            path.write_bytes(path.read_bytes()[:50])
    again = Family.open(family.folder)
    record = unlearn(again, LEAVE, "fiun", backend_of(again))
    for m in record.facts["models"]:
        again.store(str(m["home"])).read(str(m["version_after"]))


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


def inflated(task: Task, answer: Answer) -> Answer:
    if not isinstance(answer, Measured):
        return answer
    return replace(answer, importance=replace(answer.importance, count=answer.importance.count * 9))


def test_a_site_cannot_count_rows_that_nobody_trained_on(family: Family, backend_of: BackendOf) -> None:
    with pytest.raises(SiteError, match=r"sent a sum over \d+ rows; models were trained on \d+ there"):
        unlearn(family, LEAVE, "fiun", Broken(backend_of(family), inflated))


def test_a_lost_or_damaged_mirror_is_seen_and_written_anew(
    done: Record, family: Family, hospitals: Scenario, backend_of: BackendOf
) -> None:
    (family.folder / "homes" / "north" / "place.json").write_text("{")
    with pytest.raises(InputError, match="not a mirror of the ledger"):
        site_training(hospitals, family, "north")
    settle(family, backend_of(family))
    assert "0" not in site_training(hospitals, family, "north")


def test_wrong_input_is_found_before_a_reference_is_trained(family: Family, backend_of: BackendOf) -> None:
    def never() -> Reference:
        pytest.fail("the reference was asked for")

    for request, method in ((LEAVE, FIUn(layers="heed")), (Request(samples=("east/main/x",)), FIUn())):
        with pytest.raises(InputError):
            unlearn(family, request, method, backend_of(family), retrained=never)


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
