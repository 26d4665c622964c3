"""Does one thing to copies of a small family again and again, each time stopped at another point; a program of its own.

It forks a child for each try, so that torch is imported once; it never trains itself, as autograd does not survive a fork.
`python -m tests.store.kills WORK MODE:OP:TRIES ...` writes one folder a try and prints, as JSON, what became of each.

Modes: "kill" stops at the n-th durable call (with what was not yet synced cut in half), "time" after a random while, both by
SIGKILL; "full" lets every durable call from the n-th on fail as on a full disk; "readonly" lets all writing fail.
"""

import errno
import io
import json
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: a pool of threads does not survive a fork

import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from fedunlearn.data import open_rows
from fedunlearn.errors import FedUnlearnError, SiteError
from fedunlearn.lineage import Request
from fedunlearn.methods import FIUn
from fedunlearn.runtime import Family, InProcess, collect, erase_sealed, rollback, seal, settle, unlearn
from fedunlearn.scenario import Scenario, assess, of_family, train, workers
from fedunlearn.scenario.files import parse

CALLS = ("fsync", "replace", "truncate", "unlink", "rmdir")
WRONG = 3
LEAVE = Request(classes=("0",))


def scenario() -> Scenario:
    models = {
        "shared": {"born": "federated", "clients": ["north", "south"], "rounds": 1, "epochs": 2, "strategy": "fedadam"},
        "eastern": {"born": "incremental", "from": ["shared"], "site": "north", "epochs": 1},
    }
    data = {"set": "digits", "shards": "iid", "seed": 7}
    return parse({"name": "small", "data": data, "net": {"name": "mlp", "hidden": 4}, "models": models}, "kills")


def at(folder: Path) -> tuple[Family, InProcess]:
    family = Family.open(folder)
    return family, InProcess(workers(of_family(family), family))


def forget(folder: Path) -> None:
    unlearn(at(folder)[0], LEAVE, FIUn(layers="last"), at(folder)[1], accept_untested="a test", reason="a test")


def back(folder: Path) -> None:
    rollback(*at(folder), lift_exclusion=True)


def promise(folder: Path) -> None:
    """Seal while all places are away: each owes it."""
    with suppress(SiteError):
        seal(at(folder)[0], InProcess({}))


def catch_up(folder: Path) -> None:
    settle(*at(folder))
    erase_sealed(*at(folder))


def test(folder: Path) -> None:
    family, backend = at(folder)
    assess(family, family.ledger.lines[-1], "quick", backend, retrained=False)


OPS: dict[str, tuple[Callable[[Path], Any], str]] = {  # what is done, and what was done before it
    "train": (lambda folder: train(scenario(), folder), ""),
    "unlearn": (forget, "train"),
    "rollback": (back, "unlearn"),
    "gc": (lambda folder: collect(at(folder)[0], at(folder)[0].places), "rollback"),
    "seal": (lambda folder: seal(*at(folder)), "unlearn"),
    "evaluate": (test, "unlearn"),
    "promise": (promise, "unlearn"),
    "settle": (catch_up, "promise"),
}


def count_or_stop(steps: int, mode: str) -> Callable[[], int]:
    """From now on, durable calls are counted, and the one of that number is the last that is begun."""
    seen = [0]

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen[0] += 1
            if seen[0] > steps and mode == "full":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if seen[0] > steps:
                if name == "fsync":
                    with suppress(OSError):  # a folder
                        lose(args[0])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(name, getattr(os, name)))
    return lambda: seen[0]


def lose(handle: int) -> None:
    """Of a file that was not yet synced, half of its last line is lost."""
    data = Path(f"/proc/self/fd/{handle}").read_bytes()
    start = data.rstrip(b"\n").rfind(b"\n") + 1
    os.ftruncate(handle, start + (len(data) - start) // 2)


def read_only() -> None:
    """From now on, nothing can be opened to be written, made, moved or removed."""

    def refused(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "somewhere")

    opened, handle = io.open, os.open
    io.open = lambda file, mode="r", *a, **k: (refused if set(mode) & set("wax+") else opened)(file, mode, *a, **k)  # type: ignore[assignment, misc]
    os.open = lambda path, flags, *a, **k: (refused if flags & (os.O_RDWR | os.O_WRONLY) else handle)(path, flags, *a, **k)  # type: ignore[assignment]
    for name in (*CALLS[1:], "mkdir", "rename"):
        setattr(os, name, refused)


def child(work: Callable[[], Any], prepare: Callable[[], Any] = lambda: None, after: float | None = None) -> int:
    """Exit status, or minus the signal, of a process of its own that does this; killed after so many seconds."""
    process = os.fork()
    if process == 0:
        status = WRONG
        try:
            prepare()
            work()
            status = 0
        except (FedUnlearnError, OSError) as error:
            status = 1
            sys.stderr.write(f"{error}\n")
        finally:
            sys.stderr.flush()
            os._exit(status)
    if after is not None:
        time.sleep(after)
        os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def base(work: Path, name: str) -> Path:
    """The family as it is before an operation."""
    do, before = OPS[name]
    folder = work / f"base-{name}"
    if not folder.exists():
        if before:
            shutil.copytree(base(work, before), folder)
        assert child(lambda: do(folder)) == 0, name
    return folder


def warm() -> None:
    """Import what training and opening rows would import first thing in every child."""
    open_rows("digits")
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    for optimizer in (torch.optim.SGD([weight], 0.1), torch.optim.Adam([weight])):
        optimizer.step()


def attempts(work: Path, mode: str, name: str, tries: int) -> dict[str, Any]:
    """Stop an operation at so many points."""
    do, before = OPS[name]
    done, copy, counted = base(work, name), work / f"whole-{mode}-{name}", work / "count"
    if before:
        shutil.copytree(base(work, before), copy)
    began = time.monotonic()

    def whole() -> None:
        count = count_or_stop(10**9, "kill")
        do(copy)
        counted.write_text(str(count()))

    assert child(whole) == 0
    length, total = time.monotonic() - began, int(counted.read_text())
    assert total, f"{name} writes nothing: there is nothing to stop"
    chance, found = random.Random(len(name)), []
    for number in range(tries):
        folder = work / f"{mode}-{name}-{number}"
        if before:
            shutil.copytree(base(work, before), folder)
        steps = number * total // tries
        after = chance.random() * length if mode == "time" else None
        prepare = {"time": lambda: None, "readonly": read_only}.get(mode, lambda n=steps: count_or_stop(n, mode))
        status = child(lambda to=folder: do(to), prepare, after)
        found.append({"folder": str(folder), "status": status, "steps": steps})
    return {"before": str(base(work, before)) if before else "", "done": str(done), "steps": total, "tries": found}


def main() -> None:
    warm()
    work = Path(sys.argv[1])
    told = {what: attempts(work, *what.split(":")[:2], int(what.split(":")[2])) for what in sys.argv[2:]}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
