"""The roll of a request: which places are there, and whether to go on without those that are not."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from fedunlearn.errors import InputError
from fedunlearn.runtime.backend import Backend, check
from fedunlearn.runtime.tasks import Failure, Task

Kind = TypeVar("Kind")


@dataclass
class Roll:
    """Keeps the roll. A place that has been missed once is not asked again for the same request.

    Only silence is gone past: what answers with an error, a refusal or nonsense stops the request, whatever the quorum.

    Args:
        places: all that the request needs.
        quorum: the least share of them that must be there; 1 for all of them.
        absent: place -> why it is taken to be offline.
    """

    places: Collection[str]
    quorum: float = 1.0
    absent: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.quorum <= 1:
            raise InputError(f"quorum {self.quorum:g}: expected a share of the places, from 0 (whoever is there) to 1 (all)")

    def ask(
        self, backend: Backend, tasks: Sequence[Task], kind: type[Kind], *, otherwise: str = "nothing was changed",
        about: Sequence[str] = (),
    ) -> list[Kind | None]:  # fmt: skip
        """Carry tasks that all answer in one kind.

        Args:
            backend: carries them.
            tasks: what is asked.
            kind: of the answers.
            otherwise: what holds when a place fails, to be said in the error.
            about: the model that each task is about, to be said, too.

        Returns:
            The answers, in the order of the tasks; None for a place that is not there.

        Raises:
            InputError: what was asked for is wrong.
            SiteError: places failed, refused, or answered something else, or fewer than the quorum are there.
        """
        asked = [i for i, task in enumerate(tasks) if task.place not in self.absent]
        answers = dict(zip(asked, backend.carry([tasks[i] for i in asked]) if asked else [], strict=True))
        offline = {a.place: a.text for a in answers.values() if isinstance(a, Failure) and a.offline}
        if self.present(offline) >= self.quorum * len(self.places) - 1e-9:
            self.absent |= offline
            answers = {i: a for i, a in answers.items() if not (isinstance(a, Failure) and a.offline)}
        elif self.quorum < 1:
            there = f"{self.present(offline)} of {len(self.places)} places are there, quorum {self.quorum:g}"
            before = f" ({', '.join(self.absent)} did not answer before)" if self.absent else ""
            otherwise = f"{otherwise}; {there}{before}"
        mine, of = [tasks[i] for i in answers], [about[i] for i in answers] if about else ()
        checked = dict(zip(answers, check(mine, list(answers.values()), kind, otherwise, of), strict=True))
        return [checked.get(i) for i in range(len(tasks))]

    def present(self, missing: Collection[str] = ()) -> int:
        """How many of the places are there, those just missed apart."""
        return sum(p not in self.absent and p not in missing for p in self.places)
