"""An attack separates a model that forgot nothing from a retrained one, and finds one that was made to forget too much."""

import numpy as np
import pytest
import torch
from scipy import stats

from fedunlearn.data.rows import joined
from fedunlearn.errors import InputError
from fedunlearn.evaluation.membership import (
    Verdict,
    auc,
    modified_entropy,
    modified_entropy_legacy,
    population_logistic,
    population_scores,
    ulira,
    verdict,
)
from fedunlearn.evaluation.outputs import logits, margins
from fedunlearn.evaluation.shadows import Shadows
from tests.evaluation.conftest import Known, spoil


def scores(net: torch.nn.Module, known: Known, shadows: Shadows, unlearn=None):  # type: ignore[no-untyped-def]
    targets = joined([known.forgotten, known.calibration, known.test])
    found = ulira(margins(logits(net, targets), targets.y), *shadows.margins(targets, unlearn))
    return found[: len(known.forgotten)], found[len(known.forgotten) :]


def rate_at(false_positives: float, found: Verdict) -> float:
    return max(true for false, true in found.curve if false <= false_positives)


def test_ulira_separates_doing_nothing_from_retraining(by_sample: Known, shadows: Shadows) -> None:
    nothing = verdict(*scores(by_sample.before, by_sample, shadows), 0.0)
    assert nothing.auc.low > 0.9
    assert nothing.accuracy is not None
    assert nothing.accuracy > 0.8
    assert rate_at(0.01, nothing) > 0.2
    for net in by_sample.retrained:
        again = verdict(*scores(net, by_sample, shadows), 0.0)
        assert again.auc.low < 0.5 < again.auc.high
        assert rate_at(0.01, again) < 0.1


def test_ulira_beats_the_population_attacks(by_sample: Known, shadows: Shadows) -> None:
    members, others = scores(by_sample.before, by_sample, shadows)
    targets = joined([by_sample.forgotten, by_sample.calibration, by_sample.test])
    weak = population_scores(logits(by_sample.before, targets), targets.y)
    n = len(by_sample.forgotten)
    assert float(auc(members, others)) > max(float(auc(s[:n], s[n:])) for s in weak.values())


def test_rows_that_were_forgotten_too_much_are_found_by_shadows_that_do_the_same(by_sample: Known, shadows: Shadows) -> None:
    """A threshold on the loss ranks them below others, which is as telling; the shadows learn on which side members are."""
    targets = joined([by_sample.forgotten, by_sample.calibration, by_sample.test])
    loss = population_scores(logits(by_sample.ruined, targets), targets.y)["loss"]
    n = len(by_sample.forgotten)
    assert verdict(loss[:n], loss[n:]).auc.high < 0.5
    assert verdict(*scores(by_sample.ruined, by_sample, shadows, spoil)).auc.low > 0.6


def test_the_likelihood_ratio_by_hand() -> None:
    """Two models on either side: both share one variance on each side."""
    phi = torch.tensor([[5.0, 1.0], [-1.0, 3.0], [7.0, 1.0], [-3.0, 5.0]], dtype=torch.float64)
    inside = torch.tensor([[True, False], [False, True], [True, False], [False, True]])
    observed = torch.tensor([5.0, 1.0], dtype=torch.float64)
    sd_in, sd_out = np.sqrt((2 + 2) / 2), np.sqrt((2 + 0) / 2)
    expected = [
        stats.norm.logpdf(5, 6, sd_in) - stats.norm.logpdf(5, -2, sd_out),
        stats.norm.logpdf(1, 4, sd_in) - stats.norm.logpdf(1, 1, sd_out),
    ]
    np.testing.assert_allclose(ulira(observed, phi, inside), expected, atol=1e-6)


def test_many_models_have_a_variance_for_every_row() -> None:
    rng = np.random.default_rng(0)
    wide = torch.tensor(np.stack([rng.normal(0, 1, 128), rng.normal(0, 10, 128)], 1))
    inside = torch.arange(128)[:, None].expand(-1, 2) % 2 == 0
    phi = torch.where(inside, wide + 5, wide)
    narrow_says, wide_says = ulira(torch.tensor([5.0, 5.0], dtype=torch.float64), phi, inside)
    assert narrow_says > 8
    assert abs(wide_says) < 1.5


def test_a_row_has_a_variance_of_its_own_on_both_sides_or_on_none() -> None:
    """Few models on one side: more on the other change nothing but the shared variance there."""
    rng = np.random.default_rng(0)
    inside = torch.arange(60)[:, None].expand(-1, 2) < 16
    wide = torch.tensor(np.stack([rng.normal(0, 1, 60), rng.normal(0, 10, 60)], 1))
    phi, observed = torch.where(inside, wide + 5, wide), torch.tensor([1.0, 1.0], dtype=torch.float64)
    sides = [np.where(inside.numpy() == of, phi.numpy(), np.nan) for of in (True, False)]
    shared = [np.sqrt((np.nanvar(side, 0) * (~np.isnan(side)).sum(0)).sum() / ((~np.isnan(side)).sum(0) - 1).sum())
              for side in sides]  # fmt: skip
    means = [np.nanmean(side, 0) for side in sides]
    expected = stats.norm.logpdf(1, means[0], shared[0]) - stats.norm.logpdf(1, means[1], shared[1])
    np.testing.assert_allclose(ulira(observed, phi, inside), expected, atol=1e-6)


@pytest.mark.parametrize(("m", "n"), [(3, 3), (3, 32), (5, 32), (100, 100)])
def test_areas_cover_however_few_rows_there_are(m: int, n: int) -> None:
    rng, apart = np.random.default_rng(3), 1.2
    truth = stats.norm.cdf(apart / np.sqrt(2))
    found = [verdict(rng.normal(apart, 1, m), rng.normal(0, 1, n), seed=i).auc for i in range(150)]
    assert np.mean([e.low <= truth <= e.high for e in found]) > 0.92
    apart_for_good = verdict(np.ones(m), np.zeros(n)).auc
    assert apart_for_good.low < 1 == apart_for_good.high


def test_rates_too_small_for_the_rows_are_not_spoken_of() -> None:
    rng = np.random.default_rng(1)
    few = verdict(rng.normal(1, 1, 50), rng.normal(0, 1, 99))
    assert few.tpr[0.01] == "not resolvable: 99 rows that nobody trained on, expected 1,000 or more"
    assert few.tpr[0.001] == "not resolvable: 99 rows that nobody trained on, expected 10,000 or more"
    many = verdict(rng.normal(3, 1, 500), rng.normal(0, 1, 10_000))
    for rate in (0.01, 0.001):
        exact = stats.norm.sf(stats.norm.isf(rate), 3)
        found = many.tpr[rate]
        assert not isinstance(found, str)
        assert found.value == pytest.approx(exact, abs=0.1)
        assert found.low < exact < found.high


def test_an_attack_that_scores_all_rows_alike_finds_no_member() -> None:
    """A threshold at which all others are called members has not 1 % of false positives."""
    found = verdict(np.zeros(50), np.zeros(2000))
    assert found.tpr[0.01].value == 0  # type: ignore[union-attr]
    assert found.auc.value == 0.5


def test_the_area_under_the_curve_is_mann_whitneys() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 6, 40).astype(float), rng.integers(0, 5, 30).astype(float)
    u = stats.mannwhitneyu(a, b).statistic
    assert float(auc(a, b)) == pytest.approx(u / 1200, abs=1e-12)
    found = verdict(a, b)
    assert found.auc.low < found.auc.value < found.auc.high
    assert np.trapezoid([p[1] for p in found.curve], [p[0] for p in found.curve]) == pytest.approx(found.auc.value, abs=1e-9)


def test_the_interval_of_an_attack_that_knows_nothing_holds_a_half() -> None:
    rng = np.random.default_rng(3)
    found = [verdict(rng.normal(size=60), rng.normal(size=120)).auc for _ in range(40)]
    assert np.mean([e.low <= 0.5 <= e.high for e in found]) >= 0.875


def test_the_modified_entropy_by_hand() -> None:
    out = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]], dtype=torch.float64).log()
    found = modified_entropy(out, torch.tensor([0, 1]))
    ln = np.log
    by_hand = [
        -0.3 * ln(0.7) - 0.2 * ln(0.8) - 0.1 * ln(0.9),
        -0.8 * ln(0.2) - 0.7 * ln(0.3) - 0.1 * ln(0.9),
    ]
    np.testing.assert_allclose(found.numpy(), by_hand, atol=1e-6)
    sure = torch.tensor([[500.0, 0.0, 0.0]])
    assert float(modified_entropy(sure, torch.tensor([0]))) == 0
    assert float(modified_entropy(sure, torch.tensor([1]))) > 100


def test_the_copied_modified_entropy_does_not_know_the_label() -> None:
    """Right and wrong rows get the same number, and a row's number depends on the batch it comes in."""
    out = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]], dtype=torch.float64).log()
    labels = torch.tensor([0, 1])
    copied = modified_entropy_legacy(out, labels)
    p, swapped = out.exp(), out.exp().clone()
    swapped[:, labels] = 1 - p[:, labels]  # every label of the batch, in every row
    np.testing.assert_allclose(copied.numpy(), -(swapped * p.log()).sum(1).numpy(), atol=1e-12)
    assert copied[0] == copied[1]
    assert modified_entropy(out, labels)[0] != pytest.approx(float(modified_entropy(out, labels)[1]), abs=0.5)
    alone = modified_entropy_legacy(out[:1], labels[:1])
    assert float(alone) != pytest.approx(float(copied[0]), abs=0.1)
    assert float(modified_entropy(out[:1], labels[:1])) == pytest.approx(float(modified_entropy(out, labels)[0]), abs=1e-12)


def test_the_logistic_attack_calls_what_was_not_forgotten_a_member(by_sample: Known) -> None:
    held = joined([by_sample.calibration, by_sample.test])

    def attacked(net: torch.nn.Module):  # type: ignore[no-untyped-def]
        sets = (by_sample.retained, held, by_sample.forgotten)
        return population_logistic(*((logits(net, r), r.y) for r in sets))

    known, called = attacked(by_sample.before)
    assert known.auc.low > 0.8
    assert called.value > 0.9
    known, called = attacked(by_sample.retrained[0])
    assert known.auc.low > 0.8  # the attack works: retained rows are members
    assert called.value < 0.6


def test_what_cannot_be_attacked_is_refused() -> None:
    with pytest.raises(InputError, match="1 members and 5 others"):
        verdict(np.zeros(1), np.zeros(5))
    with pytest.raises(InputError, match="1 shadow models on one side, expected two or more; train more shadows"):
        ulira(torch.zeros(1), torch.zeros(3, 1), torch.tensor([[True], [False], [True]]))
    with pytest.raises(InputError, match=r"margins \(4, 2\) of shadows"):
        ulira(torch.zeros(1), torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.bool))
