"""The bank gives evidence of a class with no row read, equals a fresh measurement, and is not asked once anything changed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedunlearn.data import SiteData
from fedunlearn.errors import InputError
from fedunlearn.evaluation import Gate
from fedunlearn.importance import Importance, measure, pool
from fedunlearn.lineage import Request, discover
from fedunlearn.methods import FIUn
from fedunlearn.nets import load
from fedunlearn.runtime import Family, InProcess, Split, bank, seal, unlearn
from fedunlearn.runtime.place.examine import examine
from fedunlearn.runtime.place.mirror import part
from fedunlearn.runtime.roll import Roll
from fedunlearn.runtime.rounds import measure as round1
from fedunlearn.runtime.tasks import Evaluate, Evaluated
from fedunlearn.scenario import grown, workers_here
from fedunlearn.scenario.train_afar import extend_afar
from fedunlearn.store import Bank, Banked, Store
from tests.conftest import LEAVE
from tests.scenario.elsewhere import afar, elsewhere, in_process

BackendOf = Callable[[Family], InProcess]


class Sealed(SiteData):
    """Data whose training rows nobody may read."""

    def training(self, shard: str, classes: object = None) -> object:  # type: ignore[override]
        pytest.fail("training rows were read")

    def selected(self, shard: str, selection: object) -> object:  # type: ignore[override]
        pytest.fail("forgotten rows were read")


def test_a_class_request_reads_no_row_for_evidence_and_comes_out_the_same(
    family: Family, backend_of: BackendOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the candidate does to rows is still looked at."""

    def looked_at(task: Evaluate, data: SiteData, *more: Any) -> Evaluated:
        return examine(task, SiteData(data.site, data.shards, data.held_out, data.excluded), *more)

    monkeypatch.setattr("fedunlearn.runtime.place.worker.examine", looked_at)
    backend = backend_of(family)
    plan = discover(family.lineage, LEAVE)
    fresh = round1(family, plan, FIUn(), backend, Roll(family.places))
    assert fresh.read > 0
    assert bank(family, backend) > 0
    assert bank(family, backend) == 0
    own = round1(family, plan, FIUn(), backend, Roll(family.places))
    assert own.read == 0
    for point, importance in fresh.points.items():
        banked = own.points[point]
        assert banked.count == importance.count
        for name, tensor in importance.sums["squares"].items():
            assert torch.allclose(banked.sums["squares"][name], tensor, rtol=1e-5, atol=1e-12)
    for name, weighed in fresh.own.items():
        assert all(torch.allclose(own.own[name].means[n], t, rtol=1e-5, atol=1e-12) for n, t in weighed.means.items())
    for place, worker in backend.workers.items():
        sealed = Sealed(worker.data.site, worker.data.shards, worker.data.held_out, worker.data.excluded)
        backend.workers[place] = replace(worker, data=sealed)
    record = unlearn(family, LEAVE, "fiun", backend)
    assert record.cost["rows_read"] == 0
    assert record.accepted


def test_forgotten_and_retained_add_up_to_all(family: Family, backend_of: BackendOf) -> None:
    """In the bank's own numbers: all - forget = retain to 1e-10, and each equals a fresh measurement."""
    backend = backend_of(family)
    bank(family, backend)
    worker, version = backend.workers["north"], family.store("server").read(family.heads["shared"])
    held = Bank(worker.store.folder).read(worker._what(version.name, "main", "squares"))
    assert held is not None
    rows = worker.data.all("main")
    net = load(worker.make_net(10, ""), version.weights)
    parts = {c: Importance({"squares": b.sums}, b.count) for c, b in held.items()}
    everything, forget = pool([parts[c] for c in sorted(parts)]), parts["0"]
    retain = pool([parts[c] for c in sorted(parts) if c != "0"])
    rest, kept = everything - forget, rows.without(["0"])
    fresh = measure(net, kept.x, kept.y, head=version.head)
    assert rest.count == retain.count == fresh.count
    for name, tensor in rest.sums["squares"].items():
        assert float((tensor - retain.sums["squares"][name]).norm()) <= 1e-10 * float(tensor.norm())
        assert float((tensor - fresh.sums["squares"][name]).norm()) <= 1e-5 * float(tensor.norm())


def test_what_was_banked_for_other_weights_is_not_asked(family: Family, backend_of: BackendOf) -> None:
    backend = backend_of(family)
    bank(family, backend)
    unlearn(family, LEAVE, "fiun", backend)
    record = unlearn(family, Request(classes=("5",)), "fiun", backend)
    assert record.cost["rows_read"] > 0
    assert bank(family, backend) > 0


def test_single_samples_and_excluded_parts_of_a_class_are_measured_fresh(family: Family, backend_of: BackendOf) -> None:
    backend = backend_of(family)
    key = backend.workers["east"].data.shards["main"].keys[3]
    bank(family, backend)
    plan = discover(family.lineage, Request(samples=(f"east/main/{key}",)))
    assert round1(family, plan, FIUn(), backend, Roll(family.places)).read > 0


def test_a_damaged_bank_is_found(tmp_path: Path) -> None:
    bank_, what = Bank(tmp_path), {"version": "v", "shard": "n/main"}
    bank_.write(what, {"a": Banked({"w": torch.ones(2, dtype=torch.float64)}, 3)})
    found = bank_.read(what)
    assert found is not None
    assert found["a"].count == 3
    assert found["a"].sums["w"].tolist() == [1.0, 1.0]
    assert bank_.read({"version": "w"}) is None
    (path,) = (tmp_path / "bank").iterdir()
    path.write_bytes(path.read_bytes()[:-3] + b"xyz")
    with pytest.raises(InputError, match=r"not a bank of importances .*; delete it and run `fedunlearn bank` again"):
        bank_.read(what)


def test_sealing_erases_what_a_site_that_joined_since_has_banked(tmp_path: Path) -> None:
    """A request for a class means everybody's rows of it, also at a site that had none in the family yet."""
    scenario = elsewhere({"shared": {"born": "federated", "clients": ["north", "south"]}})
    more = {"models": {"later": {"born": "incremental", "from": "shared", "site": "east"}}}
    whole = grown(scenario, more, "more.yaml")[0]
    away = in_process(whole, tmp_path / "sites")
    family = afar(scenario, tmp_path / "family", away)
    both = Split(workers_here(scenario, family), away, family.id)
    unlearn(family, Request(classes=("5",)), "logit_mask", both, Gate(score_at_roots=True), accept_untested="a test")
    family = extend_afar(Family.open(family.folder), more, "more.yaml", away)
    both = Split(workers_here(whole, family), away, family.id)
    bank(family, both)
    held = Bank(part(Store(tmp_path / "sites" / "east"), family.id).folder)

    def classes() -> set[str]:
        return {c for path in held.paths() for c in held.open(path)[1]}

    assert "5" in classes()
    seal(Family.open(family.folder), both)
    assert "5" not in classes()
