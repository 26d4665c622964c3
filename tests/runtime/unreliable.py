"""What a place suffers when a file beside it says so, and what must hold of the family afterwards, whatever it suffered.

The file is read at every task, so it reaches a place in whatever process it is. One order: the `kind` of task and
`what` befalls it, after how many `seconds`, and how often (`left`).
"""

import json
import os
import pickle
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedunlearn.errors import FedUnlearnError, InputError
from fedunlearn.runtime import Family, Worker, behind
from fedunlearn.runtime.tasks import Answer, Committed, Task
from fedunlearn.scenario import workers
from fedunlearn.scenario.files import of_family
from fedunlearn.store import write_atomically

ORDER = "order.json"
ANSWER = "answer.pickle"  # the last one that went out by message
PID, LENT = "pid", "lent"


def order(folder: Path, what: str, kind: str, seconds: float = 0.0, times: int = 1) -> None:
    """Have a place suffer something."""
    _write(folder, {"what": what, "kind": kind, "seconds": seconds, "left": times, "done": 0})


def _write(folder: Path, told: Mapping[str, Any]) -> None:
    write_atomically(folder / ORDER, json.dumps(told).encode())  # it is read meanwhile


def suffered(folder: Path) -> int:
    """How often it has."""
    return int(json.loads((folder / ORDER).read_text())["done"])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def obey(folder: Path, task: Task, do: Callable[[], Answer]) -> tuple[Answer, str]:
    """Do a task as the order says; its answer, and what is to become of the message that it goes in."""
    told = json.loads((folder / ORDER).read_text()) if (folder / ORDER).exists() else {"left": 0}
    if not told["left"] or told["kind"] != type(task).__name__:
        return do(), ""
    told |= {"left": told["left"] - 1, "done": told["done"] + 1}
    _write(folder, told)
    match told["what"]:
        case "killed at work":
            timer = threading.Timer(told["seconds"], die)
            timer.start()
            do()
            timer.join()
        case "killed after it":
            do()
            die()
        case "hangs":
            time.sleep(told["seconds"])
        case "hangs after it":
            do()
            time.sleep(told["seconds"])
        case "twice":
            do()
        case "another":
            return Committed("another"), ""
        case "no answer":
            return "rubbish", ""  # type: ignore[return-value]
    return do(), told["what"]


class Unreliable:
    """A worker that obeys; opened anew whenever its family was put back."""

    methods = ()

    def __init__(self, folder: Path, place: str) -> None:
        self.folder, self.place, self.lent = folder, place, ""

    def handle(self, task: Task) -> Answer:
        write_atomically(self.folder.parent / self.place / PID, str(os.getpid()).encode())
        lent = (self.folder.parent / LENT).read_text()
        if lent != self.lent:
            family = Family.open(self.folder)
            self.worker, self.lent = workers(of_family(family), family)[self.place], lent
        return obey(self.folder.parent / self.place, task, lambda: self.worker.handle(task))[0]


def lend(trained: Path, folder: Path) -> None:
    """Copy a family for its places to spoil, each of which has a folder for its orders beside it."""
    shutil.copytree(trained, folder)
    for place in Family.open(folder).places:
        (folder.parent / place).mkdir(exist_ok=True)
        order(folder.parent / place, "nothing", "none", times=0)
    (folder.parent / LENT).write_text(str(time.monotonic_ns()))


def suffer(folder: Path) -> None:
    """Have all workers and messages of this process obey: for a site in a process of its own, from its owner's own code."""
    from flwr.app import RecordDict

    from fedunlearn.runtime.flower import records

    handle = Worker.handle
    becomes: list[str] = []

    def handled(self: Worker, task: Task) -> Answer:
        answer, what = obey(folder, task, lambda: handle(self, task))
        becomes.append(what)
        return answer

    def sent(parts: Any) -> RecordDict:
        content, last = RecordDict(parts), folder / ANSWER
        before = pickle.loads(last.read_bytes()) if last.exists() else content
        last.write_bytes(pickle.dumps(content))
        if "garbage" in becomes:
            return RecordDict({})
        return before if "replayed" in becomes else content

    Worker.handle = handled  # type: ignore[method-assign]
    records.RecordDict = sent  # type: ignore[assignment,misc]  # what an answer becomes, once all tasks are done


def law(
    folder: Path, act: Callable[[], Mapping[str, Any]], facts: Mapping[str, Any], heads: Mapping[str, str], named: str,
    settled: Callable[[], object],
) -> str:  # fmt: skip
    """The same record; or nothing changed, and who failed is named; or committed, and who is not there yet is named.

    Args:
        folder: of the family, where its coordinator is.
        act: makes the family forget; gives the facts.
        facts: of a request that nothing befell.
        heads: after it.
        named: what an error must name.
        settled: settles when nothing befalls anybody any more.
    """
    before, failed, found = dict(Family.open(folder).heads), "", {}
    try:
        found = plain(act())
    except InputError:
        raise  # not what a place that fails is told by
    except FedUnlearnError as error:
        failed = str(error)
    after = Family.open(folder)
    if not failed:
        assert found == plain(facts)
        assert after.heads == heads
        assert not behind(after)
        return "same"
    assert named in failed
    if after.heads == before:
        assert "nothing was changed" in failed
        return "nothing"
    assert after.heads == heads
    assert "not yet everywhere" in failed
    assert set(behind(after)) <= {named}  # it may have done it, and its answer been lost
    settled()
    assert not behind(Family.open(folder))
    return "late"


def plain(facts: Mapping[str, Any]) -> Any:
    """Facts as they stand in a ledger."""
    return json.loads(json.dumps(facts))
