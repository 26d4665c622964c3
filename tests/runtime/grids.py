"""Flower grids in this process, and one whose replies a test alters."""

from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from fedunlearn.runtime import Family, Worker
from fedunlearn.runtime.flower import Flower, client_app
from fedunlearn.runtime.flower.records import ARRAYS, CONFIG
from fedunlearn.runtime.tasks import Answer, Committed
from fedunlearn.scenario import Scenario, workers
from fedunlearn.training.flower import LocalGrid


def app_of(held: dict[str, Worker], allowed: tuple[str, ...] = ()) -> ClientApp:
    return client_app(lambda context: held[str(context.node_config["site"])], allowed)


def nodes(places: Iterable[str]) -> dict[int, dict[str, str]]:
    return {100 + i: {"site": place} for i, place in enumerate(sorted(places))}


def over_grid(scenario: Scenario, family: Family, allowed: tuple[str, ...] = ()) -> Flower:
    held = workers(scenario, family)
    return Flower(LocalGrid(app_of(held, allowed), nodes(held)), deadline=30, join=0)


def acknowledged(answer: Answer) -> str:
    """The ledger line that a place says it has acknowledged."""
    assert isinstance(answer, Committed), answer
    return answer.line


class Altered(LocalGrid):
    """Does something to the replies to tasks of one site, or to what becomes of them."""

    def __init__(
        self, held: dict[str, Worker], alter: Callable[[Message, Message], list[Message]], site: str = "north"
    ) -> None:
        super().__init__(app_of(held), nodes(held))
        self.alter, self.site, self.asked = alter, site, 0
        self.held_back: list[Message] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = []
        for message in messages:
            names = list(super().push_messages([message]))
            sent += names
            site = self.contexts[message.metadata.dst_node_id].node_config["site"]
            if site == self.site and message.metadata.message_type == "query.fedunlearn":
                self.asked += 1
                self.held_back += [r for n in names for r in self.alter(message, self._replies.pop(n))]
        return sent

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        given, self.held_back = self.held_back, []
        return [*given, *super().pull_messages(message_ids)]


def content_of(reply: Message, **config: Any) -> Message:
    changed = RecordDict({CONFIG: ConfigRecord({**reply.content[CONFIG], **config}), ARRAYS: reply.content[ARRAYS]})
    reply.content = changed
    return reply
