"""Intervals hold the truth as often as they say."""

import numpy as np
import pytest
from scipy import stats

from fedunlearn.errors import InputError
from fedunlearn.evaluation.intervals import bootstrap, difference, noise_floor, over_seeds, proportion

TRIALS = 600


def covered(draw: "np.random.Generator", truth: float, estimate) -> float:  # type: ignore[no-untyped-def]
    found = [estimate(draw) for _ in range(TRIALS)]
    return float(np.mean([e.low <= truth <= e.high for e in found]))


def test_proportions_cover_at_their_nominal_rate() -> None:
    """Wilson on average over shares; the exact one at every share. Summed over all outcomes, not drawn."""
    n, shares = 60, np.linspace(0.02, 0.98, 97)

    def coverage(method: str) -> "np.ndarray":  # type: ignore[type-arg]
        found = [proportion(k, n, method) for k in range(n + 1)]
        return np.array([sum(stats.binom.pmf(k, n, s) for k, e in enumerate(found) if e.low <= s <= e.high) for s in shares])

    assert 0.94 < coverage("wilson").mean() < 0.96
    assert coverage("wilson").min() < 0.95 < coverage("exact").min()


def test_the_closed_form_of_wilson() -> None:
    z, n, p = stats.norm.ppf(0.975), 80, 0.0
    found = proportion(0, n)
    assert (found.value, found.low) == (p, 0)
    assert found.high == pytest.approx(z**2 / (n + z**2), abs=1e-6)


@pytest.mark.parametrize("together", [True, False])
def test_differences_on_the_same_rows_cover(together: bool) -> None:
    """Whether or not the two models' hits go together; ignoring that they do would cover nearly always."""

    def draw(rng: np.random.Generator):  # type: ignore[no-untyped-def]
        a = rng.random(80) < 0.7
        b = a & (rng.random(80) < 0.8) if together else rng.random(80) < 0.56
        return difference(a.tolist(), b.tolist())

    assert 0.93 < covered(np.random.default_rng(1), 0.14, draw) < 0.975


def test_differences_on_as_many_rows_as_there_may_be() -> None:
    """Products of four counts leave 64 bits at some hundred thousand rows."""
    few, many = (difference(*((np.arange(n) % 10 < k).tolist() for k in (7, 6))) for n in (1_000, 400_000))
    assert few.value == pytest.approx(many.value) == pytest.approx(0.1)
    assert few.low < many.low < 0.1 < many.high < few.high


def test_differences_mirror() -> None:
    """Which model comes first changes the sign alone."""
    a, b = np.arange(40) < 30, (np.arange(40) < 34) & (np.arange(40) > 3)
    one, other = difference(a.tolist(), b.tolist()), difference(b.tolist(), a.tolist())
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


@pytest.mark.parametrize("first_only", [0.02, 0.05])
def test_differences_of_models_that_nearly_agree_cover(first_only: float) -> None:
    """Where few rows differ, an interval that trusts their correlation covers far less than it says."""

    def draw(rng: np.random.Generator):  # type: ignore[no-untyped-def]
        kind = rng.choice(4, 40, p=[0.49 - first_only, first_only, 0.01, 0.5])
        return difference((kind < 2).tolist(), ((kind == 0) | (kind == 2)).tolist())

    assert covered(np.random.default_rng(4), first_only - 0.01, draw) > 0.94


@pytest.mark.parametrize("right", [0, 1, 10, 20])
def test_models_that_agree_on_every_row_still_have_an_interval(right: int) -> None:
    rows = [i < right for i in range(20)]
    found = difference(rows, rows)
    assert found.value == 0
    assert found.low == pytest.approx(-found.high)
    assert found.high > (0.1 if right in (0, 20) else 0.04)


def test_few_seeds_need_students_interval() -> None:
    """Four seeds: a percentile bootstrap would say 95 % and hold far less."""
    rng = np.random.default_rng(2)
    assert 0.93 < covered(rng, 0.0, lambda r: over_seeds(r.normal(size=4).tolist())) < 0.97
    resampled = [bootstrap([r], np.mean) for r in rng.normal(size=(200, 4))]
    assert np.mean([e.low <= 0 <= e.high for e in resampled]) < 0.88


def test_the_bootstrap_of_many_rows_covers() -> None:
    rng = np.random.default_rng(3)
    found = [bootstrap([r], np.mean) for r in rng.exponential(size=(150, 80))]
    assert 0.9 <= np.mean([e.low <= 1 <= e.high for e in found]) <= 0.98


def test_the_noise_floor_is_over_all_pairs_and_both_directions() -> None:
    found = noise_floor([0.0, 1.0, 3.0], lambda a, b: abs(a - b))
    assert (found.mean, found.smallest, found.largest, found.pairs) == (2.0, 1.0, 3.0, 3)
    assert noise_floor([0.0, 1.0], lambda a, b: max(0.0, a - b)).mean == 0.5


def test_what_cannot_be_estimated_is_refused() -> None:
    with pytest.raises(InputError, match="3 of 2 rows"):
        proportion(3, 2)
    with pytest.raises(InputError, match="0 of 0 rows"):
        proportion(0, 0)
    with pytest.raises(InputError, match="2 and 1 rows; expected the same rows twice"):
        difference([True, False], [True])
    with pytest.raises(InputError, match="1 value; an interval needs two or more seeds"):
        over_seeds([0.5])
    with pytest.raises(InputError, match="1 retrained models, expected two or more"):
        noise_floor([1.0], lambda a, b: a - b)
