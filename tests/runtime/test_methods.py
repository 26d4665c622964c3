"""Methods on a real family: what they need is granted or refused, strengths are chosen within a budget, nothing collapses."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fedunlearn.data import Selection
from fedunlearn.errors import InputError, SiteError
from fedunlearn.evaluation import Gate
from fedunlearn.importance import measure
from fedunlearn.lineage import Request, discover
from fedunlearn.methods import METHODS, FIUn, Steer, make
from fedunlearn.methods.calibration import MOST
from fedunlearn.methods.steer import MARGIN
from fedunlearn.nets import load
from fedunlearn.runtime import Family, InProcess, Record, unlearn
from fedunlearn.runtime.merging import merge
from fedunlearn.runtime.roll import Roll
from fedunlearn.runtime.rounds import measure as round1
from fedunlearn.runtime.tasks import Answer, Apply, Lot, Measure, Measured, Task
from fedunlearn.scenario import Scenario, train, workers
from fedunlearn.scenario.files import parse
from tests.conftest import LEAVE, NORTH, snapshot
from tests.scenario.small import changed

BackendOf = Callable[[Family], InProcess]
HEIRS = ("shared", "parallel", "eastern", "merged")
BOTH = Request(classes=("0", "7"))


def by_name(record: Record) -> dict[str, dict[str, object]]:
    return {m["name"]: m for m in record.facts["models"]}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_to_the_gate_or_is_held_back_and_to_its_budget(
    name: str, family: Family, hospitals: Scenario
) -> None:
    gate = Gate()
    record = unlearn(family, LEAVE, name, InProcess(workers(hospitals, family), simulation=True), gate)
    held = {o["model"] for o in record.facts["objections"]}
    for m in record.facts["models"]:
        assert (m["status"] == "committed") == (m["name"] not in held)
        assert m["passes"] <= MOST
        assert len(m["curve"]) <= MOST
        if m["status"] == "committed":
            assert m["retained_before"] - m["retained_after"] <= gate.retained_drop_at_most
            assert m["target"] != "absent" or m["forgotten_after"] <= gate.forgotten_at_most


def bare(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), outputs, bias=False))


def test_a_head_without_a_bias_is_not_masked_and_keeps_no_other_from_it(tmp_path: Path) -> None:
    plain = changed("nets", {"bare": {"factory": f"{__name__}:bare"}})
    plain["models"]["other"] = {**plain["models"]["one"], "net": "bare"}
    scenario = parse(plain, "small.yaml")
    family = train(scenario, tmp_path / "family")
    record = unlearn(family, LEAVE, "logit_mask", InProcess(workers(scenario, family)))
    assert by_name(record)["one"]["status"] == "committed"
    assert by_name(record)["other"]["status"] == "untouched"
    assert {"model": "other", "text": "untouched: has no bias in its last layer '1' to mask with; other methods need none"} in (
        record.facts["objections"]
    )


@pytest.mark.parametrize("layers", ["last", "all"])
def test_edits_of_the_last_layer_are_tried_in_one_pass(layers: str, family: Family, backend_of: BackendOf) -> None:
    backend = backend_of(family)
    record = unlearn(family, LEAVE, FIUn(layers=layers), backend)
    for name in HEIRS:
        m = by_name(record)[name]
        assert m["passes"] == (1 if layers == "last" else len(m["curve"]))  # type: ignore[arg-type]
    held = {m.name: family.store(m.home).read(family.heads[m.name]).head.classes for m in family.lineage.models if m.kept}
    homes = {m.name: backend.workers[m.home].data.held_out["calibration"] for m in family.lineage.models if m.kept}
    rows = {name: len(homes[name].for_head(classes)) for name, classes in held.items()}
    assert record.cost["rows_calibrated"] == sum(m["passes"] * rows[m["name"]] for m in record.facts["models"]) > 0


def test_passes_are_what_is_counted(family: Family, backend_of: BackendOf) -> None:
    """Rows that really go through a net at an heir's home, beside what scoring and weighing it takes."""
    backend, seen = backend_of(family), []
    worker = backend.workers["east"]

    def counted(*asked: Any) -> torch.nn.Module:
        net = worker.make_net(*asked)
        net.register_forward_hook(lambda _m, given, _out: seen.append(len(given[0])))
        return net

    backend.workers["east"] = replace(worker, make_net=counted)
    record = unlearn(family, LEAVE, "fiun", backend)
    calibration, test = (len(worker.data.held_out[s]) for s in ("calibration", "test"))
    twice = 1.15  # the rows of the class are scored once more, by themselves
    evaluated = 3 * (test + len(worker.data.all("main")))  # before, after and the mask
    heirs = sum(m["home"] == "east" for m in record.facts["models"])
    passes = [m["passes"] for m in record.facts["models"] if m["home"] == "east"]
    assert passes == [len(m["curve"]) for m in record.facts["models"] if m["home"] == "east"]
    assert sum(passes) * calibration <= sum(seen)
    assert sum(seen) <= twice * (sum(passes) + heirs) * calibration + heirs * (
        twice * 3 * test + 2 * len(worker.data.all("main")) + evaluated
    )


def without_calibration(backend: InProcess, places: Sequence[str], classes: Sequence[str]) -> InProcess:
    """The same, where some places have no calibration row of some classes."""
    for place in places:
        worker = backend.workers[place]
        held = dict(worker.data.held_out)
        held["calibration"] = held["calibration"].without(classes)
        backend.workers[place] = replace(worker, data=replace(worker.data, held_out=held))
    return backend


@pytest.mark.parametrize("request_", [LEAVE, BOTH])
def test_steer_forgets_where_no_row_of_the_class_is(request_: Request, family: Family, backend_of: BackendOf) -> None:
    backend = without_calibration(backend_of(family), ("server", "east", "west"), request_.classes)
    record = unlearn(family, request_, "steer", backend)
    for name in HEIRS:
        m = by_name(record)[name]
        assert m["rule"] == "calibrated at the roots; no row tells what is left here"
        assert m["strength"] == {"factor": MARGIN}
        assert m["forgotten_before"] >= 0.6  # type: ignore[operator]
        assert m["forgotten_after"] <= 0.02  # type: ignore[operator]
        assert m["retained_before"] - m["retained_after"] <= 0.01  # type: ignore[operator]
    assert by_name(record)["triage"]["status"] == "untouched"


def test_steer_keeps_classes_apart_and_pools_the_clients_of_one_model(family: Family, backend_of: BackendOf) -> None:
    backend = backend_of(family)
    plan = discover(family.lineage, BOTH)
    found = round1(family, plan, Steer(), backend, Roll(family.places))
    heir = next(h for h in plan.heirs if h.name == "merged")
    case = merge(family, heir, plan, Steer(), found)
    models = {p.model for p in heir.points}
    assert sorted(e.about for e in case.evidence) == sorted(c for m in models for c in ("0", "7") if any(
        p.model == m and c in p.classes for p in heir.points))  # fmt: skip
    one = next(e for e in case.evidence if e.about == "0")
    version = family.store("server").read(family.heads["shared"])
    net = load(backend.workers["server"].make_net(10, ""), version.weights)
    parts = [backend.workers[s].data.all("main").of(["0"]) for s in ("north", "south")]
    x, y = torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts])
    g = measure(net, x, y, head=version.head, statistic="sum", loss="masked", masked=("0", "7"), layers="last").mean("sum")
    assert one.rows == len(x)
    for name, tensor in g.items():
        assert torch.allclose(one.means[name], tensor, rtol=1e-5, atol=1e-12)
    told = {
        p.shard: (found.enough[p], found.points[p].count) for p in found.enough if p.model == "shared" and p.classes == ("0",)
    }
    assert set(told) == {"north/main", "south/main"}
    assert one.enough == pytest.approx(sum(d * n for d, n in told.values()) / sum(n for _, n in told.values()))


def test_heirs_are_weighed_without_what_is_forgotten_where_a_method_says_so(family: Family, backend_of: BackendOf) -> None:
    backend, plan = backend_of(family), discover(family.lineage, LEAVE)
    rows = {s: backend.workers[s].data.all("main") for s in ("north", "south", "east")}
    everybody = Roll(family.places)
    assert round1(family, plan, FIUn(), backend, everybody).own["shared"].rows == sum(map(len, rows.values()))
    rest = sum(len(r.without(["0"])) for r in rows.values())
    assert round1(family, plan, Steer(), backend, everybody).own["shared"].rows == rest


def test_a_root_without_calibration_rows_of_the_class_uses_the_forgotten_ones(family: Family, backend_of: BackendOf) -> None:
    plan = discover(family.lineage, LEAVE)
    seen = round1(family, plan, Steer(), backend_of(family), Roll(family.places)).enough
    blinded = without_calibration(backend_of(family), ("north", "south"), ("0",))
    blind = round1(family, plan, Steer(), blinded, Roll(family.places)).enough
    assert seen.keys() == blind.keys()
    assert all(d > 0 for d in blind.values())


def test_one_of_two_sites_is_steered_as_far_as_a_retrained_model_would_go(family: Family, backend_of: BackendOf) -> None:
    record = unlearn(family, NORTH, "steer", backend_of(family))
    assert {m["target"] for n, m in by_name(record).items() if n in HEIRS} == {"as_retrained"}
    assert all(m["status"] != "committed" for n, m in by_name(record).items() if n in HEIRS)  # nobody can say how far


def test_what_was_forgotten_before_does_not_take_the_place_of_what_is_forgotten_next(
    family: Family, backend_of: BackendOf
) -> None:
    """The outputs to move towards lack both."""
    asked: list[Measure] = []

    class Listening(InProcess):
        def carry(self, tasks: Sequence[Task]) -> list[Answer]:
            asked.extend(t for t in tasks if isinstance(t, Measure) and t.selection is not None)
            return super().carry(tasks)

    backend = Listening(backend_of(family).workers)
    unlearn(family, LEAVE, "steer", backend)
    assert {t.masked for t in asked} == {("0",)}
    asked.clear()
    unlearn(family, Request(classes=("2",)), "steer", backend)
    assert {t.masked for t in asked} == {("2", "0"), ("2",)}  # triage has no output for 0


NEEDS = {
    "ssd": "every heir's weights at the sites of what is forgotten",
    "fine_tune": "the retained data at every heir's home",
    "gradient_ascent": "what is forgotten at every heir's home",
    "damp": "the retained data at every heir's home, what is forgotten at every heir's home",
    "distil": "the retained data at every heir's home, what is forgotten at every heir's home",
}


@pytest.mark.parametrize("name", NEEDS)
def test_what_no_deployment_grants_is_refused_outside_of_a_simulation(name: str, family: Family, backend_of: BackendOf) -> None:
    before = snapshot(family.folder)
    with pytest.raises(InputError, match=f"method {name} needs {NEEDS[name]}, which no deployment grants"):
        unlearn(family, LEAVE, name, backend_of(family))
    assert snapshot(family.folder) == before


def test_rows_do_not_leave_their_site_whatever_a_task_asks(family: Family, backend_of: BackendOf) -> None:
    tasks: list[Apply] = []

    class Asking(InProcess):
        def carry(self, given: Sequence[Task]) -> list[Answer]:
            lots = (Lot("north", "main", Selection(("0",))),)
            changed = [replace(t, forgotten=lots) if isinstance(t, Apply) and t.place == "east" else t for t in given]
            tasks.extend(t for t in changed if isinstance(t, Apply))
            return super().carry(changed)

    with pytest.raises(
        SiteError, match=r"east \(parallel, eastern\): rows of north/main are needed here and do not leave north"
    ):
        unlearn(family, LEAVE, "fiun", Asking(backend_of(family).workers))
    assert tasks


@pytest.mark.parametrize("name", ["lfssd", "fisher_mask", "activation_mask"])
def test_evidence_of_each_heir_itself_is_measured_on_it(name: str, family: Family, hospitals: Scenario) -> None:
    backend, plan = InProcess(workers(hospitals, family), simulation=True), discover(family.lineage, LEAVE)
    own = make(name, {"per_heir": "true"})
    assert own.needs
    assert {p.model for p in round1(family, plan, own, backend, Roll(family.places)).points} == set(HEIRS)
    roots = {p.model for h in plan.heirs for p in h.points}
    assert {p.model for p in round1(family, plan, make(name), backend, Roll(family.places)).points} == roots


@pytest.mark.parametrize("number", [float("inf"), float("nan"), -1.0, 1.01 * Steer.farthest])
def test_a_number_that_no_search_could_have_found_is_refused(family: Family, backend_of: BackendOf, number: float) -> None:
    class Lying(InProcess):
        def carry(self, tasks: Sequence[Task]) -> list[Answer]:
            return [
                replace(a, enough=number) if isinstance(a, Measured) and a.enough is not None else a
                for a in super().carry(tasks)
            ]

    with pytest.raises(SiteError, match=rf"says that {number} is enough, expected a number from 0 up to {Steer.farthest:g}"):
        unlearn(family, LEAVE, "steer", Lying(backend_of(family).workers))


def test_the_same_request_is_steered_the_same_way_to_the_bit(trained: Path, tmp_path: Path, backend_of: BackendOf) -> None:
    facts = []
    for i in range(2):
        family = Family.open(Path(shutil.copytree(trained, tmp_path / str(i))))
        facts.append(unlearn(family, BOTH, "steer", backend_of(family)).facts)
    assert facts[0] == facts[1]


def test_samples_are_steered_away_from_their_labels_as_far_as_the_gap(family: Family, backend_of: BackendOf) -> None:
    backend = backend_of(family)
    keys = backend.workers["east"].data.shards["main"].keys[::5]
    request = Request(samples=tuple(f"east/main/{k}" for k in keys))
    plan = discover(family.lineage, request)
    found = round1(family, plan, Steer(), backend, Roll(family.places))
    case = merge(family, next(h for h in plan.heirs if h.name == "eastern"), plan, Steer(), found)
    assert {e.about for e in case.evidence} == {""}
    assert all(e.rows == len(keys) for e in case.evidence)
    record = unlearn(family, request, "steer", backend)
    m = by_name(record)["eastern"]
    assert m["strength"]["factor"] <= 1.0  # type: ignore[index]
    assert m["version_after"] != m["version_before"]
    assert m["forgotten_after"] <= m["forgotten_before"]  # type: ignore[operator]
    assert abs(m["retained_before"] - m["retained_after"]) <= 0.03  # type: ignore[operator]


def test_where_no_root_can_say_how_far_samples_are_left_alone(family: Family, backend_of: BackendOf) -> None:
    backend = backend_of(family)
    key = backend.workers["east"].data.shards["main"].keys[5]
    before = snapshot(family.folder)
    blind = without_calibration(backend, ("east",), [str(c) for c in range(10)])
    with pytest.raises(InputError, match=r"steer: no heir .*no root has calibration rows to say how far"):
        unlearn(family, Request(samples=(f"east/main/{key}",)), "steer", blind)
    assert snapshot(family.folder) == before


def test_a_site_whose_rows_are_all_excluded_by_now_still_says_which_way(family: Family, backend_of: BackendOf) -> None:
    unlearn(family, Request(sites=("north",)), "fiun", backend_of(family), accept_untested="all of it goes")
    plan = discover(family.lineage, LEAVE)
    found = round1(family, plan, Steer(), backend_of(family), Roll(family.places))
    assert {p.site for p in found.enough} == {"north", "south"}
