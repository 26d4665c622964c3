"""Names of tensors and of packs, from their content."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from blake3 import blake3

from fedunlearn.errors import ShapeError
from fedunlearn.tensors import Tensors, finite

THREADS = min(8, os.cpu_count() or 1)
BIG = 1 << 18  # bytes of a tensor that is worth a thread


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
    """Done for all, big ones a few at a time: while one is hashed, Python's lock is free. Small ones are not worth it.

    The largest come first: one that came last would be waited for by idle threads.
    """
    every = list(tensors)
    big = sorted((i for i, tensor in enumerate(every) if tensor.nbytes >= BIG), key=lambda i: -every[i].nbytes)
    if len(big) < 2:
        return [work(tensor) for tensor in every]
    with ThreadPoolExecutor(THREADS) as pool:
        later = {i: pool.submit(work, every[i]) for i in big}
        found = {i: work(tensor) for i, tensor in enumerate(every) if i not in later}
        return [later[i].result() if i in later else found[i] for i in range(len(every))]


def pack_name(tensors: Iterable[str]) -> str:
    """A pack's name, from the names of its tensors."""
    return blake3("\n".join(sorted(tensors)).encode()).hexdigest()


def hash_of(tensor: torch.Tensor) -> str:
    """A tensor's name, from its content."""
    plain = tensor.detach().cpu().contiguous()
    found = blake3(f"{plain.dtype}|{tuple(plain.shape)}|".encode())
    return found.update(plain.reshape(-1).view(torch.uint8).numpy().data).hexdigest()
