"""Writing so that a crash leaves the old file or the new one, never half of either."""

import os
from pathlib import Path

TEMPORARY = ".writing"


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary file, fsync, rename, fsync the folder.

    Args:
        path: where; its folder is made if it is missing.
        data: what.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TEMPORARY)
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
