"""Places as Ray actors. Each opens its own data where it runs; only tasks and answers go through the object store.

Ray trusts whoever reaches it: it listens on every interface, and what comes in is unpickled. A cluster started here asks for a
token that only this process and its actors know, unless your program had imported Ray before; a cluster of yours should ask
for one too (RAY_AUTH_MODE=token).

Long because Ray stands behind this one file.
"""

import os
import secrets
import socket
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from fedunlearn.errors import InputError, unknown
from fedunlearn.runtime.backend import Answerer, Backend, answer
from fedunlearn.runtime.codec import DTYPES, Packed, pack, unpack
from fedunlearn.runtime.tasks import Answer, Failure, Task
from fedunlearn.store.code import code

BIG = 64 << 10  # bytes from which a tensor that several places get is put into the object store, once
RETRIES = 2  # in a new actor, after one was lost, not by Ray, whose calls fail while it restarts one; tasks may be done twice
SHARE = 0.001  # of a declared `site:<name>`: it says where, not how many
LOCAL = {"include_dashboard": False}
LISTENING = 10.0  # seconds until a head node takes a connection
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}

MakeWorker = Callable[[], Answerer]


@dataclass(frozen=True)
class _Flat:
    """A tensor as Ray carries it without copies: its bytes, and its shape. The dtype is in its name (see `codec.Packed`)."""

    data: Any
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Message:
    kind: str
    plain: str
    tensors: Mapping[str, Any]  # _Flat, or a reference to one

    @property
    def size(self) -> int:
        return len(self.kind) + len(self.plain) + sum(int(t.data.nbytes) for t in self.tensors.values())


class _Site:
    """The actor: one place's worker, made there, at the first call."""

    def __init__(self, place: str, make: MakeWorker) -> None:
        self.place, self.make = place, make
        self.worker: Answerer | None = None

    def do(self, batch: Sequence[_Message]) -> tuple[list[_Message], float, dict[str, str]]:
        """Answers, the seconds that they took here, and which code was at work."""
        started = time.perf_counter()
        answers = self._answers([unpack(_raised(message)) for message in batch])  # type: ignore[misc]
        return answers, time.perf_counter() - started, code()

    def _answers(self, tasks: Sequence[Task]) -> list[_Message]:
        try:
            self.worker = self.worker or self.make()
        except Exception as error:  # the user's data or net may raise anything; it is named, and the next call tries again
            failure = Failure(self.place, f"cannot open: {error}", isinstance(error, InputError))
            return [_lowered(pack(failure), {}) for _ in tasks]
        return [self._packed(answer(self.worker, task, ())) for task in tasks]

    def _packed(self, given: Answer) -> _Message:
        try:
            return _lowered(pack(given), {})
        except Exception as error:  # a worker of the user's own may answer anything; the other answers still travel
            return _lowered(pack(Failure(self.place, f"its answer cannot be sent: {error}")), {})


class Ray(Backend):
    """One actor a place, made by a recipe that opens the place's own data. To be used in a `with` block.

    A place runs where the cluster declares the resource `site:<place>`; where it declares no `site:` at all, anywhere. A
    Ray that
    this process is connected to already is used and left running. An actor that dies is started anew and asked again.

    Args:
        sites: place -> what makes its worker; is sent to the actor and called there, for example `partial(open_it, folder,
            place)`.
        address: of a running cluster; without one, a cluster on this machine is started, and stopped at the end.
        deadline: seconds that one call of `carry` may take; a place that is later has failed, and its actor is ended.
        num_gpus: GPUs, or a fraction of one, of every actor; with 0 they compute on the CPU.
        num_cpus: of the cluster that is started; all by default.
    """

    def __init__(
        self,
        sites: Mapping[str, MakeWorker],
        address: str | None = None,
        *,
        deadline: float = 600.0,
        num_gpus: float = 0.0,
        num_cpus: int | None = None,
    ) -> None:
        self.sites, self.address, self.deadline = dict(sites), address, deadline
        self.num_gpus, self.num_cpus = num_gpus, num_cpus
        self.traffic: dict[str, tuple[int, int]] = {}
        """place -> bytes up (its answers) and down (its tasks), so far, retries included."""
        self.codes: dict[str, dict[str, str]] = {}
        self.seconds: dict[str, float] = {}
        """place -> seconds that it has worked, so far."""
        self._ray: Any = None
        self._started = False
        self._actors: dict[str, Any] = {}

    def __enter__(self) -> Self:
        """Connect, or start a cluster.

        Raises:
            InputError: Ray is missing, the cluster cannot be reached, or it lacks what is asked for.
        """
        self._ray = _import(local=self.address is None)
        _listening(self.address)
        if not self._ray.is_initialized():
            quiet = {"log_to_driver": False, "logging_level": "ERROR", "ignore_reinit_error": False}
            where = {"address": self.address} if self.address else {"address": "local", "num_cpus": self.num_cpus, **LOCAL}
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "Tip: In future versions of Ray", FutureWarning)  # QUIET chose already
                    self._ray.init(**where, **quiet)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise InputError(
                    f"Ray at {self.address or 'this machine'}: cannot be reached ({error}); is it running, and is its token in "
                    f"RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH?"
                ) from error
            self._started = True
        have = self._ray.cluster_resources().get("GPU", 0.0)
        slots = have * int(1 / self.num_gpus + 1e-9) if 0 < self.num_gpus < 1 else have // (self.num_gpus or 1)
        if self.num_gpus and slots < len(self.sites):
            self.__exit__()
            raise InputError(
                f"num_gpus: {self.num_gpus} for each of {len(self.sites)} places, but the cluster has {have:g} GPUs; give less "
                f"of one to each, or 0 to compute on CPUs"
            )
        return self

    def __exit__(self, *_: object) -> None:
        """End the actors, and the cluster if it was started here."""
        for place in list(self._actors):
            self._end(place)
        if self._started:
            self._ray.shutdown()
            self._started = False

    def carry(self, tasks: Sequence[Task]) -> list[Answer]:
        """Do all tasks of a place in one call, all places at once."""
        if self._ray is None:
            raise InputError("Ray: not started; use it as `with Ray(...) as backend:`")
        found: dict[int, Answer] = {}
        mine: dict[str, list[int]] = {}
        for i, task in enumerate(tasks):
            mine.setdefault(task.place, []).append(i)
        for place in list(mine):
            if (why := self._missing(place)) is not None:
                found.update(dict.fromkeys(mine.pop(place), why))
        batches = self._batches({place: [tasks[i] for i in where] for place, where in mine.items()})
        for place, got in self._collect(batches):
            found.update(zip(mine[place], got, strict=True))
            self.tell(f"{len(found)} of {len(tasks)} answers; {place} has given its {len(got)}")
        return [found[i] for i in range(len(tasks))]

    def _missing(self, place: str) -> Failure | None:
        """Why a place has no actor; makes it otherwise. Ray itself would wait for ever for what it does not have."""
        if place in self._actors:
            return None
        if place not in self.sites:
            return Failure(place, str(unknown("place", place, self.sites)))
        declared = {r for r in self._ray.cluster_resources() if r.startswith("site:")}
        if declared and f"site:{place}" not in declared:
            return Failure(
                place,
                f"offline: no machine of the cluster declares 'site:{place}' (declared: {', '.join(sorted(declared))}); "
                f"""start one with: ray start --address ... --resources '{{"site:{place}": 1}}'""",
                offline=True,
            )
        where = {f"site:{place}": SHARE} if declared else {}
        options = {"num_cpus": 0, "num_gpus": self.num_gpus, "resources": where, "max_restarts": 0, "max_task_retries": 0}
        self._actors[place] = self._ray.remote(_Site).options(**options).remote(place, self.sites[place])
        return None

    def _batches(self, tasks: Mapping[str, Sequence[Task]]) -> dict[str, list[_Message]]:
        """What every place gets; a tensor that goes to several places, or to one twice, is sent once."""
        flat: dict[Any, Any] = {}
        batches = {place: [_lowered(pack(t), flat) for t in todo] for place, todo in tasks.items()}
        goes = {place: {id(t): t.data.nbytes for m in batch for t in m.tensors.values()} for place, batch in batches.items()}
        for place, batch in batches.items():
            self._count(place, down=sum(goes[place].values()) + sum(len(m.kind) + len(m.plain) for m in batch))
        times = Counter(key for sizes in goes.values() for key in sizes)
        refs = {id(t): self._ray.put(t) for t in flat.values() if t.data.nbytes >= BIG and times[id(t)] > 1}
        return {
            place: [_Message(m.kind, m.plain, {n: refs.get(id(t), t) for n, t in m.tensors.items()}) for m in batch]
            for place, batch in batches.items()
        }

    def _collect(self, batches: Mapping[str, Sequence[_Message]]) -> Iterator[tuple[str, list[Answer]]]:
        """Every place's answers, as they come."""
        errors, ends = self._ray.exceptions, time.monotonic() + self.deadline
        lost_to = (errors.RayActorError, errors.WorkerCrashedError, errors.OutOfMemoryError, errors.ObjectLostError)
        waiting = {self._actors[place].do.remote(batch): place for place, batch in batches.items()}
        lost: Counter[str] = Counter()
        while waiting:
            ready, _ = self._ray.wait(list(waiting), timeout=max(0.0, ends - time.monotonic()))
            if not ready:
                break
            place = waiting.pop(ready[0])
            try:
                messages, seconds, self.codes[place] = self._ray.get(ready[0])
                got = [unpack(_raised(m)) for m in messages]
                self._count(place, up=sum(m.size for m in messages), seconds=seconds)
            except lost_to as error:
                lost[place] += 1
                self._end(place)
                if lost[place] <= RETRIES and self._missing(place) is None:
                    waiting[self._actors[place].do.remote(batches[place])] = place
                    continue
                yield place, self._failed(place, batches, f"its process died {lost[place]} times: {_short(error)}", True)
            except Exception as error:  # what an actor raises is of any kind
                yield place, self._failed(place, batches, _short(getattr(error, "cause", None) or error))
            else:
                yield place, got  # type: ignore[misc]  # that they are answers, and of the right kind, is for `ask`
        for place in waiting.values():
            self._end(place)  # whatever it hangs in
            yield place, self._failed(place, batches, f"no answer within {self.deadline:g} s", True)

    def _failed(self, place: str, batches: Mapping[str, Sequence[_Message]], why: str, offline: bool = False) -> list[Answer]:
        return [Failure(place, why, offline=offline) for _ in batches[place]]

    def _end(self, place: str) -> None:
        self._ray.kill(self._actors.pop(place), no_restart=True)

    def _count(self, place: str, up: int = 0, down: int = 0, seconds: float = 0.0) -> None:
        before = self.traffic.get(place, (0, 0))
        self.traffic[place] = (before[0] + up, before[1] + down)
        self.seconds[place] = self.seconds.get(place, 0.0) + seconds


def _lowered(packed: Packed, flat: dict[Any, Any]) -> _Message:
    """Tensors as bytes; those that lie in the same memory become the same object."""
    named = {}
    for name, t in packed.tensors.items():
        key = (t.data_ptr(), t.dtype, tuple(t.shape)) if t.numel() else (name, tuple(t.shape))
        if key not in flat:
            flat[key] = _Flat(t.reshape(-1).view(torch.uint8).numpy(), tuple(t.shape))
        named[name] = flat[key]
    return _Message(packed.kind, packed.plain, named)


def _raised(message: _Message) -> Packed:
    """Tensors of one's own: what comes out of the object store is read-only and shared."""
    import ray

    tensors = {}
    for name, given in message.tensors.items():
        held = given if isinstance(given, _Flat) else ray.get(given)
        own = torch.from_numpy(np.array(held.data, dtype=np.uint8))
        tensors[name] = own.view(DTYPES[name.partition(":")[2]]).reshape(held.shape)
    return Packed(message.kind, message.plain, tensors)


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[0]}" + (f" ... {lines[-1]}" if len(lines) > 1 else "")


def _listening(address: str | None) -> None:
    """Refuse HOST:PORT where nobody listens, which Ray itself tries for many minutes.

    Raises:
        InputError: nobody does.
    """
    host, colon, port = (address or "").rpartition(":")
    if not (colon and host and port.isdigit()):  # "auto", or another form of Ray's
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), LISTENING).close()
    except OSError as error:
        raise InputError(
            f"Ray at {address}: nobody listens there ({error}); is it running, and is the port its GCS port?"
        ) from error


def _import(local: bool) -> Any:
    """Ray, quiet; for a cluster of one's own, behind a token, which Ray asks the environment for when it is imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if local and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
    except ImportError as error:
        raise InputError('backend Ray: Ray is not installed; run: pip install "fedunlearn[ray]"') from error
    return ray
