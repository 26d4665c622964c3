"""Old versions come back as they were, an exclusion holds until it is lifted, and what was cut off is settled."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.errors import ExcludedError, InputError, SiteError
from fedunlearn.lineage import Request
from fedunlearn.methods import LogitMask
from fedunlearn.runtime import Family, InProcess, Record, rollback, settle, unlearn
from fedunlearn.scenario import Scenario, extend, of_family, open_site_data, reference, workers
from fedunlearn.tensors import equal
from fedunlearn.training import Portion, Recipe, incremental
from tests.conftest import LEAVE, snapshot
from tests.runtime.forgetting import BackendOf, done as done, site_training
from tests.runtime.test_merged import FREE


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


def test_a_committed_request_excludes_its_data_until_a_rollback_lifts_it(
    done: Record, family: Family, hospitals: Scenario, backend_of: BackendOf
) -> None:
    assert all("0" not in site_training(hospitals, family, s) for s in ("north", "south"))
    held = open_site_data(hospitals, family.folder)["north"]
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
    for request, method in ((LEAVE, "logit_mask"), (Request(classes=("1",)), "logit_mask"), (LEAVE, "fiun")):
        unlearn(family, request, method, backend_of(family), FREE)
    assert not {"0", "1"} & site_training(hospitals, family, "north")
    rollback(family, backend_of(family), lift_exclusion=True)  # the second time class 0 was asked for: the first stands
    assert not {"0", "1"} & site_training(hospitals, family, "north")
    rollback(family, backend_of(family), lift_exclusion=True)
    assert {"0", "1"} & site_training(hospitals, family, "north") == {"1"}


def test_a_lift_lifts_what_earlier_rollbacks_of_the_request_left(
    family: Family, hospitals: Scenario, backend_of: BackendOf
) -> None:
    for lifted in (False, True):
        unlearn(family, LEAVE, "logit_mask", backend_of(family))
        rollback(family, backend_of(family), lift_exclusion=lifted)
        assert ("0" in site_training(hospitals, family, "north")) == lifted


def test_rows_that_an_heir_was_not_trained_on_are_no_lie_once_they_may_be_used_again(
    family: Family, hospitals: Scenario, backend_of: BackendOf
) -> None:
    """A model born while three rows were excluded is weighed on all of its sites' rows, which other models have seen."""
    rows = open_site_data(hospitals, family.folder)["north"].all("main").keys[:3]
    unlearn(
        family,
        Request(samples=tuple(f"north/main/{key}" for key in rows)),
        "fiun",
        backend_of(family),
        accept_untested="a test",
    )
    more = {"born": "federated", "from": ["shared"], "clients": ["north", "south"], "epochs": 1, "home": "server"}
    family = extend(family, {"models": {"more": more}}, "more.yaml")
    rollback(family, InProcess(workers(of_family(family), family)), lift_exclusion=True)
    record = unlearn(family, LEAVE, "fiun", InProcess(workers(of_family(family), family)))
    assert "more" in {m["name"] for m in record.facts["models"]}


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


def test_a_lost_or_damaged_mirror_is_seen_and_written_anew(
    done: Record, family: Family, hospitals: Scenario, backend_of: BackendOf
) -> None:
    (family.folder / "homes" / "north" / "place.json").write_text("{")
    with pytest.raises(InputError, match="not a mirror of the ledger"):
        site_training(hospitals, family, "north")
    settle(family, backend_of(family))
    assert "0" not in site_training(hospitals, family, "north")


def test_a_reference_is_trained_on_nothing_that_is_excluded(family: Family, hospitals: Scenario, backend_of: BackendOf) -> None:
    """Rolled back with its exclusion kept, a request's data is no more trained on by a reference than by anybody else."""
    unlearn(family, LEAVE, "logit_mask", backend_of(family))
    rollback(family, backend_of(family), lift_exclusion=False)
    twin = reference(family, hospitals, Request(classes=("1",)))
    assert not {"0", "1"} & {c for model in twin.lineage.models for shard in model.data for c in shard.rows}
    later = Request(classes=("1",), id="again", received="2026-11-20")
    assert reference(family, hospitals, later).folder == twin.folder  # whatever it is called, and whenever it came


def test_a_rollback_that_names_its_request_undoes_no_other(family: Family, backend_of: BackendOf) -> None:
    """Asked for twice, as after an interruption."""
    first, second = (Request(classes=(c,), id=f"ticket-{c}") for c in "01")
    for request in (first, second):
        unlearn(family, request, "logit_mask", backend_of(family), FREE)
    rollback(family, backend_of(family), lift_exclusion=False, request="ticket-1")
    before = snapshot(family.folder)
    with pytest.raises(InputError, match=r"is for request ticket-0, not for 'ticket-1'; .* nothing was done"):
        rollback(family, backend_of(family), lift_exclusion=False, request="ticket-1")
    assert snapshot(family.folder) == before


def test_a_copys_workers_are_refused(family: Family, backend_of: BackendOf, tmp_path: Path) -> None:
    """They would edit the copy, and this family's ledger would say so of its own."""
    copy = Family.open(shutil.copytree(family.folder, tmp_path / "copy"))
    before = snapshot(family.folder), snapshot(copy.folder)
    with pytest.raises(InputError, match=r"backend: its worker for .* keeps models in .*copy.*, this family's are in "):
        unlearn(family, LEAVE, "logit_mask", backend_of(copy), FREE)
    assert (snapshot(family.folder), snapshot(copy.folder)) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"reason": Path("case")}, r"reason is .*Path\('case'\), expected words"),
        ({"accept_untested": True}, "accept_untested is True, expected words"),
        ({"accept_untested": ""}, "accept_untested is '', expected words"),
        ({"gate": {"forgotten_at_most": 0.1}}, "gate: expected a Gate, as a scenario's gate.gate is, found dict"),
        ({"method": LogitMask}, "method: expected a method or its name, found the class LogitMask"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_measured(
    words: dict[str, Any], says: str, family: Family, backend_of: BackendOf
) -> None:
    asked = {"method": "logit_mask", "gate": FREE} | words
    method, gate = asked.pop("method"), asked.pop("gate")
    said = list[str]()
    with pytest.raises(InputError, match=says):
        unlearn(family, LEAVE, method, backend_of(family), gate, progress=said.append, **asked)
    assert not said
