"""Over a Flower grid the same things happen as in this process; and a site that lies, dies or keeps silent is named."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo

from fedunlearn.errors import SiteError
from fedunlearn.methods import FIUn
from fedunlearn.report import document, page
from fedunlearn.runtime import Family, Worker, rollback, unlearn
from fedunlearn.runtime.codec import Packed, pack
from fedunlearn.runtime.flower import Flower, add_handlers, client_app
from fedunlearn.runtime.flower.nodes import Nodes
from fedunlearn.runtime.flower.records import CONFIG, from_records, to_records
from fedunlearn.runtime.tasks import Commit, Committed, Failure, Fetch, Fetched, Survey, Surveyed, Task
from fedunlearn.scenario import Scenario, workers
from fedunlearn.store.code import code
from fedunlearn.tensors import equal
from fedunlearn.training.flower import LocalGrid
from fedunlearn.training.flower.grid import at_server
from tests.conftest import LEAVE, snapshot
from tests.runtime.grids import Altered, acknowledged, app_of, content_of, nodes, over_grid


class Mine(FIUn):
    """A method of the user's own."""

    name = "mine"


def test_rollback_goes_over_the_grid(trained: Path, family: Family, hospitals: Scenario) -> None:
    backend = over_grid(hospitals, family)
    unlearn(family, LEAVE, "logit_mask", backend)
    assert family.heads != Family.open(trained).heads
    rollback(family, backend, lift_exclusion=True)
    assert Family.open(family.folder).heads == Family.open(trained).heads


def lost(message: Message, _: Message) -> list[Message]:
    return [Message(Error(5, "Node Unavailable"), reply_to=message)]


def silent(_: Message, __: Message) -> list[Message]:
    return []


def raising(message: Message, _: Message) -> list[Message]:
    return [Message(Error(2, "<class 'OSError'>:<'disk is gone'>"), reply_to=message)]


def replaced(*messages: Packed) -> Callable[[Message, Message], list[Message]]:
    def alter(_: Message, reply: Message) -> list[Message]:
        batch, packed = from_records(reply.content)
        reply.content = to_records(batch, list(messages) * len(packed))
        return [reply]

    return alter


def garbage(_: Message, reply: Message) -> list[Message]:
    reply.content = RecordDict({CONFIG: ConfigRecord({"x": 1})})
    return [reply]


def elsewhere(_: Message, reply: Message) -> list[Message]:
    reply.metadata.__dict__["_src_node_id"] = 4711
    return [reply]


BAD = [
    (raising, r"its app failed \(Flower's code 2\): <class 'OSError'>:<'disk is gone'>"),
    (silent, "no answer within 1 s; it may be at work still"),
    (lost, r"node unavailable \(Flower's code 5\): Node Unavailable \(sent 3 times\)"),
    (garbage, r"sent what is no answer: a message with records \['fedunlearn'\], expected"),
    (lambda _, r: [content_of(r, protocol=7)], "a message of protocol '7', expected 2; update one of both sides"),
    (lambda _, r: [content_of(r, batch="of before")], "sent answers to another message; nothing of it is used"),
    (lambda _, r: [content_of(r, kinds=[], plain=[])], r"sent 0 answers to \d tasks|belongs to none of 0 messages"),
    (replaced(Packed("builtins.eval", "{}", {})), "message of unknown kind 'builtins.eval'; known: fetch"),
    (replaced(Packed("measured", "{}", {})), r"measured: got missing \["),
    (replaced(pack(Fetch("north", "v"))), r"sent a task \(fetch\), expected an answer"),
    (replaced(pack(Committed("line"))), " did not answer with Measured"),
    (elsewhere, "node 4711 answered in its name"),
]


@pytest.mark.parametrize(("alter", "says"), BAD)
def test_a_site_that_fails_or_lies_is_named_and_nothing_moves(
    alter: Callable[[Message, Message], list[Message]], says: str, family: Family, hospitals: Scenario
) -> None:
    before = snapshot(family.folder)
    grid = Altered(workers(hospitals, family), alter)
    with pytest.raises(SiteError, match=rf"(?s)nothing was changed; .*north.*(?:{says})"):
        unlearn(family, LEAVE, FIUn(layers="last"), Flower(grid, deadline=1, join=0))
    assert snapshot(family.folder) == before
    assert grid.asked == (3 if alter is lost else 1)


@pytest.fixture
def asked(family: Family, hospitals: Scenario) -> list[Task]:
    """Two tasks of north and one of another place."""
    home = {m.home: family.heads[m.name] for m in family.lineage.models if m.kept}
    return [
        Commit("north", {}, {}, (family.ledger.lines[0].hash, "l")),
        Fetch("server", home["server"]),
        Survey("north", ("main",)),
    ]


def test_the_record_says_where_other_code_worked(family: Family, hospitals: Scenario) -> None:
    """As a site says itself; of one that works with this very code nothing is said."""
    older = [f"{name}={version}" for name, version in (code() | {"fedunlearn": "0.0.9", "torch": "2.5.0"}).items()]
    grid = Altered(workers(hospitals, family), lambda _, reply: [content_of(reply, code=older)])
    record = unlearn(family, LEAVE, FIUn(layers="last"), Flower(grid, deadline=30, join=0))
    told = {"north": {"fedunlearn": "0.0.9", "torch": "2.5.0"}}
    line = Family.open(family.folder).ledger.lines[-1]
    assert line.body["record"]["facts"]["codes"] == told == record.to_json()["codes"]
    assert "Other code at north</dt><dd>fedunlearn 0.0.9, torch 2.5.0, as it says itself" in page(document(family, line, {}))


@pytest.mark.parametrize("first", [lost, silent])
def test_a_site_that_comes_back_is_asked_again(
    first: Callable[[Message, Message], list[Message]], asked: list[Task], family: Family, hospitals: Scenario
) -> None:
    grid = Altered(workers(hospitals, family), lambda m, r: first(m, r) if grid.asked < 3 else [r])
    backend = Flower(grid, deadline=5, join=0, patience=0.05)
    answers = backend.carry(asked)
    assert acknowledged(answers[0]) == "l"
    assert isinstance(answers[2], Surveyed)
    assert grid.asked == 3
    up, down = backend.traffic["north"]
    assert down == 3 * sum(len(p.kind) + len(p.plain) for p in map(pack, (asked[0], asked[2])))
    assert 0 < up < down


@pytest.mark.parametrize("back", [True, False])
def test_a_site_that_goes_while_it_is_asked_is_not_waited_for_until_the_deadline(
    back: bool, asked: list[Task], family: Family, hospitals: Scenario
) -> None:
    """Its message stays where it is, and nobody tells that its node is gone; one that comes back in time answers."""

    class Leaving(Altered):
        looks = 0

        def get_nodes(self) -> list[NodeInfo]:
            return [NodeInfo(node_id=node, name=str(c.node_config["site"])) for node, c in self.there().items()]

        def get_node_ids(self) -> list[int]:
            return list(self.there())

        def there(self) -> dict[int, Context]:
            gone = bool(self.asked) and not (back and self.looks > 2)
            self.looks += self.asked
            return {n: c for n, c in self.contexts.items() if not (gone and c.node_config["site"] == self.site)}

        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            if self.asked and not (back and self.looks > 2):
                held, self.held_back = self.held_back, []
                found = super().pull_messages(message_ids)
                self.held_back = held
                return found
            return super().pull_messages(message_ids)

    grid = Leaving(workers(hospitals, family), lambda _, reply: [reply])
    answers = Flower(grid, deadline=600, join=5.0 if back else 0.2).carry(asked)
    if back:
        assert acknowledged(answers[0]) == "l"
    else:
        assert answers[0] == Failure("north", "has not been connected for 0.2 s", offline=True)
    assert isinstance(answers[1], Fetched)


def test_an_answer_counts_once_and_only_to_what_was_asked(asked: list[Task], family: Family, hospitals: Scenario) -> None:
    """Twice, and one to a message that nobody sent: both are ignored."""
    strays: list[Message] = []

    def alter(message: Message, reply: Message) -> list[Message]:
        stray = Message(RecordDict({}), reply_to=message)
        stray.metadata.__dict__["_reply_to_message_id"] = "somebody else's"
        strays.append(stray)
        second = Message(RecordDict({}), reply_to=message)
        return [stray, reply, second]

    answers = Flower(Altered(workers(hospitals, family), alter), deadline=5, join=0).carry(asked)
    assert acknowledged(answers[0]) == "l"
    assert isinstance(answers[2], Surveyed)
    assert strays


def test_a_method_of_ones_own_runs_only_where_the_site_allows_it(family: Family, hospitals: Scenario) -> None:
    name = f"{Mine.__module__}:{Mine.__qualname__}"
    before = snapshot(family.folder)
    with pytest.raises(
        SiteError, match=rf"method '{name}' is not allowed at \w+; it allows steer, .*logit_mask.*, and its owner"
    ):
        unlearn(family, LEAVE, Mine(), over_grid(hospitals, family))
    assert snapshot(family.folder) == before
    assert not unlearn(family, LEAVE, Mine(), over_grid(hospitals, family, (name,))).nothing


def test_a_task_for_another_place_is_not_done(family: Family, hospitals: Scenario) -> None:
    held = workers(hospitals, family)
    grid = LocalGrid(app_of(held), nodes(held))
    swapped = {"north": next(n for n, c in grid.contexts.items() if c.node_config["site"] == "server")}
    answers = Flower(grid, swapped, deadline=5).carry([Commit("north", {}, {}, (family.ledger.lines[0].hash, "line"))])
    assert answers == [Failure("north", "this is 'server', the task is for 'north'; nothing was done")]


def test_missing_sites_are_all_named_while_the_others_answer(asked: list[Task], family: Family, hospitals: Scenario) -> None:
    held = workers(hospitals, family)
    backend = Flower(LocalGrid(app_of(held), nodes(set(held) - {"north", "west"})), deadline=5, join=0.1)
    with pytest.raises(
        SiteError, match=r"2 of 3 places are missing after 0.1 s: north: no node is this site; there are .*; west: "
    ):
        backend.wait(["north", "server", "west"])
    answers = backend.carry(asked)
    assert isinstance(answers[0], Failure)
    assert answers[0].text.startswith("no node is this site; there are ")
    assert not isinstance(answers[1], Failure)
    assert "north" not in backend.traffic or backend.traffic["north"] == (0, 0)


class Named(LocalGrid):
    """A SuperLink that knows some nodes by name."""

    names: dict[int, str]

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=n, name=self.names.get(n)) for n in self.contexts]


def test_a_site_is_who_the_superlink_says_and_a_claim_does_not_overrule_it(family: Family, hospitals: Scenario) -> None:
    held = workers(hospitals, family)
    grid = Named(app_of(held), {1: {"site": "north"}, 2: {"site": "north"}, 3: {"site": "server"}, 4: {"site": "server"}})
    grid.names = {1: "north"}
    backend = Flower(grid, deadline=5, join=0)
    north, server = backend.carry(
        [
            Commit("north", {}, {}, (family.ledger.lines[0].hash, "l")),
            Commit("server", {}, {}, (family.ledger.lines[0].hash, "l")),
        ]
    )
    assert acknowledged(north) == "l"
    assert server == Failure("server", "nodes 3, 4 all say that they are it; register nodes by name")
    assert backend.nodes.of("north") == 1


def test_who_did_not_come_is_looked_for_once_and_not_waited_for_again(
    family: Family, hospitals: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, looks, look = workers(hospitals, family), list[float](), Nodes._look
    monkeypatch.setattr(Nodes, "_look", lambda self, seconds: (looks.append(seconds), look(self, seconds)))
    found = Nodes(LocalGrid(app_of(held), nodes(set(held) - {"north"})), None, 1.2)
    with at_server():
        for at_least, at_most in ((2, 9), (1, 1), (1, 1)):
            looks.clear()
            found.find(["north", "east"])
            assert at_least <= len(looks) <= at_most
            assert (found.of("north"), found.of("east") is None) == (None, False)
        looks.clear()
        with pytest.raises(SiteError, match="1 of 1 places are missing"):
            found.wait(["north"])  # who is waited for by name is
    assert len(looks) >= 2


def test_a_node_that_comes_late_is_waited_for(family: Family, hospitals: Scenario) -> None:
    held = workers(hospitals, family)
    grid = LocalGrid(app_of(held), nodes(["server"]))
    looks = iter([False, False, True])
    all_nodes = grid.get_node_ids

    def ids() -> Iterable[int]:
        return all_nodes() if next(looks, True) else []

    grid.get_node_ids = ids  # type: ignore[method-assign]
    (answer,) = Flower(grid, deadline=5, join=5).carry([Commit("server", {}, {}, (family.ledger.lines[0].hash, "l"))])
    assert acknowledged(answer) == "l"


def test_our_handlers_join_an_app_that_trains(family: Family, hospitals: Scenario) -> None:
    app = ClientApp()

    @app.train()
    def fit(message: Message, context: Context) -> Message:
        return Message(message.content, reply_to=message)

    held = workers(hospitals, family)
    assert add_handlers(app, lambda c: held["server"]) is app
    grid = LocalGrid(app, {1: {"partition-id": 0}})  # no `site`: the worker says who it is
    version = family.heads[next(m.name for m in family.lineage.models if m.kept and m.home == "server")]
    (answer,) = Flower(grid, deadline=5, join=0).carry([Fetch("server", version)])
    assert isinstance(answer, Fetched)
    assert equal(answer.weights, family.store("server").read(version).weights)


def test_a_client_that_raises_is_told_from_one_that_refuses(family: Family, hospitals: Scenario) -> None:
    def nobody(_: Context) -> Worker:
        raise OSError("the disk is gone")

    grid = LocalGrid(client_app(nobody), nodes(["north"]))
    answers = Flower(grid, deadline=5, join=0).carry([Commit("north", {}, {}, (family.ledger.lines[0].hash, "l"))] * 2)
    assert answers == [Failure("north", "its app failed (Flower's code 2): OSError: the disk is gone")] * 2
    refused = over_grid(hospitals, family).carry([Fetch("north", "no such version")])
    assert isinstance(refused[0], Failure)
    assert refused[0].wrong_input


def test_a_grid_that_fails_is_a_failure_of_every_place(asked: list[Task], family: Family, hospitals: Scenario) -> None:
    class Down(LocalGrid):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            raise ConnectionError("no SuperLink")

    held = workers(hospitals, family)
    grid = Down(app_of(held), nodes(held))
    answers = Flower(grid, {"north": 100, "server": 101}, deadline=5).carry(asked)
    assert {a.text for a in answers if isinstance(a, Failure)} == {"the grid failed: ConnectionError: no SuperLink"}
    assert len(answers) == 3
