"""Distributed data parallel: ranks with disjoint shards, one process each, one model, averaged gradients."""

import multiprocessing
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

from torch import nn

from fedunlearn.errors import InputError, TrainingError
from fedunlearn.nets import load
from fedunlearn.tensors import Tensors
from fedunlearn.training.base import Born, Portion, Recipe, born
from fedunlearn.training.fit import Rank, fit
from fedunlearn.training.rank import Beat, Done, Failed, Job, main

PATIENCE = timedelta(minutes=10)  # how long a rank waits for the others, and the parent for a sign of life
GRACE = 3.0  # seconds in which the other ranks may say what they saw when one has failed
_STARTING = threading.Lock()


def distributed(recipe: Recipe, make: Callable[[], nn.Module], start: Tensors, ranks: Mapping[str, Sequence[Portion]]) -> Born:
    """Train one model on the mean of the ranks' gradients; its data lies at every rank.

    Every rank is a process of its own on this machine, joined by torch's DistributedDataParallel: nccl where every rank has
    a GPU, otherwise gloo over the loopback. Ranks without rows take no part; a rank that is left alone trains here, without
    processes. Buffers (BatchNorm's statistics) are the first rank's, as DistributedDataParallel broadcasts them.

    The processes do not run the caller's script again, unless the net's class is defined in it: then the script must hold
    what it does under `if __name__ == "__main__":`.

    Args:
        recipe: settings; `batch` is the sum over ranks.
        make: makes an empty net, of a class at the top level of a module.
        start: the weights to start from.
        ranks: portions of each rank.

    Returns:
        The model.

    Raises:
        ExcludedError: a portion holds rows that its site has excluded; no process was started.
        InputError: ranks hold rows of different classes or shapes, or the net cannot be sent to a process.
        ShapeError: training diverged.
        TrainingError: a rank died, raised, fell silent, or ended with other weights than the first. Nothing is kept.
    """
    portions = [p for held in ranks.values() for p in held]
    for portion in portions:
        portion.exclusions.check(portion.shard, portion.rows)
    active = {name: full for name, held in ranks.items() if (full := [p for p in held if len(p.rows)])}
    net = load(make(), start)
    if len(active) < 2:
        return born("distributed", recipe, fit(net, portions, recipe), portions)
    _alike(recipe, active)
    return born("distributed", recipe, load(net, _together(recipe, net, active)), portions)


def _alike(recipe: Recipe, active: Mapping[str, Sequence[Portion]]) -> None:
    """Refuse ranks whose rows could not have been one set.

    Raises:
        InputError: names both ranks.
    """
    first, *others = [(name, p.rows) for name, held in active.items() for p in held]
    for name, rows in others:
        pairs = {
            "classes": (rows.classes, first[1].classes),
            "inputs of shape": (tuple(rows.x.shape[1:]), tuple(first[1].x.shape[1:])),
            "inputs of type": (rows.x.dtype, first[1].x.dtype),
        }
        for what, (theirs, expected) in pairs.items():
            if theirs != expected:
                raise InputError(
                    f"training {recipe.name!r}: rank {name!r} has {what} {theirs}, rank {first[0]!r} has {expected}; "
                    f"expected the same at every rank; change the data of one"
                )


@dataclass(frozen=True)
class _Member:
    """A rank as the parent sees it."""

    name: str
    process: BaseProcess
    heard: Connection


def _together(recipe: Recipe, net: nn.Module, active: Mapping[str, Sequence[Portion]]) -> Tensors:
    """Start the ranks, wait for their answers, and leave no process behind."""
    sent = _pickled(recipe, net)
    each = max(1, recipe.batch // len(active))
    steps = max(-(-sum(len(p.rows) for p in held) // each) for held in active.values())
    members: list[_Member] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            for number, (name, held) in enumerate(active.items()):
                rank = Rank(number, len(active), steps)
                store = str(Path(folder, "store"))
                job = Job(tuple(active), rank, recipe, sent, pickle.dumps(held), store, PATIENCE)
                members.append(_started(name, job))
            return _answer(recipe, members)
        finally:
            for member in members:
                member.process.kill()
                member.process.join()
                member.process.close()
                member.heard.close()


def _pickled(recipe: Recipe, net: nn.Module) -> bytes:
    try:
        return pickle.dumps(net)
    except Exception as error:  # pickle raises its own, AttributeError, TypeError, or what a class raises
        raise InputError(
            f"training {recipe.name!r}: a net of class {type(net).__name__} cannot be sent to the process of a rank ({error}); "
            f"its classes must be importable: defined at the top level of a module, and without lambdas inside"
        ) from error


def _started(name: str, job: Job) -> _Member:
    context = _context()
    heard, out = context.Pipe(duplex=False)
    process = context.Process(target=main, args=(job, out), name=f"rank {name}", daemon=True)
    with _STARTING, nullcontext() if b"__main__" in job.net else _hidden_main():
        process.start()
    out.close()
    return _Member(name, process, heard)


def _context() -> ForkServerContext | SpawnContext:
    """Processes from a server that has imported torch once; fresh ones where the system has no such server."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    preload = ["fedunlearn.training.rank", "torch._dynamo"]  # DDP imports the second, for a second in every rank
    context.set_forkserver_preload(preload)
    return context


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Keep multiprocessing from running the caller's script again in the new process, which has no use for it."""
    shown = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = shown


def _answer(recipe: Recipe, members: Sequence[_Member]) -> Tensors:
    """The weights of the first rank, once every rank is done.

    Raises:
        FedUnlearnError: of the kind that a rank raised, or TrainingError.
    """
    answers: dict[str, Done | Failed | None] = {}
    end = time.monotonic() + PATIENCE.total_seconds()
    whole = True
    while len(answers) < len(members):
        waiting = {m.heard: m for m in members if m.name not in answers}
        ready = wait(list(waiting), timeout=max(0.0, end - time.monotonic()))
        if not ready and whole:
            raise TrainingError(
                f"training {recipe.name!r}: no sign of life from {_listed(m.name for m in waiting.values())} for "
                f"{PATIENCE.total_seconds():g} s; all ranks were ended and nothing was kept; train again, with a smaller batch "
                f"if a step takes that long"
            )
        if not ready:
            break
        for member in (waiting[heard] for heard in waiting if heard in ready):
            said = _said(member)
            if not isinstance(said, Beat):
                answers[member.name] = said
            if whole:
                whole = isinstance(said, Beat | Done)
                end = time.monotonic() + (PATIENCE.total_seconds() if whole else GRACE)
    if not whole:
        raise _failure(recipe, members, answers)
    return next(a.weights for a in answers.values() if isinstance(a, Done) and a.weights is not None)


def _said(member: _Member) -> Beat | Done | Failed | None:
    """What a rank says; None when it is gone without a word."""
    try:
        said: Beat | Done | Failed = pickle.loads(member.heard.recv_bytes())
    except (EOFError, OSError):
        return None
    return said


def _failure(recipe: Recipe, members: Sequence[_Member], answers: Mapping[str, Done | Failed | None]) -> Exception:
    """What went wrong first: an error of ours, a rank that died, or else the earliest complaint."""
    failed = sorted(((n, a) for n, a in answers.items() if isinstance(a, Failed)), key=lambda pair: pair[1].when)
    for _, said in failed:
        if said.kind is not None:
            return said.kind(said.what)
    silent = [m.name for m in members if m.name not in answers]
    end = "the other ranks were ended and nothing was kept"
    for member in members:
        if member.name in answers and answers[member.name] is None:
            member.process.join(GRACE)
            return TrainingError(
                f"training {recipe.name!r}: rank {member.name!r} died with {_exit(member.process.exitcode)}; {end}; "
                f"see whether the machine ran out of memory, and train again"
            )
    name, said = failed[0]
    more = f"; no word from {_listed(silent)}" if silent else ""
    return TrainingError(f"training {recipe.name!r}: rank {name!r} raised {said.what}{more}; {end}; mend that and train again")


def _exit(code: int | None) -> str:
    with suppress(ValueError):
        if code is not None and code < 0:
            return f"exit code {code} ({signal.Signals(-code).name})"
    return f"exit code {code}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"rank {n!r}" for n in names)
