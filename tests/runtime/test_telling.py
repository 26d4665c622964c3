"""Who waits is told how far a call is, and nobody is told afterwards."""

import re
from collections.abc import Callable

import pytest

from fedunlearn.runtime import Backend, Family, InProcess, Split, bank, unlearn
from fedunlearn.scenario import Scenario, workers
from tests.conftest import LEAVE
from tests.runtime.grids import over_grid


def calls(said: list[str], pattern: str) -> list[tuple[int, int]]:
    return [(int(found[1]), int(found[2])) for text in said if (found := re.match(pattern, text))]


def forget(family: Family, backend: Backend) -> list[str]:
    said: list[str] = []
    unlearn(family, LEAVE, "logit_mask", backend, progress=said.append)
    before = len(said)
    bank(family, backend)
    assert len(said) == before, "of another command"
    return said


@pytest.mark.parametrize("split", [False, True], ids=["in-process", "split"])
def test_tasks_of_one_process_are_counted(
    split: bool, family: Family, hospitals: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedunlearn.runtime.backend.TELL", 0.0)
    held = workers(hospitals, family)
    north = {"north": held.pop("north")} if split else {}
    said = forget(family, Split(north, InProcess(held), family.id) if split else InProcess(held))
    counts = calls(said, r"(\d+) of (\d+) answers; \w+ at \w+")
    assert counts
    assert all(0 <= done < every for done, every in counts)
    edited = {text.split()[-1] for text in said if "; apply at" in text}
    assert len(edited) > 1
    assert {"north"} < {text.split()[-1] for text in said if "answers; " in text}


def test_quick_calls_say_nothing(family: Family, backend_of: Callable[[Family], InProcess]) -> None:
    assert not calls(forget(family, backend_of(family)), r"(\d+) of (\d+) answers")


def test_places_of_a_grid_are_counted(family: Family, hospitals: Scenario) -> None:
    counts = calls(forget(family, over_grid(hospitals, family)), r"(\d+) of (\d+) places answered")
    assert {every for done, every in counts if done == every} >= {len(hospitals.places)}
    assert all(0 < done <= every for done, every in counts)
