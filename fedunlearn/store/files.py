"""Writing and erasing so that a crash leaves the old file or the new one, never half of either."""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from blake3 import blake3
from safetensors import SafetensorError
from safetensors.torch import load, save

TEMPORARY = ".writing"


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary file, fsync, rename, fsync the folder.

    Args:
        path: where; its folder is made if it is missing.
        data: what.

    Raises:
        OSError: it cannot be written, with its name; what was there before still is, and nothing half-written is left.
    """
    replace_atomically(path, lambda temporary: temporary.write_bytes(data))


def replace_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """The same for whatever writes the temporary file itself.

    Args:
        path: where; its folder is made if it is missing.
        write: writes a file of the name that it is given.

    Raises:
        OSError: as `write_atomically`.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # if somebody made a link of it, what it points to would be written
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def with_hash(data: bytes) -> bytes:
    """The bytes behind 32 bytes of their BLAKE3; `behind_hash` is the inverse."""
    return blake3(data).digest() + data


def behind_hash(raw: bytes) -> bytes:
    """The inverse of `with_hash`.

    Raises:
        ValueError: content and hash do not agree.
    """
    if blake3(raw[32:]).digest() != raw[:32]:
        raise ValueError("content and hash do not agree")
    return raw[32:]


def tensors_in(data: bytes) -> dict[str, torch.Tensor]:
    """What a safetensors file holds.

    Raises:
        ValueError: it is none, or holds what torch has no type or shape for.
    """
    try:
        return load(data)
    except (SafetensorError, KeyError, RuntimeError, OverflowError) as error:
        raise ValueError(f"not a safetensors file that torch can read: {str(error)[:200]}") from error


def file_of(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file: the same bytes every time, so that a hash of it, noted once, tells it for ever.

    The library orders tensors, but writes metadata in another order at every call: its header is written anew.
    """
    raw = save(dict(tensors), metadata=dict(metadata))
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    ordered = {"__metadata__": dict(sorted(metadata.items())), **{n: header[n] for n in header if n != "__metadata__"}}
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + raw[end:]


def erase(path: Path) -> None:
    """Unlink a file, durably. It may be gone already."""
    if path.exists():
        path.unlink()
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
