"""How tasks get to places. Nothing else differs between backends."""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import inf, nan
from types import MappingProxyType
from typing import Protocol, TypeVar

from fedunlearn.errors import FedUnlearnError, InputError, OvertakenError, SiteError, few, raised, unknown
from fedunlearn.methods import METHODS
from fedunlearn.methods.base import FORGOTTEN_AT_HEIRS, HEIRS_AT_ROOTS, RETAINED_AT_HEIRS
from fedunlearn.runtime.place.worker import Worker
from fedunlearn.runtime.tasks import Answer, Apply, Audit, Evaluate, Failure, Measure, Task

Kind = TypeVar("Kind")
Progress = Callable[[str], None]
DEADLINE = "FEDUNLEARN_DEADLINE"  # the variable, in seconds
PATIENT = 1800.0
TELL = 10.0  # seconds between two words about how far the tasks of one call are, in this process


def deadline() -> float:
    """Seconds that one round of messages may take, where nobody says otherwise: what the environment says, or half an hour.

    Raises:
        InputError: the environment says something else than seconds.
    """
    said = os.environ.get(DEADLINE, str(PATIENT))
    try:
        seconds = float(said)
    except ValueError:
        seconds = nan
    if not 0 < seconds < inf:
        raise InputError(f"{DEADLINE} is {said!r}: expected seconds above 0, such as 3600")
    return seconds


class Answerer(Protocol):
    """What answers for one place: a `Worker`, or something around one that asks the place's owner first."""

    @property
    def place(self) -> str:
        """Its name."""

    @property
    def methods(self) -> Collection[str]:
        """Methods beyond the menu that a task out of a message may name, each "their.module:Class"."""

    def handle(self, task: Task) -> Answer:
        """Do one task, or raise what says why not."""


class Backend(ABC):
    """Carries tasks to places and brings answers back, in the order of the tasks."""

    grants: frozenset[str] = frozenset()
    traffic: Mapping[str, tuple[int, int]] = MappingProxyType({})
    """place -> bytes up (its answers) and down (its tasks), so far; empty where nothing crosses a wire."""
    codes: Mapping[str, Mapping[str, str]] = MappingProxyType({})
    """place -> which code answered there last, as it says itself (see `store.code`); empty where nothing crosses a wire."""
    _tell: Progress | None = None

    @abstractmethod
    def carry(self, tasks: Sequence[Task]) -> list[Answer]:
        """Answers, one a task and in their order, failures included. Long ones `tell` how far they are."""

    @contextmanager
    def telling(self, progress: Progress) -> Iterator[None]:
        """Meanwhile, have somebody told in words how far each call of `carry` is."""
        before, self._tell = self._tell, progress
        try:
            yield
        finally:
            self._tell = before

    def tell(self, text: str) -> None:
        """Say how far a call is, to whoever is to be told."""
        if self._tell is not None:
            self._tell(text)


class InProcess(Backend):
    """All places in this process, one after another.

    Args:
        workers: place -> worker.
        simulation: grant what a method may need, rows of other places included: for comparisons, never for a deployment.
        offline: places that are not there, and why.
        owned: places are their owners', and do what they would do for a message: no method that they do not allow.
    """

    def __init__(
        self, workers: Mapping[str, Answerer], *, simulation: bool = False, offline: Mapping[str, str] = MappingProxyType({}),
        owned: bool = False,
    ) -> None:  # fmt: skip
        self.workers, self.offline, self.allowed = dict(workers), offline, () if owned else None
        if simulation:
            self.grants = frozenset({HEIRS_AT_ROOTS, FORGOTTEN_AT_HEIRS, RETAINED_AT_HEIRS})
            here = {place: worker for place, worker in workers.items() if isinstance(worker, Worker)}
            data = {place: worker.data for place, worker in here.items()}
            self.workers |= {place: replace(worker, lent=data) for place, worker in here.items()}

    def carry(self, tasks: Sequence[Task]) -> list[Answer]:
        """Do them one after another."""
        answers: list[Answer] = []
        told = time.monotonic()
        for task in tasks:
            if time.monotonic() - told >= TELL:
                told = time.monotonic()
                self.tell(f"{len(answers)} of {len(tasks)} answers; {type(task).__name__.lower()} at {task.place}")
            if task.place in self.offline:
                answers.append(Failure(task.place, self.offline[task.place], offline=True))
                continue
            if task.place not in self.workers:
                answers.append(Failure(task.place, str(unknown("place", task.place, self.workers))))
                continue
            answers.append(answer(self.workers[task.place], task, self.allowed))
        return answers


class Split(Backend):
    """Some places in this process, all others over another backend; traffic, codes and what is granted are the other's.

    Args:
        here: place -> worker of those that live with the coordinator.
        away: carries the tasks of all other places.
        family: what those places know the family by (see `Family.id`).
    """

    def __init__(self, here: Mapping[str, Answerer], away: Backend, family: str) -> None:
        self.here, self.away, self.family = InProcess(here), away, family
        self.grants, self.traffic, self.codes = away.grants, away.traffic, away.codes

    @contextmanager
    def telling(self, progress: Progress) -> Iterator[None]:
        """Both tell."""
        with self.here.telling(progress), self.away.telling(progress):
            yield

    def carry(self, tasks: Sequence[Task]) -> list[Answer]:
        """Those of this process first; the other backend gets the rest in one call, or none where there is no rest."""
        mine = [i for i, task in enumerate(tasks) if task.place in self.here.workers]
        rest = [i for i, task in enumerate(tasks) if task.place not in self.here.workers]
        found = dict(zip(mine, self.here.carry([tasks[i] for i in mine]), strict=True))
        if rest:
            sent = [replace(tasks[i], family=self.family) for i in rest]
            found |= dict(zip(rest, self.away.carry(sent), strict=True))
            self.traffic, self.codes = self.away.traffic, self.away.codes
        return [found[i] for i in range(len(tasks))]


def traffic_since(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> dict[str, dict[str, int]]:
    """Bytes up and down by place since `before`."""
    since = {p: (up - before.get(p, (0, 0))[0], down - before.get(p, (0, 0))[1]) for p, (up, down) in sorted(after.items())}
    return {place: {"up": up, "down": down} for place, (up, down) in since.items() if up or down}


def answer(worker: Answerer, task: Task, allowed: Collection[str] | None = None) -> Answer:
    """Have a worker do one task; whatever goes wrong becomes its answer, so that others still answer.

    Args:
        worker: of the task's place.
        task: what is asked.
        allowed: for tasks out of a message: methods that may be made here beside the worker's own and those of the menu;
            the worker must then be the place's own. None where the task is of this process.
    """
    try:
        if allowed is not None:
            _refuse(worker, task, allowed)
        return worker.handle(task)
    except FedUnlearnError as error:
        return Failure(task.place, str(error), isinstance(error, InputError), overtaken=isinstance(error, OvertakenError))
    except Exception as error:  # a net, a method or data of the user's own may raise anything
        return Failure(task.place, raised(error))


def _refuse(worker: Answerer, task: Task, allowed: Collection[str]) -> None:
    if task.place != worker.place:
        raise SiteError(f"this is {worker.place!r}, the task is for {task.place!r}; nothing was done")
    known = [*allowed, *worker.methods]
    named = task.audit if isinstance(task, Evaluate) else task
    if isinstance(named, Apply | Measure | Audit) and named.method not in {"", *METHODS, *known}:
        raise SiteError(
            f"method {named.method!r} is not allowed at {worker.place}; it allows "
            f"{', '.join([*METHODS, *known])}, and its owner can allow more there"
        )


def ask(backend: Backend, tasks: Sequence[Task], kind: type[Kind], *, otherwise: str = "nothing was changed") -> list[Kind]:
    """Carry tasks that all answer in one kind.

    Args:
        backend: carries them.
        tasks: what is asked.
        kind: of the answers.
        otherwise: what holds when a place fails, to be said in the error.

    Returns:
        The answers, in the order of the tasks.

    Raises:
        InputError: what was asked for is wrong.
        SiteError: places failed, refused, or answered something else; names them all.
    """
    return check(tasks, backend.carry(tasks), kind, otherwise)


def check(
    tasks: Sequence[Task], answers: Sequence[Answer], kind: type[Kind], otherwise: str, about: Sequence[str] = ()
) -> list[Kind]:
    """Answers that are all of one kind; raises as `ask` does.

    Args:
        tasks: what was asked.
        answers: to them, in their order.
        kind: of the answers.
        otherwise: what holds when a place failed, to be said in the error.
        about: the model that each task is about, to be said, too.
    """
    failures = [a for a in answers if isinstance(a, Failure)]
    if failures:
        by_text: dict[str, dict[str, list[str]]] = {}
        for answer, model in zip(answers, about or [""] * len(answers), strict=True):
            if isinstance(answer, Failure):
                by_text.setdefault(answer.text, {}).setdefault(answer.place, []).append(model)
        text = "; ".join(f"{_where(places)}: {said}" for said, places in by_text.items())
        if all(f.wrong_input for f in failures):
            raise InputError(f"{text} ({otherwise})")
        places = f"{len({f.place for f in failures})} of {len({t.place for t in tasks})} places"
        raise SiteError(f"{otherwise}; {places} failed: {text}")
    wrong = [t.place for t, a in zip(tasks, answers, strict=True) if not isinstance(a, kind)]
    if wrong:
        raise SiteError(f"{otherwise}; {', '.join(sorted(set(wrong)))} did not answer with {kind.__name__}")
    return [a for a in answers if isinstance(a, kind)]


def _where(places: Mapping[str, Sequence[str]]) -> str:
    """Places, and a few of the models there."""
    named = {place: [m for m in dict.fromkeys(models) if m] for place, models in places.items()}
    return few((f"{place} ({few(models, 3)})" if models else place for place, models in named.items()), 12)
