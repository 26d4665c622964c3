"""Images: sets that torchvision knows by name, and folders with one sub-folder a class."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedunlearn.data.arrays import rows_of
from fedunlearn.data.folder import VARIABLE, data_folder
from fedunlearn.data.options import Options
from fedunlearn.data.rows import Rows
from fedunlearn.errors import InputError
from fedunlearn.vision import torchvision


class Known(NamedTuple):
    """A set of torchvision's: its class there, and how it names the part."""

    name: str
    by_split: bool = False


TORCHVISION = {
    "mnist": Known("MNIST"),
    "fashion_mnist": Known("FashionMNIST"),
    "kmnist": Known("KMNIST"),
    "cifar10": Known("CIFAR10"),
    "cifar100": Known("CIFAR100"),
    "svhn": Known("SVHN", by_split=True),
}


def read_torchvision(name: str, part: str, options: Options) -> Rows:
    """A set of torchvision's, from the data folder.

    Args:
        name: one of `TORCHVISION`.
        part: train or test.
        options: whether it may be downloaded.

    Returns:
        Pixels [N, channels, height, width] in [0, 1]; keys are positions in the official order.

    Raises:
        InputError: there is no data folder, or the set is not in it and may not or cannot be downloaded.
    """
    what, folder, known = f"data set {name!r}", data_folder(), TORCHVISION[name]
    if folder is None:
        raise InputError(f"{what}: is read from the data folder, and none is named; pass --data DIR, or set {VARIABLE}")
    make = getattr(torchvision(what).datasets, known.name)
    which: dict[str, Any] = {"split": part} if known.by_split else {"train": part == "train"}
    try:
        found = make(str(folder), download=options.download, **which)
    except ImportError as error:
        raise InputError(f"{what}: torchvision needs one more package for it: {error}") from error
    except (OSError, RuntimeError, ValueError, AssertionError) as error:  # whatever is wrong with its files
        if options.download:
            raise InputError(f"{what}: downloading it to {folder} failed: {type(error).__name__}: {error}") from error
        raise InputError(
            f"{what}: not in the data folder {folder} as torchvision keeps it ({error}); pass another folder with --data DIR "
            f"or {VARIABLE}, or set `download: true` to fetch it"
        ) from error
    images = np.asarray(found.data)
    labels = np.asarray(found.labels if known.by_split else found.targets).astype(np.int64)
    named = getattr(found, "classes", None) or range(10)
    return rows_of(images[:, None] if images.ndim == 3 else images, labels, [_plain(str(c)) for c in named], None, what)


def read_photos(folder: Path, options: Options, what: str) -> Rows:
    """A folder of images, one sub-folder a class.

    Args:
        folder: the folder.
        options: `size` of the images, and the `limit` of how many of a class are read.
        what: what it is, to say in an error.

    Returns:
        RGB [N, 3, size, size] in [0, 1], resized without regard to their proportions; keys are paths in the folder.

    Raises:
        InputError: there are no such images, or one cannot be read.
    """
    datasets = torchvision(what).datasets
    try:
        found = datasets.ImageFolder(str(folder))
    except FileNotFoundError as error:
        raise InputError(f"{what}: expected a folder with one sub-folder of images a class: {error}") from error
    taken: dict[int, int] = {}
    images, labels, keys = [], [], []
    for path, label in found.samples:
        taken[label] = taken.get(label, 0) + 1
        if options.limit and taken[label] > options.limit:
            continue
        images.append(_pixels(Path(path), options.size, what))
        labels.append(label)
        keys.append(Path(path).relative_to(folder).as_posix())
    return rows_of(np.stack(images), labels, found.classes, keys, what)


def _pixels(path: Path, size: int, what: str) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    from PIL import Image  # comes with torchvision

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{what}: {path.name} is not a readable image: {error}; repair or remove {path}") from error


def _plain(name: str) -> str:
    """`0 - zero` (as MNIST says it) is the class `0`."""
    number, dash, _ = name.partition(" - ")
    return number if dash and number.isdigit() else name


MENU = {name: partial(read_torchvision, name) for name in TORCHVISION}
