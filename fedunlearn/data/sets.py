"""Data by name, from an .npz file, or from the user's own loader."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedunlearn.data.rows import Rows
from fedunlearn.dotted import call
from fedunlearn.errors import InputError, unknown


def digits() -> Rows:
    """1,797 handwritten digits, 8x8 grey, from scikit-learn; pixels scaled to [0, 1]."""
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    bunch = load_digits()
    return _rows(bunch.images / 16.0, bunch.target, [str(c) for c in range(10)], None, "set 'digits'")


SETS: dict[str, Callable[[], Rows]] = {"digits": digits}


def open_rows(name: str) -> Rows:
    """A whole set: a name of `SETS`, or the path of an .npz file.

    An .npz holds `x` (or `images`, `X`), `y` (or `labels`) and, optionally, `classes` and `keys`; whole-number pixels are
    scaled to [0, 1], images of (height, width, channels) become (channels, height, width).

    Raises:
        InputError: no such set or file, or the file holds something else.
    """
    if name in SETS:
        return SETS[name]()
    if not name.endswith(".npz"):
        raise unknown("data set", name, SETS, where="give one of these, or the path of an .npz file")
    path = Path(name)
    if not path.is_file():
        raise InputError(f"data set {name!r}: no such file")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            held = {k: archive[k] for k in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"data set {name!r}: not a readable .npz file: {error}") from error
    x = next((held[k] for k in ("x", "images", "X") if k in held), None)
    y = next((held[k] for k in ("y", "labels") if k in held), None)
    if x is None or y is None:
        raise InputError(f"data set {name!r}: expected arrays x (or images, X) and y (or labels), found {sorted(held)}")
    return _rows(x, y, held.get("classes"), held.get("keys"), f"data set {name!r}")


def open_site(factory: str, site: str) -> Rows:
    """One site's rows from the user's own loader, called as `load_site(site)`.

    Args:
        factory: "their.module:load_site"; returns `(x, y)`, `(x, y, classes)` or `(x, y, classes, keys)`.
        site: the site's name.

    Raises:
        InputError: it cannot be called, raised, or returned something else.
    """
    what = f"data factory {factory!r} for site {site!r}"
    found = call(factory, "data factory", site)
    if not isinstance(found, tuple) or not 2 <= len(found) <= 4:
        raise InputError(f"{what} returned {type(found).__name__}, expected (x, y), (x, y, classes) or (x, y, classes, keys)")
    x, y, classes, keys = (*found, None, None)[:4]
    return _rows(x, y, classes, keys, what)


def _rows(x: Any, y: Any, classes: Any, keys: Any, what: str) -> Rows:
    try:
        array, labels = np.asarray(x), np.asarray(y)
    except ValueError as error:
        raise InputError(f"{what}: x is not an array of equal rows: {error}") from error
    if array.dtype.kind not in "biuf" or array.ndim < 2 or labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise InputError(
            f"{what}: expected numbers x [N, ...] and whole-number labels y [N], got {array.dtype} "
            f"{array.shape} and {labels.dtype} {labels.shape}"
        )
    if array.dtype == np.uint8 and array.ndim >= 3:
        array = array / 255.0
        if array.ndim == 4 and array.shape[3] in (1, 3):
            array = array.transpose(0, 3, 1, 2)
    names = tuple(str(c) for c in (range(int(labels.max()) + 1 if len(labels) else 0) if classes is None else classes))
    stable = tuple(str(k) for k in keys) if keys is not None else tuple(str(i) for i in range(len(labels)))
    try:
        return Rows(torch.tensor(array, dtype=torch.float32), torch.tensor(labels.astype(np.int64)), stable, names)
    except InputError as error:
        raise InputError(f"{what}: {error}") from error
