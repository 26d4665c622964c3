"""Answers and input are not trusted: what is wrong with either is named, and nothing moves."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedunlearn.errors import InputError, SiteError
from fedunlearn.importance import Importance
from fedunlearn.lineage import Request
from fedunlearn.methods import Case, Evidence, FIUn, Method
from fedunlearn.methods.base import Strength
from fedunlearn.runtime import Family, InProcess, Reference, unlearn
from fedunlearn.runtime.tasks import Answer, Applied, Measured, Scored, Task
from fedunlearn.scenario import forget
from fedunlearn.store.signing import KEY
from fedunlearn.tensors import Tensors
from tests.conftest import LEAVE, snapshot
from tests.runtime.forgetting import BackendOf


def test_a_sample_that_its_site_does_not_hold_is_refused(family: Family, backend_of: BackendOf) -> None:
    before = snapshot(family.folder)
    with pytest.raises(InputError, match="unknown sample 'east/main/99999'"):
        unlearn(family, Request(samples=("east/main/99999",)), "fiun", backend_of(family))
    assert snapshot(family.folder) == before


class Silent(InProcess):
    """Must not be asked."""

    def carry(self, tasks: Sequence[Task]) -> list[Answer]:
        raise AssertionError(tasks)


def test_what_can_be_seen_to_be_wrong_is_refused_before_any_place_is_asked(
    family: Family, backend_of: BackendOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = Silent(backend_of(family).workers)
    with pytest.raises(InputError, match="unknown sample 'east/main/99999'"):
        forget(family, Request(samples=("east/main/99999",)), FIUn(), silent)
    monkeypatch.setenv(KEY, str(tmp_path / "key.pem"))
    with pytest.raises(InputError, match=r"key.pem.*cannot be read"):
        unlearn(family, LEAVE, "fiun", silent)


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

    def strengths(self, case: Case) -> Sequence[Strength]:
        return [{}]

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
        return dict(weights)


def test_a_backend_that_cannot_grant_a_need_refuses(family: Family, backend_of: BackendOf) -> None:
    with pytest.raises(InputError, match="method greedy needs forget data at the heir, which no deployment grants"):
        unlearn(family, LEAVE, Greedy(), backend_of(family))


def test_layers_that_nobody_has_are_refused(family: Family, backend_of: BackendOf) -> None:
    with pytest.raises(InputError, match="unknown layer or parameter 'heed'; did you mean 'head'"):
        unlearn(family, LEAVE, FIUn(layers="heed"), backend_of(family))


def inflated(task: Task, answer: Answer) -> Answer:
    if not isinstance(answer, Measured):
        return answer
    return replace(answer, importance=replace(answer.importance, count=answer.importance.count * 9))


def test_a_site_cannot_count_rows_that_nobody_trained_on(family: Family, backend_of: BackendOf) -> None:
    with pytest.raises(SiteError, match=r"sent a sum over \d+ rows; models were trained on \d+ there"):
        unlearn(family, LEAVE, "fiun", Broken(backend_of(family), inflated))


def test_wrong_input_is_found_before_a_reference_is_trained(family: Family, backend_of: BackendOf) -> None:
    def never() -> Reference:
        pytest.fail("the reference was asked for")

    for request, method in ((LEAVE, FIUn(layers="heed")), (Request(samples=("east/main/x",)), FIUn())):
        with pytest.raises(InputError):
            unlearn(family, request, method, backend_of(family), retrained=never)
