"""Loaders of the image sets that the topologies beside this file use: an example of a user's own loader.

They read the folder that `--data` or FEDUNLEARN_DATA names, through the `load_shared.py` that lies in it: CIFAR-10 as images
[N, 32, 32, 3] of bytes in shards. Inputs come out as [N, 3, 32, 32], normalised with the usual means and deviations.
"""

import importlib.util
import os
from pathlib import Path

import numpy as np

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def cifar10(part: str) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """CIFAR-10: 20,000 images to train on, or the 10,000 to test on."""
    folder = os.environ.get("FEDUNLEARN_DATA")
    reader = Path(folder or "") / "load_shared.py"
    if not folder or not reader.is_file():
        raise FileNotFoundError(f"{reader}: not there; name the folder that holds it by --data or FEDUNLEARN_DATA")
    spec = importlib.util.spec_from_file_location("load_shared", reader)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    images, labels, classes = module.load("cifar10", part)
    x = (images.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(DEVIATION)
    return x.transpose(0, 3, 1, 2).copy(), labels, list(classes), [f"{part}-{i}" for i in range(len(labels))]
