"""Digits with wrong labels, or few of a class, among those to train on alone: examples of a user's own loader."""

from functools import partial

import numpy as np
from sklearn.datasets import load_digits

Arrays = tuple[np.ndarray, np.ndarray, list[str], list[str]]
TESTED = 0.4  # of all rows


def mislabelled(percent: int, part: str) -> Arrays:
    """The 1,797 digits of 8x8 pixels, in two parts that are always the same; of the first, so many % have another's label."""
    bunch, draw = load_digits(), np.random.default_rng(0)
    order = draw.permutation(len(bunch.target))
    cut = round(TESTED * len(order))
    chosen = order[cut:] if part == "train" else order[:cut]
    y = bunch.target[chosen].copy()
    if part == "train":
        wrong = draw.permutation(len(y))[: round(percent / 100 * len(y))]
        y[wrong] = (y[wrong] + draw.integers(1, 10, len(wrong))) % 10
    return bunch.images[chosen].astype(np.float32) / 16, y, [str(c) for c in range(10)], [f"{part}-{i}" for i in chosen]


wrong_0, wrong_10, wrong_20, wrong_30, wrong_40 = (partial(mislabelled, percent) for percent in (0, 10, 20, 30, 40))


def unequal(percent: int, part: str) -> Arrays:
    """The same with right labels; to train on, so many % of the rows of class 3 that another class has, the first of them."""
    x, y, classes, keys = mislabelled(0, part)
    if part != "train":
        return x, y, classes, keys
    share = {c: min(1.0, percent / 100 if c == 3 else 100 / percent) for c in range(10)}
    nth = [int((y[:i] == c).sum()) for i, c in enumerate(y)]
    kept = [i for i, c in enumerate(y) if nth[i] < share[int(c)] * (y == c).sum()]
    return x[kept], y[kept], classes, [keys[i] for i in kept]


unequal_10, unequal_30, unequal_100, unequal_300, unequal_1000 = (partial(unequal, p) for p in (10, 30, 100, 300, 1000))


def planes(part: str) -> Arrays:
    """The same with right labels, and an axis for the one colour."""
    x, y, classes, keys = mislabelled(0, part)
    return x[:, None], y, classes, keys
