"""What is wrong with a site, or with a scenario for sites that are elsewhere, is named, and no family comes of it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedunlearn.errors import InputError, SiteError, TrainingError
from fedunlearn.runtime import Family, InProcess, Split
from fedunlearn.runtime.tasks import Answer, Failure, Fetched, Surveyed, Task, Train, Trained
from fedunlearn.scenario import (
    backend_of,
    extend,
    forget,
    open_worker,
    reference,
    train,
    train_afar,
    workers,
    workers_here,
)
from tests.conftest import LEAVE, snapshot
from tests.scenario.elsewhere import MODELS, Counting, afar, at_hand, elsewhere, scenario_of, sites_of


def failing_in_round(number: int, what: Answer | None = None) -> Callable[[Task, Answer], Answer]:
    def alter(task: Task, answer: Answer) -> Answer:
        hit = isinstance(task, Train) and task.place == "south" and f"/r{number}/" in task.recipe.name
        return (what or Failure("south", "disk is gone")) if hit else answer

    return alter


def test_a_failing_site_is_named_and_no_family_is_made(tmp_path: Path) -> None:
    scenario = elsewhere({"shared": MODELS["shared"]})
    held = sites_of(scenario, tmp_path / "sites")
    says = r"model 'shared': round 2 of 2: nothing of this training was kept; 1 of 3 places failed: south: disk is gone"
    with pytest.raises(TrainingError, match=says):
        afar(scenario, tmp_path / "family", Counting(held, failing_in_round(2)))
    with pytest.raises(InputError, match="its training was cut off"):
        Family.open(tmp_path / "family")
    family = afar(scenario, tmp_path / "family", InProcess(held))
    assert family.heads == train(at_hand({"shared": MODELS["shared"]}), tmp_path / "alone").heads


class Away(InProcess):
    """Nobody is there."""

    def carry(self, tasks: Sequence[Task]) -> list[Answer]:
        return [Failure(t.place, "is not connected") for t in tasks]


def test_sites_that_are_not_there_are_all_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"survey: .*3 of 4 places failed: north, south, east: is not connected"):
        afar(elsewhere({"shared": MODELS["shared"]}), tmp_path / "family", Away({}))
    assert not (tmp_path / "family").exists()


def altered(kind: type, **fields: Any) -> Callable[[Task, Answer], Answer]:
    """Answers of one kind by south, with other fields; a function makes one from what was there."""

    def alter(task: Task, answer: Answer) -> Answer:
        if not isinstance(answer, kind) or task.place != "south":
            return answer
        new = {k: v(getattr(answer, k)) if callable(v) else v for k, v in fields.items()}
        return replace(answer, **new)  # type: ignore[type-var]

    return alter


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (altered(Surveyed, shards={}), r"south: its survey told of shards \[\], asked were \['main'\]"),
        (altered(Surveyed, classes={"main": ("0", "0")}), "south: its survey names no classes, or one twice"),
        (altered(Surveyed, shards={"main": {"x": 3}}), "south: its survey counts rows of classes that it does not name"),
        (altered(Surveyed, shards={"main": {"0": -3}}), "south: its survey counts less than no rows"),
        (altered(Surveyed, withheld={"x": 3}), "south: its survey leaves out rows of shards that it was not asked about"),
        (altered(Surveyed, withheld={"main": -3}), r"south: its survey leaves out .* or less than one: {'main': -3}"),
        (altered(Surveyed, shape=()), r"south: its survey says that inputs have shape \(\)"),
        (altered(Trained, rows={"0": 10**6}), r"south: trained 'shared/r1/south' on rows {'0': 1000000}, before it told of"),
        (altered(Trained, version=""), "south: trained 'shared/r1/south' and calls its version '', expected a hash of 64"),
        (altered(Trained, version="../x"), "south: trained 'shared/r1/south' and calls its version '../x'"),
        (altered(Trained, head=lambda h: replace(h, classes=h.classes[:2])), "south: trained 'shared/r1/south' with outputs"),
        (altered(Trained, weights={}), "south: trained 'shared/r1/south': weights that were sent, and net: names differ"),
        (
            altered(Trained, weights=lambda w: {n: t * torch.nan if t.is_floating_point() else t for n, t in w.items()}),
            "south: trained 'shared/r1/south': 'norm.1.weight' is of torch.float32, or not finite; expected torch.float32",
        ),
        (failing_in_round(1, Fetched({}, None)), "south did not answer with Trained"),  # type: ignore[arg-type]
    ],
)
def test_answers_are_not_trusted(alter: Callable[[Task, Answer], Answer], says: str, tmp_path: Path) -> None:
    scenario = elsewhere({"shared": MODELS["shared"]})
    with pytest.raises(TrainingError, match=says):
        afar(scenario, tmp_path / "family", Counting(sites_of(scenario, tmp_path / "sites"), alter))
    assert not Family(tmp_path / "family").ledger.lines


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (altered(Fetched, weights={}), "south: sent 'few': weights that were sent, and net: names differ"),
        (altered(Fetched, head=lambda h: replace(h, layer="x")), "south: sent 'few' with outputs .*layer='x'"),
    ],
)
def test_fetched_parents_are_not_trusted(alter: Callable[[Task, Answer], Answer], says: str, tmp_path: Path) -> None:
    few = {**MODELS["few"], "site": "south"}
    scenario = elsewhere({"few": few, "moved": {"born": "incremental", "from": ["few"], "site": "north"}})
    with pytest.raises(TrainingError, match=says):
        afar(scenario, tmp_path / "family", Counting(sites_of(scenario, tmp_path / "sites"), alter))


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (
            altered(Surveyed, classes=lambda c: {"main": tuple(reversed(c["main"]))}),
            "data: south names classes .* all sites must name the same classes in the same order",
        ),
        (altered(Surveyed, shape=(64,)), r"data: inputs of south have shape \(64,\), those of north \(8, 8\)"),
        (altered(Surveyed, shards={"main": {}}), "models.only: none of its sites .south. holds a row to train on"),
    ],
)
def test_sites_that_do_not_fit_together_are_said(alter: Callable[[Task, Answer], Answer], says: str, tmp_path: Path) -> None:
    scenario = elsewhere({"shared": MODELS["shared"], "only": {"born": "incremental", "site": "south"}})
    with pytest.raises(InputError, match=says):
        afar(scenario, tmp_path / "family", Counting(sites_of(scenario, tmp_path / "sites"), alter))
    assert not (tmp_path / "family").exists()


FILE = {"file": "x.safetensors", "head": ["0"]}


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"born": "distributed", "ranks": ["north"]}, "models.it: born: distributed cannot be trained at sites that are"),
        (FILE, "models.it: born: imported cannot be trained at sites that are elsewhere yet; leave it out, or train"),
        ({"born": "incremental", "site": "north", "classes": ["1"], "replay": 3}, "models.it: replay cannot be trained"),
        ({"born": "incremental", "site": "north", "from": ["few"], "ewc": 1.0}, "models.it: ewc cannot be trained at sites"),
        (
            {"born": "federated", "clients": ["north"], "home": "north"},
            "models.it.home: 'north' is not with the coordinator; choose 'server'",
        ),
        (
            {"born": "incremental", "site": "north", "home": "south"},
            "models.it.home: 'south' is not with the coordinator; choose 'server' or 'north'",
        ),
        ({"born": "incremental", "site": "north", "head": ["0", "11"]}, "models.it.head: unknown class '11'"),
    ],
)
def test_what_cannot_be_trained_afar_is_refused_before_anything_is(model: dict[str, Any], says: str, tmp_path: Path) -> None:
    scenario = elsewhere({"few": MODELS["few"], "shared": MODELS["shared"], "it": model})
    backend = Counting(sites_of(scenario, tmp_path / "sites"))
    with pytest.raises(InputError, match=says):
        afar(scenario, tmp_path / "family", backend)
    assert not (tmp_path / "family").exists()
    assert not any(isinstance(t, Train) for tasks in backend.carried for t in tasks)


def test_only_families_of_sites_with_rows_of_their_own_are_trained_afar(tmp_path: Path) -> None:
    scenario = at_hand({"few": MODELS["few"]})
    with pytest.raises(InputError, match=r"elsewhere: set 'main' is opened here, not at the sites; say `sites: own`"):
        train_afar(scenario, tmp_path / "family", InProcess({}), {})
    family = train(scenario, tmp_path / "family")
    with pytest.raises(InputError, match="holds a family already"):
        train_afar(elsewhere({"few": MODELS["few"]}), family.folder, InProcess({}), {})


def test_commands_of_one_process_refuse_a_family_whose_sites_are_elsewhere(tmp_path: Path) -> None:
    scenario = elsewhere({"few": MODELS["few"]})
    says = "elsewhere: its data says `sites: own`, so its sites are elsewhere .*; name the folder .*--sites-in"
    with pytest.raises(InputError, match=says):
        train(scenario, tmp_path / "family")
    assert not (tmp_path / "family").exists()
    family = afar(scenario, tmp_path / "family", InProcess(sites_of(scenario, tmp_path / "sites")))
    before = snapshot(tmp_path / "family")
    more = {"models": {"next": {"born": "incremental", "from": ["few"], "site": "north"}}}
    for command in (
        lambda: backend_of(family),
        lambda: backend_of(family, "ray"),
        lambda: open_worker(str(family.folder), "north"),
        lambda: workers(scenario, family),
        lambda: reference(family, scenario, LEAVE),
        lambda: extend(family, more, "more.yaml"),
    ):
        with pytest.raises(InputError, match=says):
            command()
    assert snapshot(tmp_path / "family") == before


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"sites": "own", "set": "digits"}, "give one of set, factory and sites: own"),
        ({"sites": "all"}, "data.sites: 'all': Input should be 'own'"),
        ({"sites": "own", "without": {"north": ["0"]}}, r"without does not go with sites: own \(each site says it of its own"),
        ({"sites": "own", "share": {"north": 2}}, "share does not go with sites: own"),
        ({"sites": "own", "shards": "by_label"}, "shards does not go with sites: own"),
        ({"sites": "own", "calibration": 0.1}, "calibration does not go with sites: own"),
        ({"sites": "own", "limit": 3}, "limit does not go with sites: own"),
        ({"sites": "own", "seed": 3}, r"seed does not go with sites: own \(it is about `test`, and there is none\)"),
        ({"sites": "own", "scale": 3}, r"scale does not go with sites: own \(it is about `test`"),
    ],
)
def test_what_only_sites_can_say_is_refused(data: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        scenario_of({"few": MODELS["few"]}, **data)
    assert scenario_of({"few": MODELS["few"]}, sites="own", test="x.npz", seed=3, scale=2.0).own


def test_where_a_site_is_missing_that_would_retrain_the_way_on_is_said(tmp_path: Path) -> None:
    scenario = elsewhere({"shared": MODELS["shared"], "eastern": MODELS["eastern"]})
    held = sites_of(scenario, tmp_path / "sites")
    family = afar(scenario, tmp_path / "family", InProcess(held))
    missing = InProcess({site: worker for site, worker in held.items() if site != "south"}, offline={"south": "is not there"})
    both = Split(workers_here(scenario, family), missing, family.id)
    says = (
        r"nothing was changed: nothing of this training .*south: is not there; mend that, or go on without \(--no-reference\)$"
    )
    with pytest.raises(SiteError, match=says):
        forget(family, LEAVE, "fiun", both, quorum=0)
    assert len(family.ledger.lines) == 1
    assert forget(family, LEAVE, "fiun", both, quorum=0, reference=False).facts["absent"] == ["south"]
