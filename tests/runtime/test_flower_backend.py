"""Over a Flower grid the same things happen as in this process; and a site that lies, dies or keeps silent is named."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo

from fedunlearn.errors import SiteError
from fedunlearn.methods import FIUn
from fedunlearn.runtime import Family, Worker, rollback, unlearn
from fedunlearn.runtime.codec import CodecError, Packed, pack
from fedunlearn.runtime.flower import Flower, add_handlers, client_app
from fedunlearn.runtime.flower.records import ARRAYS, CONFIG, from_records, to_records, volume
from fedunlearn.runtime.tasks import Commit, Committed, Failure, Fetch, Fetched, Survey, Surveyed, Task
from fedunlearn.scenario import Scenario, workers
from fedunlearn.tensors import Head, equal
from fedunlearn.training.flower import LocalGrid
from tests.conftest import LEAVE, snapshot


class Mine(FIUn):
    """A method of the user's own."""


def app_of(held: dict[str, Worker], allowed: tuple[str, ...] = ()) -> ClientApp:
    return client_app(lambda context: held[str(context.node_config["site"])], allowed)


def nodes(places: Iterable[str]) -> dict[int, dict[str, str]]:
    return {100 + i: {"site": place} for i, place in enumerate(sorted(places))}


def over_grid(scenario: Scenario, family: Family, allowed: tuple[str, ...] = ()) -> Flower:
    held = workers(scenario, family)
    return Flower(LocalGrid(app_of(held, allowed), nodes(held)), deadline=30, join=0)


def test_rollback_goes_over_the_grid(trained: Path, family: Family, hospitals: Scenario) -> None:
    backend = over_grid(hospitals, family)
    unlearn(family, LEAVE, "logit_mask", backend)
    assert family.heads != Family.open(trained).heads
    rollback(family, backend, lift_exclusion=True)
    assert Family.open(family.folder).heads == Family.open(trained).heads


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
    return [Commit("north", {}, {}, "l", 2), Fetch("server", home["server"]), Survey("north", ("main",))]


@pytest.mark.parametrize("first", [lost, silent])
def test_a_site_that_comes_back_is_asked_again(
    first: Callable[[Message, Message], list[Message]], asked: list[Task], family: Family, hospitals: Scenario
) -> None:
    grid = Altered(workers(hospitals, family), lambda m, r: first(m, r) if grid.asked < 3 else [r])
    backend = Flower(grid, deadline=5, join=0, patience=0.05)
    answers = backend.carry(asked)
    assert answers[0] == Committed("l")
    assert isinstance(answers[2], Surveyed)
    assert grid.asked == 3
    up, down = backend.traffic["north"]
    assert down == 3 * sum(len(p.kind) + len(p.plain) for p in map(pack, (asked[0], asked[2])))
    assert 0 < up < down


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
    assert answers[0] == Committed("l")
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
    answers = Flower(grid, swapped, deadline=5).carry([Commit("north", {}, {}, "line", 2)])
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
    north, server = backend.carry([Commit("north", {}, {}, "l", 2), Commit("server", {}, {}, "l", 2)])
    assert north == Committed("l")
    assert server == Failure("server", "nodes 3, 4 all say that they are it; register nodes by name")
    assert backend.nodes.of("north") == 1


def test_a_node_that_comes_late_is_waited_for(family: Family, hospitals: Scenario) -> None:
    held = workers(hospitals, family)
    grid = LocalGrid(app_of(held), nodes(["server"]))
    looks = iter([False, False, True])
    all_nodes = grid.get_node_ids

    def ids() -> Iterable[int]:
        return all_nodes() if next(looks, True) else []

    grid.get_node_ids = ids  # type: ignore[method-assign]
    assert Flower(grid, deadline=5, join=5).carry([Commit("server", {}, {}, "l", 2)]) == [Committed("l")]


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
    answers = Flower(grid, deadline=5, join=0).carry([Commit("north", {}, {}, "l", 2)] * 2)
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


def test_what_several_tasks_have_in_common_is_sent_once() -> None:
    weights = torch.rand(100, 100)
    one = pack(Fetched({"w": weights}, Head("w", ("a",))))
    other = pack(Fetched({"w": torch.rand(100, 100)}, Head("w", ("a",))))
    content = to_records("b", [one, other, one])
    assert len(content[ARRAYS]) == 2
    assert volume(content) < 2 * 40_000 + 1_000
    for sent, back in zip([one, other, one], from_records(content)[1], strict=True):
        assert (back.kind, back.plain) == (sent.kind, sent.plain)
        assert all(torch.equal(back.tensors[n], t) for n, t in sent.tensors.items())


@pytest.mark.parametrize("same", ["2/0:float32=9/0:float32", "0/0:float32=1/0:float32", "7/0:float32=0/0:float32", "x"])
def test_what_is_said_to_be_another_tensor_must_be_one(same: str) -> None:
    made = [pack(Fetched({"w": torch.rand(3)}, Head("w", ("a",)))) for _ in range(2)]
    content = to_records("b", made)
    content[CONFIG]["same"] = [same]
    with pytest.raises(CodecError, match=r"is said to be another|belongs to none of 2 messages"):
        from_records(content)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (Array("float32", (3,), "fedunlearn.raw", b"12345678"), r"8 bytes do not make float32 of shape \(3,\)"),
        (Array("float32", (-1,), "fedunlearn.raw", b""), "0 bytes do not make"),
        (Array("object", (1,), "fedunlearn.raw", b"12345678"), "got 'fedunlearn.raw' of 'object', expected 'fedunlearn.raw'"),
        (Array(torch.ones(2).numpy()), "got 'numpy.ndarray' of 'float32', expected 'fedunlearn.raw'"),
        (Array("bool", (1,), "fedunlearn.raw", b"\x02"), "neither true nor false"),
        (Array("float32", (0, 2**62, 2**62), "fedunlearn.raw", b""), "empty, of an absurd shape"),
    ],
)
def test_arrays_are_read_as_bytes_and_nothing_else(array: Array, says: str) -> None:
    content = to_records("b", [Packed("fetched", "{}", {})])
    content[ARRAYS] = ArrayRecord({"0/0:float32": array})
    with pytest.raises(CodecError, match=says):
        from_records(content)


def test_records_bring_every_kind_of_tensor_back() -> None:
    made = {
        "0:bfloat16": torch.tensor([1.5, float("nan")]).bfloat16(),
        "1:bool": torch.tensor(True),
        "2:int64": torch.empty(0, 3, dtype=torch.int64),
        "3:float64": torch.rand(2, 3, dtype=torch.float64),
    }
    batch, (packed,) = from_records(to_records("b", [Packed("fetched", "{}", made)]))
    assert (batch, packed.kind, packed.plain, list(packed.tensors)) == ("b", "fetched", "{}", list(made))
    for name, tensor in made.items():
        found = packed.tensors[name]
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))
