"""Names of tensors, of packs and of versions, from their content."""

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from blake3 import blake3

from fedunlearn.errors import ShapeError
from fedunlearn.tensors import Head, Tensors, finite

FORMAT = 2  # of versions
THREADS = min(8, os.cpu_count() or 1)
BIG = 1 << 18  # bytes of a tensor that is worth a thread
FIXED = 1 << 17  # bytes that are hashed in the time that each tensor takes besides, whatever its size


def names_of(weights: Tensors) -> dict[str, str]:
    """Each tensor's name, from its content, by parameter.

    Raises:
        ShapeError: one is NaN or infinite.
    """
    names = sorted(weights)
    hashes = _each(lambda tensor: hash_of(tensor) if finite(tensor) else "", [weights[n] for n in names])
    found = dict(zip(names, hashes, strict=True))
    for name in (n for n in names if not found[n]):
        raise ShapeError(f"weights of {name!r} are NaN or infinite; such a version is not kept")
    return found


def hashes_of(tensors: Iterable[torch.Tensor]) -> list[str]:
    """The name of each."""
    return _each(hash_of, tensors)


def _each(work: Callable[[torch.Tensor], str], tensors: Iterable[torch.Tensor]) -> list[str]:
    """Done for all, shared out among threads by size, the largest first: while one is hashed, Python's lock is free.

    The caller's thread takes a share: one more than there are cores would take Python's lock, and a core, from the others.
    """
    every = list(tensors)
    found = [""] * len(every)
    shares: list[list[int]] = [[] for _ in range(min(THREADS, sum(tensor.nbytes >= BIG for tensor in every)) or 1)]
    loads = [0] * len(shares)
    for i in sorted(range(len(every)), key=lambda i: -every[i].nbytes):
        least = loads.index(min(loads))
        shares[least].append(i)
        loads[least] += every[i].nbytes + FIXED

    def take(share: list[int]) -> None:
        for i in share:
            found[i] = work(every[i])

    others = [_pool().submit(take, share) for share in shares[1:]]
    take(shares[0])
    for other in others:
        other.result()
    return found


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that stay: starting them takes as long as hashing two megabytes. A process that was forked has none of them."""
    return ThreadPoolExecutor(THREADS)


os.register_at_fork(after_in_child=_pool.cache_clear)


def content_of(tensors: Mapping[str, str], head: Head, net: str = "") -> dict[str, Any]:
    """What a version's name is the hash of: names of its tensors by parameter, its head, and its net where it has its own."""
    content = {"format": FORMAT, "head": {"layer": head.layer, "classes": list(head.classes)}, "tensors": dict(tensors)}
    return content | ({"net": net} if net else {})


def pack_name(tensors: Iterable[str]) -> str:
    """A pack's name, from the names of its tensors."""
    return blake3("\n".join(sorted(tensors)).encode()).hexdigest()


def hash_of(tensor: torch.Tensor) -> str:
    """A tensor's name, from its content."""
    plain = tensor.detach().cpu().contiguous()
    found = blake3(f"{plain.dtype}|{tuple(plain.shape)}|".encode())
    return found.update(plain.reshape(-1).view(torch.uint8).numpy().data).hexdigest()
