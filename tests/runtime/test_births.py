"""What a site does towards a birth, and how tasks are split between this process and elsewhere."""

from pathlib import Path
from typing import Any

import pytest

from fedunlearn.data import Selection
from fedunlearn.errors import InputError
from fedunlearn.runtime import Split
from fedunlearn.runtime.tasks import Failure, Survey, Surveyed, Train, Trained
from fedunlearn.training import Recipe
from tests.conftest import snapshot
from tests.scenario.elsewhere import MODELS, SITES, Counting, elsewhere, site_worker


def task_of(**more: Any) -> Train:
    recipe = Recipe("it", "north", (), ("0", "1"), 1, 0.1, 32, 5)
    return Train(**{"place": "north", "recipe": recipe, "born": "incremental", "shard": "main", "classes": ("0", "1"), **more})


def test_a_task_done_twice_is_done_once(tmp_path: Path) -> None:
    worker = site_worker(elsewhere({"few": MODELS["few"]}), tmp_path, "north")
    first = worker.handle(task_of(keep=True))
    before = snapshot(tmp_path)
    assert worker.handle(task_of(keep=True)) == first
    assert snapshot(tmp_path) == before
    given = worker.handle(task_of(give=True))
    assert isinstance(given, Trained)
    assert not given.version
    assert given.weights
    survey = worker.handle(Survey("north", ("main",), {"r": Selection(classes=("0",))}))
    assert isinstance(survey, Surveyed)
    assert "0" not in survey.shards["main"]
    assert "0" in survey.classes["main"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"born": "transfered"}, "training 'it' at north: unknown kind of birth 'transfered'; did you mean 'transfer'"),
        ({"layers": "heads"}, "training 'it' at north: unknown choice of layers 'heads'; did you mean 'head'"),
        ({"shard": "mian"}, "site 'north': unknown shard 'mian'; did you mean 'main'"),
        ({"versions": ("a" * 64,)}, "unknown version in .*"),
    ],
)
def test_a_site_says_what_it_cannot_train(more: dict[str, Any], says: str, tmp_path: Path) -> None:
    worker = site_worker(elsewhere({"few": MODELS["few"]}), tmp_path, "north")
    with pytest.raises(InputError, match=says):
        worker.handle(task_of(**more))


def test_split_asks_the_other_backend_only_for_the_rest(tmp_path: Path) -> None:
    scenario = elsewhere({"few": MODELS["few"]})
    held = {site: site_worker(scenario, tmp_path, site) for site in SITES}
    away = Counting({s: held[s] for s in ("south", "east")})
    away.traffic, away.grants = {"south": (1, 2)}, frozenset({"rounds"})
    both = Split({"north": held["north"]}, away, "f" * 32)
    asked = [Survey(p, ("main",)) for p in ("south", "north", "east", "nowhere")]
    answers = both.carry(asked)
    assert answers[:3] == [held[t.place].handle(t) for t in asked[:3]]
    assert isinstance(answers[3], Failure)
    assert [[(t.place, t.family) for t in tasks] for tasks in away.carried] == [
        [(p, "f" * 32) for p in ("south", "east", "nowhere")]
    ]
    assert both.carry(asked[1:2]) == answers[1:2]
    assert len(away.carried) == 1
    assert both.traffic == {"south": (1, 2)}
    assert both.grants == {"rounds"}
