"""Writing and erasing so that a crash leaves the old file or the new one, never half of either."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

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
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


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
