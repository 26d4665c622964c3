"""A Backend over a Flower Grid: one message a site, and what came back."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flwr.serverapp import Grid

from fedunlearn.runtime.backend import Backend
from fedunlearn.runtime.codec import CodecError, Packed, pack, unpack
from fedunlearn.runtime.flower.exchange import Exchange, Outcome
from fedunlearn.runtime.flower.nodes import Nodes
from fedunlearn.runtime.flower.records import TASKS, code_in, from_records, to_records, volume
from fedunlearn.runtime.tasks import Answer, Failure, Task
from fedunlearn.training.flower.grid import at_server


class Flower(Backend):
    """Carries tasks over a Grid: inside a ServerApp, or over one in this process. Sites are found as `Nodes` says.

    Args:
        grid: carries messages.
        sites: site -> node; without it, nodes are asked who they are.
        deadline: seconds that one call of `carry` may take once the nodes are found; a site that is later has failed.
        join: seconds to wait for the sites that are asked for, and for one that goes while it is asked.
        patience: seconds of silence after which a message is sent again, at most twice; by default never, as Flower tells of
            nodes that are lost, and those are sent theirs again.
    """

    def __init__(
        self,
        grid: Grid,
        sites: Mapping[str, int] | None = None,
        *,
        deadline: float = 600.0,
        join: float = 60.0,
        patience: float | None = None,
    ) -> None:
        self.nodes = Nodes(grid, sites, join)
        self.grid, self.deadline, self.join, self.patience = grid, deadline, join, patience
        self.traffic: dict[str, tuple[int, int]] = {}  # tasks that were sent again included, whoami not
        self.codes: dict[str, dict[str, str]] = {}

    def wait(self, places: Sequence[str]) -> None:
        """Wait until all places are there.

        Raises:
            SiteError: some are not, by `join`; names them all.
        """
        with at_server():
            self.nodes.wait(places)

    def carry(self, tasks: Sequence[Task]) -> list[Answer]:
        """One message to every place, with all its tasks."""
        answers: dict[int, Answer] = {}
        todo: dict[str, dict[int, Packed]] = {}
        for i, task in enumerate(tasks):
            try:
                packed = pack(task)
            except CodecError as error:
                answers[i] = Failure(task.place, str(error), wrong_input=True)
            else:
                todo.setdefault(task.place, {})[i] = packed
        # A SuperLink takes a registered node's word for which node it is when it answers: what only the node that was asked
        # knows, an answer must repeat.
        batch = {place: secrets.token_hex(16) for place in todo}
        with at_server():
            self.nodes.find(todo)
            there = {p: to_records(batch[p], list(mine.values())) for p, mine in todo.items() if self.nodes.of(p) is not None}
            exchange = Exchange(
                self.grid, TASKS, there, self.nodes.again, self.deadline, self.patience, self.join,
                tell=lambda done: self.tell(f"{done} of {len(there)} places answered"),
            )  # fmt: skip
            outcomes = exchange.run()
        for place, mine in todo.items():
            outcome = outcomes.get(place) or self._nowhere(place)
            self._count(place, 0, outcome.sends * (volume(there[place]) if place in there else 0))
            answers |= dict(zip(mine, self._answers(place, outcome, batch[place], len(mine)), strict=True))
        return [answers[i] for i in range(len(tasks))]

    def _nowhere(self, place: str) -> Outcome:
        return Outcome(None, self.nodes.absence(place), silent=not self.nodes.contested(place))

    def _answers(self, place: str, outcome: Outcome, batch: str, asked: int) -> list[Answer]:
        """Answers of one place, which are untrusted: whatever is not an answer to this very message is a failure."""
        if outcome.content is None:
            return [Failure(place, outcome.reason, offline=outcome.silent)] * asked
        try:
            answered, packed = from_records(outcome.content)
            said = code_in(outcome.content)
        except CodecError as error:
            return [Failure(place, f"sent what is no answer: {error}")] * asked
        self._count(place, volume(outcome.content), 0)
        if answered != batch or len(packed) != asked:
            what = f"{len(packed)} answers to {asked} tasks" if answered == batch else "answers to another message"
            return [Failure(place, f"sent {what}; nothing of it is used")] * asked
        self.codes[place] = said
        return [_opened(place, one) for one in packed]

    def _count(self, place: str, up: int, down: int) -> None:
        before = self.traffic.get(place, (0, 0))
        self.traffic[place] = (before[0] + up, before[1] + down)


def _opened(place: str, packed: Packed) -> Answer:
    try:
        found = unpack(packed)
    except CodecError as error:
        return Failure(place, f"sent what is no answer: {error}")
    if isinstance(found, Task):
        return Failure(place, f"sent a task ({packed.kind}), expected an answer")
    return replace(found, place=place, offline=False) if isinstance(found, Failure) else found
