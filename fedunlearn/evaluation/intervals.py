"""How sure is a number? 95 % intervals, and how far apart two retrained models are by chance alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any, TypeVar

import numpy as np

from fedunlearn.errors import InputError

LEVEL = 0.95
RESAMPLES = 1000

Floats = np.ndarray[Any, np.dtype[np.float64]]
T = TypeVar("T")


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval, and how many observations it rests on."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int]:
        """As plain data."""
        return dict(vars(self))


@lru_cache(4096)  # scipy tests a hypothesis first, which takes longer than the interval; classes of one test set are alike
def proportion(hits: int, n: int, method: str = "wilson", level: float = LEVEL) -> Estimate:
    """A share of rows.

    Args:
        hits: rows that count.
        n: all rows, at least 1.
        method: "wilson" (Wilson 1927: covers 95 % on average over shares) or "exact" (Clopper and Pearson 1934: at least 95 %
            for every share, and wider; for rates of an attack, which must not look surer than they are).
        level: that the interval covers.

    Raises:
        InputError: there are no rows, or more hits than rows.
    """
    from scipy.stats import binomtest  # slow to import

    if n < 1 or not 0 <= hits <= n:
        raise InputError(f"proportion: {hits} of {n} rows, expected 0 to n of at least 1")
    low, high = binomtest(hits, n).proportion_ci(level, method)
    return Estimate(hits / n, float(low), float(high), n)


def difference(first: Sequence[bool], second: Sequence[bool], level: float = LEVEL) -> Estimate:
    """Difference of two shares on the same rows, such as two models' accuracies.

    Newcombe 1998 (Statistics in Medicine 17, 2635), method 10: two Wilson intervals joined by the correlation of the rows,
    corrected for continuity. It does not collapse to a point where the two agree on every row, as a bootstrap does.

    Args:
        first: where the first is right, a truth value a row.
        second: where the second is right, on the same rows.
        level: that the interval covers.

    Returns:
        The first share minus the second.

    Raises:
        InputError: the numbers of rows differ, or are zero.
    """
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    if len(a) != len(b):
        raise InputError(f"difference: {len(a)} and {len(b)} rows; expected the same rows twice")
    n = len(a)
    hits, others = int(a.sum()), int(b.sum())
    one, two = proportion(hits, n, level=level), proportion(others, n, level=level)
    both, first_only, second_only = int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum())
    neither = n - both - first_only - second_only
    scale = hits * (n - hits) * others * (n - others)
    apart = both * neither - first_only * second_only
    together = max(apart - n / 2, 0.0) if apart > 0 else float(apart)  # without this few rows look surer than they are
    phi = together / float(scale) ** 0.5 if scale else 0.0
    down, up = one.value - one.low, one.high - one.value
    other_up, other_down = two.high - two.value, two.value - two.low
    gap = one.value - two.value
    low = gap - max(0.0, down**2 - 2 * phi * down * other_up + other_up**2) ** 0.5
    high = gap + max(0.0, up**2 - 2 * phi * up * other_down + other_down**2) ** 0.5
    return Estimate(gap, low, high, n)


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean of one number a seed, with Student's interval.

    Not a bootstrap: of three to five seeds, its percentiles cover 70 to 85 % where they say 95 (a test shows it). `bootstrap`
    is for many values.

    Args:
        values: one for each of at least two seeds.

    Raises:
        InputError: a single seed, which says nothing of the next.
    """
    from scipy.stats import sem, t  # slow to import

    if len(values) < 2:
        raise InputError(f"over seeds: {len(values)} value; an interval needs two or more seeds")
    mean, error = float(np.mean(values)), float(sem(values))
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * error
    return Estimate(mean, mean - half, mean + half, len(values))


def bootstrap(samples: Sequence[Floats], statistic: Callable[..., Any], seed: int = 0) -> Estimate:
    """Percentile bootstrap of a statistic of one or several independent samples.

    Args:
        samples: each [N_i]; each is resampled by itself.
        statistic: of the samples, called as `statistic(*samples, axis=-1)` on stacks of resamples.
        seed: of the resampling.
    """
    from scipy import stats  # slow to import

    found = stats.bootstrap(
        tuple(samples),
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        vectorized=True,
        batch=100,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(float(statistic(*samples, axis=-1)), float(found.low), float(found.high), min(map(len, samples)))


@dataclass(frozen=True)
class Floor:
    """Distances between models that were all retrained without the data, with different seeds.

    A method whose model is edited from one seed and held against one retrained with the same seed may come below it: they share
    their first weights. From models of other seeds a perfect method is as far as these are from one another.

    Args:
        mean: of all pairs.
        smallest: of all pairs.
        largest: of all pairs.
        pairs: how many.
    """

    mean: float
    smallest: float
    largest: float
    pairs: int

    def to_json(self) -> dict[str, float | int]:
        """As plain data."""
        return dict(vars(self))


def noise_floor(retrained: Sequence[T], distance: Callable[[T, T], float]) -> Floor:
    """How far apart retrained models of different seeds are.

    Args:
        retrained: two or more, or what is known of them (outputs, accuracies).
        distance: between two, in one direction; one that has directions is taken in both.

    Raises:
        InputError: fewer than two.
    """
    if len(retrained) < 2:
        raise InputError(f"noise floor: {len(retrained)} retrained models, expected two or more (of different seeds)")
    found = [d for a, b in combinations(retrained, 2) for d in (distance(a, b), distance(b, a))]
    return Floor(float(np.mean(found)), min(found), max(found), len(found) // 2)
