"""What is refused of messages, whoever sends them: answers from before or of others, another site's data, code in disguise."""

import ast
import os
import pickle
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

import fedunlearn
from fedunlearn.errors import SiteError
from fedunlearn.methods import FIUn
from fedunlearn.runtime import Family, unlearn
from fedunlearn.runtime.flower import Flower
from fedunlearn.runtime.flower.records import ARRAYS, CONFIG, RAW
from fedunlearn.runtime.tasks import Commit, Deposit, Failure, Fetch, Fetched, Measure, Question, Score, Task
from fedunlearn.scenario import Scenario, workers
from fedunlearn.training.flower import LocalGrid
from tests.conftest import LEAVE, snapshot
from tests.runtime.grids import Altered, acknowledged, app_of, content_of, nodes, over_grid

LAST = FIUn(layers="last")


def test_an_answer_from_before_is_not_taken_again(family: Family, hospitals: Scenario) -> None:
    """Of an earlier task, and of an earlier run: word for word what was a good answer then."""
    first: list[RecordDict] = []

    def replay(_: Message, reply: Message) -> list[Message]:
        first.append(reply.content)
        reply.content = first[0]
        return [reply]

    before, says = family.heads, "nothing was changed; 1 of . places failed: east: sent answers to another message; nothing"
    grid = Altered(workers(hospitals, family), replay, "east")
    for asked in (1, 2):  # the very first is taken, as it is no replay; nothing of the second run is
        with pytest.raises(SiteError, match=says):
            unlearn(family, LEAVE, LAST, Flower(grid, deadline=30, join=0))
        assert Family.open(family.folder).heads == before
        assert len(first) == asked + 1


class Overheard(LocalGrid):
    """Keeps what every node is told."""

    told: dict[str, RecordDict]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        kept = list(messages)
        self.told |= {str(self.contexts[m.metadata.dst_node_id].node_config["site"]): m.content for m in kept}
        return super().push_messages(kept)


def test_what_an_answer_must_repeat_is_told_to_nobody_else(family: Family, hospitals: Scenario) -> None:
    """A SuperLink lets a registered node answer in another's name, if it knows to what; it does not know what to repeat."""
    held, tasks = (
        workers(hospitals, family),
        [
            Commit("north", {}, {}, (family.ledger.lines[0].hash, "l")),
            Commit("south", {}, {}, (family.ledger.lines[0].hash, "l")),
        ],
    )
    grid = Overheard(app_of(held), nodes(held))
    grid.told = {}
    assert [acknowledged(a) for a in Flower(grid, deadline=5, join=0).carry(tasks)] == ["l"] * 2
    told = {place: str(content[CONFIG]["batch"]) for place, content in grid.told.items() if "batch" in content[CONFIG]}
    assert set(told) == {"north", "south"}
    assert len({*told.values()}) == 2
    forged = Altered(held, lambda _, reply: [content_of(reply, batch=told["south"])])
    north, south = Flower(forged, deadline=5, join=0).carry(tasks)
    assert isinstance(north, Failure)
    assert north.text == "sent answers to another message; nothing of it is used"
    assert acknowledged(south) == "l"


def elsewhere(family: Family) -> list[Task]:
    """Tasks of north that ask for what another place holds, by every name that a task has."""
    version = next(family.heads[m.name] for m in family.lineage.models if m.kept and m.home == "east")
    paths = (version, f"../../east/versions/{version}", str(family.store("east").folder / "versions" / version))
    shared = family.heads["shared"]
    sent = family.store("server").read(shared)
    weights = Fetched(sent.weights, sent.head)
    shards = ("../../east/main", "east/main", str(family.folder / "homes" / "east" / "main"))
    return [
        *(Fetch("north", path) for path in paths),
        *(Score("north", path, Question()) for path in paths),
        *(Measure("north", path, "main", "squares", "all", None, ()) for path in paths),
        *(Measure("north", shared, shard, "squares", "all", None, (), weights) for shard in shards),
        *(Deposit("north", shared, shard, weights) for shard in shards),
    ]


def test_a_site_gives_nothing_of_what_another_holds(family: Family, hospitals: Scenario) -> None:
    before, tasks = snapshot(family.folder), elsewhere(family)
    for task, answer in zip(tasks, over_grid(hospitals, family).carry(tasks), strict=True):
        assert isinstance(answer, Failure), task
        assert answer.place == "north"
    assert snapshot(family.folder) == before


class Trap:
    """What is done where this is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return os.mkdir, (self.path,)


def test_nobody_unpickles_what_a_site_sends(family: Family, hospitals: Scenario, tmp_path: Path) -> None:
    """Nor what it is sent: the same messages, to a site's app."""
    sprung = tmp_path / "sprung"
    raw, held = pickle.dumps(Trap(sprung)), np.array([Trap(sprung)], dtype=object)
    (tmp_path / "held.npy").write_bytes(b"")
    np.save(tmp_path / "held.npy", held, allow_pickle=True)
    npy = (tmp_path / "held.npy").read_bytes()
    arrays = [
        Array("object", (1,), "numpy.ndarray", npy),
        Array("float32", (1,), "numpy.ndarray", npy),
        Array("uint8", (len(raw),), RAW, raw),
        Array("float32", (1,), "pickle", raw),
    ]
    contents = [RecordDict({CONFIG: ConfigRecord({}), ARRAYS: ArrayRecord({"0/0:float32": array})}) for array in arrays]
    contents += [RecordDict({CONFIG: ConfigRecord({"protocol": 2, "batch": "b", "kinds": ["pickle"], "plain": [raw.hex()]})})]
    workers_ = workers(hospitals, family)
    for content in contents:
        said = [content]

        def answers(_: Message, reply: Message, said: list[RecordDict] = said) -> list[Message]:
            good = reply.content[CONFIG]
            reply.content = RecordDict({**said[0], CONFIG: ConfigRecord({**good, **said[0][CONFIG]})})
            return [reply]

        (answer,) = Flower(Altered(workers_, answers), deadline=5, join=0).carry(
            [Commit("north", {}, {}, (family.ledger.lines[0].hash, "l"))]
        )
        assert isinstance(answer, Failure)
        assert answer.text.startswith("sent what is no answer: ")
    assert not sprung.exists()
    sprung.mkdir()
    with pytest.raises(FileExistsError):  # the trap is one
        pickle.loads(raw)


def test_modules_that_handle_messages_know_no_way_to_run_what_they_carry() -> None:
    """Ray itself unpickles what it carries, which is why it asks for a token; `fedunlearn/runtime/ray.py` says so."""
    root = Path(fedunlearn.__file__).parent
    files = [*root.glob("runtime/**/*.py"), *root.glob("deployed/**/*.py"), root / "flower.py"]
    assert len(files) > 30
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            assert not {"pickle", "cloudpickle", "marshal", "dill", "joblib"} & {n.split(".")[0] for n in names}, path
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in {"eval", "exec", "torch.load", "np.load", "numpy.load"}, path
