"""Loaders of the image sets that the topologies beside this file use: an example of a user's own loader.

They read the folder that `--data` or FEDUNLEARN_DATA names, through the `load_shared.py` that lies in it. Coloured images come
out as [N, 3, 32, 32], normalised with the usual means and deviations, grey ones as [N, 28, 28] between 0 and 1. Each is read
once a process: a comparison opens its data for every method.
"""

import importlib.util
import os
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

FIVE = ("flowers", "household_electrical_devices", "large_carnivores", "people", "vehicles_2")
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@cache
def cifar10(part: str) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """CIFAR-10: 20,000 images to train on, or the 10,000 to test on."""
    images, labels, classes = _loader().load("cifar10", part)
    return _coloured(images), labels, list(classes), _keys(part, len(labels))


@cache
def cifar100(part: str) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """CIFAR-100: 50,000 images to train on, or the 10,000 to test on."""
    images, labels, classes = _loader().load("cifar100", part)
    return _coloured(images), labels, list(classes), _keys(part, len(labels))


@cache
def cifar100_coarse(part: str) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """CIFAR-100 in its 20 classes; keys begin with the fine one: rocket-17 is an image of a rocket."""
    images, labels, classes = _loader().load("cifar100", part, coarse=True)
    _, fine, kinds = _loader().load("cifar100", part)
    return _coloured(images), labels, list(classes), [f"{kinds[k]}-{i}" for i, k in enumerate(fine)]


@cache
def cifar100_five(part: str) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Five of those 20 classes: 12,500 images to train on, or 2,500 to test on."""
    images, labels, classes, keys = cifar100_coarse(part)
    number = {classes.index(c): i for i, c in enumerate(FIVE)}
    chosen = np.flatnonzero(np.isin(labels, list(number)))
    return images[chosen], np.array([number[k] for k in labels[chosen]]), list(FIVE), [keys[i] for i in chosen]


@cache
def mnist(part: str) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Handwritten digits, 28x28: 5,000, to be held out of.

    Raises:
        FileNotFoundError: the test part was asked for; it is among them.
    """
    if part != "train":
        raise FileNotFoundError("these digits have no test part; rows of the set are held out")
    parts = {p: _loader().load("ci/mnist", p) for p in ("train", "test")}
    images = np.concatenate([images for images, _, _ in parts.values()])
    keys = [k for p, (_, labels, _) in parts.items() for k in _keys(p, len(labels))]
    labels = np.concatenate([labels for _, labels, _ in parts.values()])
    return images.astype(np.float32) / 255, labels, list(parts["train"][2]), keys


def _loader() -> ModuleType:
    """The folder's own reader.

    Raises:
        FileNotFoundError: no folder is named, or it has none.
    """
    folder = os.environ.get("FEDUNLEARN_DATA")
    reader = Path(folder or "") / "load_shared.py"
    if not folder or not reader.is_file():
        raise FileNotFoundError(f"{reader}: not there; name the folder that holds it by --data or FEDUNLEARN_DATA")
    spec = importlib.util.spec_from_file_location("load_shared", reader)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _coloured(images: np.ndarray) -> np.ndarray:
    x = (images.astype(np.float32) / 255 - np.asarray(MEAN, np.float32)) / np.asarray(DEVIATION, np.float32)
    return x.transpose(0, 3, 1, 2).copy()


def _keys(part: str, count: int) -> list[str]:
    return [f"{part}-{i}" for i in range(count)]
