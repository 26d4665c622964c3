"""One message to each of many nodes, and one answer of each, within a deadline."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

Key = TypeVar("Key")

RETRIES = 2
AGAIN = {3: "message unavailable", 4: "reply unavailable", 5: "node unavailable", 8: "client app crashed"}  # Flower's codes
SLOWEST = 1.0  # seconds between two looks for answers
LOOK = 5.0  # seconds between two looks for who is there


@dataclass(frozen=True)
class Outcome:
    """What became of one message.

    Args:
        content: of the answer; None where there is none.
        reason: why there is none.
        sends: how often it was sent.
        silent: whether the node was not there, lost or late, rather than failing or answered for by another.
    """

    content: RecordDict | None
    reason: str = ""
    sends: int = 0
    silent: bool = False


class Exchange(Generic[Key]):
    """Sends, looks for answers, sends again what a node was lost with, and gives up at the deadline.

    An answer counts when it is to a message that was sent here, comes from the node that was asked, and is the first.
    A node that is silent but there is not asked again (it would do the work twice, in turn) unless `patience` says so.

    Args:
        grid: carries.
        kind: the messages' type.
        letters: what each addressee gets.
        node_of: its node now; None while it is not there.
        deadline: seconds for all.
        patience: seconds of silence after which a message is sent again; None for never.
        absence: seconds for which an addressee may have no node; None for as long as there is time.
        tell: told how many of them are done with, whenever that changes.
    """

    def __init__(
        self,
        grid: Grid,
        kind: str,
        letters: Mapping[Key, RecordDict],
        node_of: Callable[[Key], int | None],
        deadline: float,
        patience: float | None = None,
        absence: float | None = None,
        tell: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._grid, self._kind, self._letters, self._node_of, self._patience = grid, kind, letters, node_of, patience
        self._tell = tell
        self._absence, self._away, self._look = absence, dict[Key, float](), 0.0
        self._deadline, self._until = deadline, time.monotonic() + deadline
        self._done: dict[Key, Outcome] = {}
        self._sent: dict[str, tuple[Key, int]] = {}  # message id -> who was asked
        self._sends = dict.fromkeys(letters, 0)
        self._due = dict.fromkeys(letters, 0.0)  # when to send (again)
        self._last: dict[Key, str] = {}

    def run(self) -> dict[Key, Outcome]:
        """Outcomes of all."""
        pause, broken, told = 0.01, False, 0
        try:
            while open_ := [k for k in self._letters if k not in self._done]:
                for key in open_:
                    if time.monotonic() >= self._due[key]:
                        self._send(key)
                self._miss(open_)
                for reply in self._grid.pull_messages(list(self._sent)) if self._sent else ():
                    self._receive(reply)
                if len(self._done) > told:
                    told = len(self._done)
                    self._tell(told)
                if time.monotonic() >= self._until:
                    break
                if any(k not in self._done for k in self._letters):
                    time.sleep(max(0.0, min(pause, self._until - time.monotonic())))
                    pause = min(2 * pause, SLOWEST)
        except Exception as error:  # the grid itself: no SuperLink, a message that it does not take
            broken = True
            for key in self._letters:
                self._last[key] = f"the grid failed: {type(error).__name__}: {error}"
        late = f"no answer within {self._deadline:g} s; it may be at work still"
        for key in self._letters:
            self._done.setdefault(key, Outcome(None, self._last.get(key, late), self._sends[key], silent=not broken))
        return {key: self._done[key] for key in self._letters}

    def _miss(self, open_: Sequence[Key]) -> None:
        """Give up whoever has had no node for too long: nobody else tells, as Flower keeps messages until their time ends."""
        now = time.monotonic()
        if self._absence is None or now < self._look:
            return
        self._look = now + min(LOOK, self._absence / 4)
        for key in open_:
            if self._node_of(key) is not None:
                self._away.pop(key, None)
            elif now - self._away.setdefault(key, now) >= self._absence:
                reason = f"has not been connected for {self._absence:g} s"
                self._done[key] = Outcome(None, reason, self._sends[key], silent=True)

    def _send(self, key: Key) -> None:
        left = self._until - time.monotonic()
        if self._sends[key] > RETRIES or left <= 0:
            self._due[key] = self._until
            return
        node = self._node_of(key)
        if node is None:
            self._last.setdefault(key, "is not connected")
            self._due[key] = time.monotonic() + min(SLOWEST, left / 10)
            return
        message = Message(self._letters[key], node, self._kind, ttl=left)
        self._sends[key] += 1
        names = [n for n in self._grid.push_messages([message]) if n]
        for name in names:
            self._sent[name] = (key, node)
        if names:
            self._due[key] = self._until if self._patience is None else time.monotonic() + self._patience
        else:
            self._lost(key, "its node takes no messages")

    def _receive(self, reply: Message) -> None:
        key, node = self._sent.pop(reply.metadata.reply_to_message_id, (None, 0))
        if key is None or key in self._done:
            return  # to nothing that was asked here, or answered before
        if reply.has_error():
            code, reason = reply.error.code, str(reply.error.reason)[:2000]
            if code in AGAIN:
                self._lost(key, f"{AGAIN[code]} (Flower's code {code}): {reason}")
            else:
                self._done[key] = Outcome(None, f"its app failed (Flower's code {code}): {reason}", self._sends[key])
        elif reply.metadata.src_node_id != node:
            self._done[key] = Outcome(None, f"node {reply.metadata.src_node_id} answered in its name", self._sends[key])
        else:
            self._done[key] = Outcome(reply.content, sends=self._sends[key])

    def _lost(self, key: Key, reason: str) -> None:
        self._last[key] = f"{reason} (sent {self._sends[key]} times)"
        if self._sends[key] > RETRIES:
            self._done[key] = Outcome(None, self._last[key], self._sends[key], silent=True)
        else:
            self._due[key] = time.monotonic() + min(self._deadline / 20 * self._sends[key], 10.0)
