"""A Flower Grid in this process: real messages to a real ClientApp, no SuperLink, milliseconds instead of seconds."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import NoReturn

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedunlearn.errors import InputError

CLIENT_APP_RAISED = 2  # the code that a deployed SuperNode answers with
_IDENTITY = ("_task_id", "_run_id", "_node_id")


class LocalGrid(Grid):
    """Answers every message by calling a ClientApp.

    What the ClientApp raises becomes an error reply, as it does in a deployment; the exception itself is in `failures`.

    Args:
        app: the ClientApp.
        nodes: node id -> its node_config.
        run_config: what every node's Context says of the run.
    """

    def __init__(
        self,
        app: ClientApp,
        nodes: Mapping[int, Mapping[str, str | int | float | bool]],
        run_config: Mapping[str, str | int | float | bool] | None = None,
    ) -> None:
        self.contexts = {i: Context(1, i, dict(config), RecordDict(), dict(run_config or {})) for i, config in nodes.items()}
        self.failures: dict[int, Exception] = {}
        self._app = app
        self._ids = count(1)
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """There is only one run."""

    @property
    def run(self) -> NoReturn:
        """There is no record of a run."""
        raise InputError("a grid in this process has no run to tell about; run the app with `flwr run` for that")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes, in the order in which they were given."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Let the nodes answer, one after another."""
        sent = []
        for message in messages:
            name = f"message-{next(self._ids)}"
            message.metadata.__dict__["_message_id"] = name  # what a SuperLink would do
            self._replies[name] = self._answer(message)
            sent.append(name)
        return sent

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The answers, each once."""
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, then pull; nothing here is ever late."""
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        try:
            return self._app(message, self.contexts[node])
        except Exception as error:  # whatever the app raises is its node's answer
            self.failures[node] = error
            return Message(Error(CLIENT_APP_RAISED, f"{type(error).__name__}: {error}"), reply_to=message)


@contextmanager
def at_server() -> Iterator[None]:
    """Who this process is, while a ServerApp or a strategy runs in it: messages cannot be made by nobody.

    A process that Flower itself started stays who it is. Flower's log tells of errors only meanwhile.
    """
    log = logging.getLogger("flwr")
    level, before = log.level, {name: getattr(TaskIdentity, name) for name in _IDENTITY}
    log.setLevel(max(level, logging.ERROR))
    try:
        for name, value in before.items():
            setattr(TaskIdentity, name, 1 if value is None else value)
        yield
    finally:
        for name, value in before.items():
            setattr(TaskIdentity, name, value)
        log.setLevel(level)
