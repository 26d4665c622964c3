"""Metrics on the path of every unlearning: known edits land where the definitions say, and limits on them hold a model back."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedunlearn.errors import InputError, SiteError
from fedunlearn.evaluation import Gate
from fedunlearn.lineage import Request, discover
from fedunlearn.methods import Case, Method
from fedunlearn.methods.base import Strength, Unguided
from fedunlearn.runtime import Backend, Family, InProcess, Record, Split, Worker, unlearn
from fedunlearn.runtime.evaluating import evaluation_of
from fedunlearn.runtime.flower import Flower, client_app
from fedunlearn.runtime.tasks import Answer, Evaluate, Evaluated, Task
from fedunlearn.scenario import Scenario, retrained, train, workers, workers_here
from fedunlearn.scenario.files import parse
from fedunlearn.tensors import Tensors, equal
from fedunlearn.training.flower import LocalGrid
from tests.scenario.elsewhere import MODELS, Counting, afar, elsewhere, sites_of

ZERO = Request(classes=("0",))
PLAIN = {
    "name": "small",
    "data": {"set": "digits", "calibration": 0.3, "held_out": 0.3},
    "net": {"name": "mlp", "hidden": 12},
    "models": {
        "one": {"born": "incremental", "site": "north", "epochs": 3},
        "two": {"born": "incremental", "from": ["one"], "site": "south", "epochs": 1},
        "three": {"born": "transfer", "from": ["one"], "site": "south", "head": ["1", "2"], "epochs": 1},
    },
}
FEW = {"set": "digits", "calibration": 0.1, "held_out": 0.15}  # for what trains probes
SINGLE = {**PLAIN, "data": FEW, "models": {"one": {"born": "incremental", "site": "north", "epochs": 3}}}
PROBE = "probe.after.recovery"


@pytest.fixture(scope="module")
def small() -> Scenario:
    return parse(PLAIN, "here")


@pytest.fixture(scope="module")
def whole(small: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family with a reference; not to be changed."""
    folder = tmp_path_factory.mktemp("small") / "family"
    family = train(small, folder)
    retrained(family, small, ZERO, InProcess({}))
    return folder


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Callable[[], Family]:
    def copy() -> Family:
        folder = tmp_path / f"family-{len(list(tmp_path.iterdir()))}"
        return Family.open(Path(shutil.copytree(whole, folder)))

    return copy


class Nothing(Unguided):
    """Forgets nothing."""

    name = "nothing"

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
        return dict(weights)


AGAIN: list[tuple[Tensors, Tensors]] = []  # weights as they were, and as they are retrained


class Retrain(Unguided):
    """Gives the retrained model."""

    name = "retrain"

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
        return next(dict(new) for old, new in AGAIN if old.keys() == weights.keys() and equal(old, weights))


def done(
    small: Scenario, family: Family, method: Method | str, gate: Gate | None = None, backend: Backend | None = None, **more: Any
) -> tuple[Record, dict[str, dict[str, Any]]]:
    """The record, and what was found of each model, by tier."""
    backend = backend or InProcess(workers(small, family))
    again = retrained(family, small, ZERO, backend)
    record = unlearn(family, ZERO, method, backend, gate, retrained=again, **more)
    return record, {m["name"]: m["evaluation"] for m in record.facts["models"]}


def test_known_edits_land_where_the_definitions_say(small: Scenario, copied: Callable[[], Family]) -> None:
    family = copied()
    again = retrained(family, small, ZERO, InProcess({}))
    for name, version in family.heads.items():
        old = family.store(family.lineage[name].home).read(version)
        AGAIN.append((old.weights, again.sent[name].weights))
    found = {}
    for method in (Nothing(), "logit_mask", Retrain()):
        _, of = done(small, copied(), method)
        found[method if isinstance(method, str) else method.name] = {n: e["quick"]["metrics"] for n, e in of.items() if e}
    for name in ("one", "two"):
        nothing, mask, like = (found[m][name] for m in ("nothing", "logit_mask", "retrain"))
        assert nothing["accuracy"]["after"] == nothing["accuracy"]["before"]
        assert nothing["accuracy"]["after"]["forgotten"]["value"] > 0.5
        assert nothing["tow"]["after"] == nothing["tow"]["before"] < 0.5
        assert nothing["kl_to_retrained"]["forgotten"]["after"] == nothing["kl_to_retrained"]["forgotten"]["before"] > 0.5
        for metric in ("accuracy", "tow", "average_gap"):
            assert mask[metric]["after"] == mask[metric]["mask"] == nothing[metric]["mask"]
        assert mask["accuracy"]["after"]["forgotten"]["value"] == 0
        assert (
            mask["accuracy"]["after"]["forgotten_training"]["n"] == nothing["accuracy"]["after"]["forgotten_training"]["n"] > 9
        )
        assert like["tow"]["after"] == 1
        assert like["average_gap"]["after"] == 0
        for part in ("forgotten", "retained", "test"):
            assert like["kl_to_retrained"][part]["after"] == pytest.approx(0, abs=1e-9)
            assert like["completeness"][part]["after"] == 1
    assert "forgotten" not in found["retrain"]["three"]["accuracy"]["after"]  # it has no output for it


def over_grid(small: Scenario, family: Family) -> Flower:
    held = workers(small, family)
    app = client_app(lambda context: held[str(context.node_config["site"])])
    return Flower(LocalGrid(app, {i: {"site": s} for i, s in enumerate(held, 1)}), deadline=120, join=0)


def test_a_limit_on_a_full_metric_holds_back_and_facts_are_those_of_a_grid(tmp_path: Path) -> None:
    """The mask leaves 0 %, and a probe finds most of it."""
    single, facts = parse(SINGLE, "here"), []
    train(single, tmp_path / "0")
    retrained(Family.open(tmp_path / "0"), single, ZERO, InProcess({}))
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    for number, way in enumerate((lambda f: InProcess(workers(single, f)), lambda f: over_grid(single, f))):
        family = Family.open(tmp_path / str(number))
        heads = dict(family.heads)
        record, found = done(single, family, "logit_mask", Gate(metrics={PROBE: {"at_most": 0.3}}), way(family))
        recovery = found["one"]["full"]["metrics"]["probe"]["after"]["recovery"]["value"]
        assert recovery > 0.6
        assert [o["text"] for o in record.facts["objections"]] == [f"{PROBE} is {recovery:.4g} (at most 0.3)"]
        assert family.heads == heads
        assert set(record.cost["evaluation_seconds"]) == {"quick", "full"}
        facts.append(record.facts)
    assert facts[0] == facts[1]
    assert "seconds" not in found["one"]["full"]
    assert "curve" not in found["one"]["full"]["metrics"]["relearn_shots"]["after"]


def test_what_could_not_be_tested_is_objected_to_unless_accepted(small: Scenario, copied: Callable[[], Family]) -> None:
    gate = Gate(metrics={"kl_to_retrained.test.after": {"at_most": 10}})
    family = copied()
    backend = InProcess(workers(small, family))
    record = unlearn(family, ZERO, "fiun", backend, gate)
    said = {(o["model"], o["text"]) for o in record.facts["objections"]}
    assert {
        (n, "not tested: kl_to_retrained.test.after: no retrained model was given") for n in ("one", "two", "three")
    } <= said
    assert unlearn(family, ZERO, "fiun", backend, gate, accept_untested="no reference").accepted
    with pytest.raises(InputError, match=r"here: gate.metrics: unknown metric 'tuw'; did you mean 'tow'"):
        parse({**PLAIN, "gate": {"metrics": {"tuw.after": {"at_least": 0.9}}}}, "here")
    with pytest.raises(InputError, match="unknown key 'at_last'; did you mean 'at_least'"):
        parse({**PLAIN, "gate": {"metrics": {"tow.after": {"at_last": 0.9}}}}, "here")
    read = parse({**PLAIN, "gate": {"metrics": {"tow.after": {"at_least": 0.9}}}}, "here")
    assert read.gate.gate == Gate(metrics={"tow.after": {"at_least": 0.9}})


def test_rows_to_be_forgotten_are_those_that_reached_the_heir_and_lie_at_its_home(whole: Path) -> None:
    family = Family.open(whole)

    def asked(request: Request, heir: str) -> dict[str, Any]:
        (found,) = (h for h in discover(family.lineage, request).heirs if h.name == heir)
        task = evaluation_of(found, "quick", ("b", "a"), ("0", "9"), [])
        assert task.question.gone == ("9",)
        return {shard: (s.classes, s.samples) for shard, s in task.question.selections.items()}

    assert asked(ZERO, "two") == {"main": (("0",), ())}
    assert asked(Request(classes=("0",), sites=("north",)), "one") == {"main": (("0",), ())}
    assert asked(Request(classes=("0",), sites=("north",)), "two") == {}


class Broken(InProcess):
    """Says something else of an evaluation."""

    def __init__(self, held: dict[str, Worker], lie: Callable[[Evaluated], Evaluated]) -> None:
        super().__init__(held)
        self.lie = lie

    def carry(self, tasks: Sequence[Task]) -> list[Answer]:
        return [self.lie(a) if isinstance(a, Evaluated) else a for a in super().carry(tasks)]


def with_found(**change: Any) -> Callable[[Evaluated], Evaluated]:
    return lambda answer: replace(answer, found={**answer.found, **change})


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (lambda a: replace(a, after="f" * 64), "evaluated something else than quick of version"),
        (with_found(tier="full"), "evaluated something else than quick"),
        (with_found(metrics={}), "sent what is no quick evaluation"),
        (with_found(metrics=None), "sent what is no quick evaluation"),
        (with_found(seconds={"accuracy": float("nan")}), "sent what is no quick evaluation"),
        (with_found(more=1), "sent what is no quick evaluation"),
    ],
)
def test_what_a_home_says_is_untrusted(
    small: Scenario, copied: Callable[[], Family], lie: Callable[[Evaluated], Evaluated], says: str
) -> None:
    family = copied()
    lines = len(family.ledger.lines)
    with pytest.raises(SiteError, match=says):
        unlearn(family, ZERO, "logit_mask", Broken(workers(small, family), lie))
    assert len(Family.open(family.folder).ledger.lines) == lines


def test_a_retrained_model_travels_only_to_a_home_that_lacks_it(tmp_path: Path) -> None:
    scenario = elsewhere({"shared": {**MODELS["shared"], "keep": "last"}, "eastern": MODELS["eastern"]})
    away = Counting(sites_of(scenario, tmp_path / "sites"))
    family = afar(scenario, tmp_path / "family", away)
    both = Split(workers_here(scenario, family), away, family.id)
    again = retrained(family, scenario, ZERO, both)
    assert set(again.scored) == {"shared", "eastern"}
    assert set(again.sent) == {"shared"}
    record = unlearn(family, ZERO, "logit_mask", both, retrained=again, accept_untested="no test rows here")
    sent = {t.place: t.sent for tasks in away.carried for t in tasks if isinstance(t, Evaluate)}
    assert sent == {"east": {}}
    for m in record.facts["models"]:
        assert m["evaluation"]["quick"]["nets"][-1] == "retrained"
