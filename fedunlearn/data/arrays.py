"""Rows from arrays, and from .npz files of them."""

import math
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedunlearn.data.rows import Rows
from fedunlearn.errors import InputError

ARRAYS = ("x", "images", "X", "y", "labels", "classes", "keys")  # in an .npz
MOST_UNNAMED = 1 << 16  # classes that are named by their numbers, where there are fewer rows
ANY_FILE = 1 << 30  # bytes that any file may unpack to
TIMES = 100  # as often what a bigger file has


def most_bytes(path: Path) -> int:
    """What a packed file may unpack to: more is made to fill memory, not to be read."""
    return max(ANY_FILE, TIMES * path.stat().st_size)


def rows_of(x: Any, y: Any, classes: Any, keys: Any, what: str) -> Rows:
    """Rows from whatever numpy takes for arrays.

    Args:
        x: numbers [N, ...]; bytes with more than one axis are pixels, scaled to [0, 1], and (height, width, channels) of
            1 or 3 channels become (channels, height, width).
        y: whole-number labels [N].
        classes: their names, which differ; by default the numbers from 0 to the greatest label.
        keys: names of the rows; by default their positions.
        what: where they came from, to say in an error.

    Returns:
        The rows, in memory of their own.

    Raises:
        InputError: these are no such arrays.
    """
    try:
        array, labels = np.asarray(x), np.asarray(y)
    except ValueError as error:
        raise InputError(f"{what}: x is not an array of equal rows: {error}") from error
    if array.dtype.kind not in "biuf" or array.ndim < 2 or labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise InputError(
            f"{what}: expected numbers x [N, ...] and whole-number labels y [N], got {array.dtype} "
            f"{array.shape} and {labels.dtype} {labels.shape}"
        )
    pixels = array.dtype == np.uint8 and array.ndim >= 3
    if pixels and array.ndim == 4 and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    held = np.array(array, dtype=np.float32, order="C")
    if pixels:
        held /= 255
    greatest = int(labels.max()) if len(labels) else -1
    if classes is None and greatest >= max(MOST_UNNAMED, len(labels)):
        raise InputError(f"{what}: labels run up to {greatest}; number them from 0, or give the names of the classes")
    try:
        names = tuple(str(c) for c in (range(greatest + 1) if classes is None else classes))
        stable = tuple(map(str, range(len(labels)) if keys is None else keys))
    except TypeError as error:
        raise InputError(f"{what}: classes and keys must be lists of names: {error}") from error
    if twice := [c for c, times in Counter(names).items() if times > 1]:
        raise InputError(
            f"{what}: class {twice[0]!r} is named {names.count(twice[0])} times; every class needs a name of its own"
        )
    try:
        return Rows(torch.from_numpy(held), torch.tensor(labels.astype(np.int64)), stable, names)
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def _array(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> Any:
    """An array whose header claims no more than is there: room for all that it claims is taken before any of it is read."""
    with archive.open(part) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"{part.filename}: of version {version} of the .npy format, expected 1.0 or 2.0")
        shape, _, dtype = read(file)
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > part.file_size:
            raise ValueError(f"{part.filename}: claims {dtype} of shape {str(shape)[:80]}, and has {part.file_size} bytes")
    with archive.open(part) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def read_npz(path: Path, what: str) -> Rows:
    """An .npz of `x` (or `images`, `X`), `y` (or `labels`) and, optionally, `classes` and `keys`.

    Args:
        path: the file.
        what: what it is, to say in an error.

    Raises:
        InputError: the file holds something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name.removesuffix(".npy") for name in archive.namelist())
            parts = [i for i in archive.infolist() if i.filename.removesuffix(".npy") in ARRAYS]
            if (claimed := sum(i.file_size for i in parts)) > most_bytes(path):
                raise ValueError(f"it unpacks to {claimed} bytes, expected at most {most_bytes(path)}")
            held = {part.filename.removesuffix(".npy"): _array(archive, part) for part in parts}
    except (ValueError, OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{what}: not a readable .npz file: {error}") from error
    x = next((held[k] for k in ("x", "images", "X") if k in held), None)
    y = next((held[k] for k in ("y", "labels") if k in held), None)
    if x is None or y is None:
        raise InputError(f"{what}: expected arrays x (or images, X) and y (or labels), found {names}")
    return rows_of(x, y, held.get("classes"), held.get("keys"), what)
