"""What one process of a distributed training does, from its first import to its answer."""

import copy
import os
import pickle
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection

import torch
from blake3 import blake3
from torch import Tensor, distributed, nn
from torch.distributed import FileStore  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from fedunlearn.errors import FedUnlearnError, InputError, TrainingError, raised
from fedunlearn.nets import weights_of
from fedunlearn.tensors import Tensors
from fedunlearn.training.base import Portion, Recipe, seed_of
from fedunlearn.training.fit import Rank, fit, placed

BEAT = 1.0  # seconds between two signs of life


@dataclass(frozen=True)
class Job:
    """What a rank is told. Net and rows travel pickled: read here, where what goes wrong can be said.

    Args:
        names: of all ranks, in order.
        rank: which of them this is.
        recipe: settings.
        net: the net with its start weights, pickled.
        portions: the rank's rows, pickled.
        store: a file where the ranks find each other.
        patience: how long a rank waits for the others.
    """

    names: tuple[str, ...]
    rank: Rank
    recipe: Recipe
    net: bytes
    portions: bytes
    store: str
    patience: timedelta


@dataclass(frozen=True)
class Beat:
    """A sign of life."""


@dataclass(frozen=True)
class Done:
    """The rank has trained; the first one sends the weights."""

    weights: Tensors | None


@dataclass(frozen=True)
class Failed:
    """The rank has not trained.

    Args:
        when: on the clock that all processes of a machine share, to tell a cause from what it caused.
        what: the error's message.
        kind: its kind, where it is one of ours.
    """

    when: float
    what: str
    kind: type[FedUnlearnError] | None = None


def main(job: Job, out: Connection) -> None:
    """Train and answer; runs in a process of its own.

    Args:
        job: what to do.
        out: where signs of life and the answer go, pickled (not `send`, which would share tensors as open files).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, too, and ends its ranks
    torch.set_num_threads(1)
    answer: Done | Failed
    try:
        answer = Done(_train(job, out))
    except FedUnlearnError as error:
        answer = Failed(time.monotonic(), str(error), type(error))
    except Exception as error:  # whatever a net raises is the parent's to say
        answer = Failed(time.monotonic(), raised(error))
    with suppress(BrokenPipeError):  # nobody is left to be told
        out.send_bytes(pickle.dumps(answer))  # before the group is left: only then do the others complain of a lost peer
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _train(job: Job, out: Connection) -> Tensors | None:
    number = job.rank.number
    net, portions = _unpickled(job.net), pickle.loads(job.portions)
    torch.manual_seed(seed_of(job.recipe.seed, "dropout", str(number)))
    device, backend = _place(job)
    for loopback in {name for _, name in socket.if_nameindex()} & {"lo", "lo0"}:  # one machine: nothing listens outside
        os.environ.update(GLOO_SOCKET_IFNAME=loopback, NCCL_SOCKET_IFNAME=loopback)
    store = FileStore(job.store, job.rank.of)
    distributed.init_process_group(backend, store=store, rank=number, world_size=job.rank.of, timeout=job.patience)
    recipe = replace(job.recipe, device=device)
    _agree("start weights", net.state_dict(), job)
    unused = _unused(net, portions)
    wrapped = DistributedDataParallel(placed(net, recipe), find_unused_parameters=unused)
    wrapped.register_forward_pre_hook(_Pulse(out))
    fit(wrapped, portions, recipe, rank=job.rank)
    _agree("trained weights", dict(net.named_parameters()), job)
    return weights_of(net) if number == 0 else None


def _place(job: Job) -> tuple[str, str]:
    """The rank's device and the backend: nccl where every rank has a GPU of its own, otherwise gloo."""
    if torch.device(job.recipe.device).type != "cuda":
        return "cpu", "gloo"
    count = torch.cuda.device_count()
    if not count:
        raise InputError(
            f"training {job.recipe.name!r}: device is {job.recipe.device!r}, but there is no GPU here; use device cpu"
        )
    torch.cuda.set_device(job.rank.number % count)
    own = count >= job.rank.of and distributed.is_nccl_available()
    return f"cuda:{job.rank.number % count}", "nccl" if own else "gloo"


def _unpickled(data: bytes) -> nn.Module:
    try:
        net: nn.Module = pickle.loads(data)
    except Exception as error:  # a class that is not where its module says, or a module that raises
        raise InputError(
            f"a net cannot be made again in the process of a rank ({type(error).__name__}: {error}); "
            f"its class must be defined at the top level of a module that can be imported"
        ) from error
    return net


def _unused(net: nn.Module, portions: Sequence[Portion]) -> bool:
    """Whether the net has parameters that its loss does not depend on; averaging must then not wait for them."""
    probe = copy.deepcopy(net).eval()
    x = next(p.rows.x for p in portions if len(p.rows))
    probe(x[:1]).sum().backward()
    return any(p.requires_grad and p.grad is None for p in probe.parameters())


def _agree(what: str, tensors: Mapping[str, Tensor], job: Job) -> None:
    """Compare the ranks' tensors by digest.

    Raises:
        TrainingError: names the ranks that differ from the first.
    """
    digests: list[str] = [""] * job.rank.of
    distributed.all_gather_object(digests, digest(tensors))
    odd = [name for name, theirs in zip(job.names, digests, strict=True) if theirs != digests[0]]
    if odd:
        raise TrainingError(
            f"training {job.recipe.name!r}: ranks {', '.join(map(repr, odd))} disagree with rank {job.names[0]!r} on the "
            f"{what}, expected equal ones; nothing was kept; a net must not change its own parameters, or depend on its process"
        )


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names, shapes, types and values.

    Args:
        tensors: by name, in any order.
    """
    whole = blake3()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        whole.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        whole.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


class _Pulse:
    """Tells the parent, now and then, that a step has begun; ends the rank where nobody listens any more."""

    def __init__(self, out: Connection) -> None:
        self.out = out
        self.last = 0.0

    def __call__(self, *_: object) -> None:
        if time.monotonic() - self.last > BEAT:
            self.out.send_bytes(pickle.dumps(Beat()))
            self.last = time.monotonic()
