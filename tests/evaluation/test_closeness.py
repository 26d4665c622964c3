"""Distances to a retrained model: closed forms, and the copied defect beside what it should be."""

from math import log

import numpy as np
import pytest
import torch
from scipy.special import rel_entr

from fedunlearn.errors import InputError
from fedunlearn.evaluation.closeness import average_gap, completeness, jsd, kl, klom, tow, zrf, zrf_legacy
from fedunlearn.evaluation.outputs import margins


def of(*p: list[float]) -> torch.Tensor:
    return torch.tensor(p, dtype=torch.float64).log()


def random_logits(seed: int, n: int = 40, classes: int = 7, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_divergences_by_hand() -> None:
    p, q = of([0.5, 0.5], [0.25, 0.75]), of([0.25, 0.75], [0.25, 0.75])
    assert kl(p, q) == pytest.approx((0.5 * log(2) + 0.5 * log(2 / 3)) / 2, abs=1e-6)
    assert kl(q, p) == pytest.approx((0.25 * log(0.5) + 0.75 * log(1.5)) / 2, abs=1e-6)
    assert kl(p, q) != pytest.approx(kl(q, p), abs=1e-3)  # it has a direction
    sure = torch.tensor([[1e4, 0.0, 0.0]]), torch.tensor([[0.0, 1e4, 0.0]])
    assert jsd(*sure) == pytest.approx(log(2), abs=1e-6)


def test_divergences_equal_scipys() -> None:
    a, b = random_logits(0), random_logits(1)
    p, q = a.softmax(1).numpy(), b.softmax(1).numpy()
    m = (p + q) / 2
    assert kl(a, b) == pytest.approx(rel_entr(p, q).sum(1).mean(), abs=1e-6)
    assert jsd(a, b) == pytest.approx((rel_entr(p, m) + rel_entr(q, m)).sum(1).mean() / 2, abs=1e-6)
    assert jsd(a, b) == pytest.approx(jsd(b, a), abs=1e-12)


def test_a_model_is_at_no_distance_from_itself_and_shifts_of_its_logits() -> None:
    a = random_logits(2)
    assert kl(a, a + 5) == pytest.approx(0, abs=1e-12)
    assert jsd(a, a + 5) == pytest.approx(0, abs=1e-12)
    assert completeness(a, a) == 1
    assert zrf(a, a) == 1


def test_a_masked_output_is_far_but_not_infinitely() -> None:
    a = random_logits(3)
    masked = a.clone()
    masked[:, 0] = -1e4
    assert 10 < kl(a, masked) < 1e4
    assert kl(masked, a) < 10


@pytest.mark.parametrize(("classes", "nats", "bits"), [(10, 0.476, 0.244), (20, 0.411, 0.150), (100, 0.351, 0.063)])
def test_the_copied_zrf_praises_a_model_that_forgot_nothing(classes: int, nats: float, bits: float) -> None:
    """The more classes, the better it looks, without an edit; the correct form says how far from random it is."""
    sure = torch.zeros(200, classes, dtype=torch.float64)
    sure[:, 0] = 10.0
    teacher = random_logits(4, 200, classes, 0.05)
    assert 1 - jsd(sure, teacher) == pytest.approx(nats, abs=0.02)
    assert zrf(sure, teacher) == pytest.approx(bits, abs=0.02)
    assert zrf_legacy(sure, teacher) > {10: 0.8, 20: 0.9, 100: 0.98}[classes]


def test_the_copied_zrf_is_what_the_copied_code_computes() -> None:
    a, b = random_logits(5), random_logits(6)
    m = ((a.softmax(1) + b.softmax(1)) / 2).double()
    copied = sum(0.5 * torch.nn.functional.kl_div(x.log_softmax(1), m, reduction="none").mean() for x in (a, b))
    assert zrf_legacy(a, b) == pytest.approx(1 - float(copied), abs=1e-6)
    assert zrf_legacy(a, b) != pytest.approx(zrf(a, b), abs=0.1)


def test_gaps_and_tow_by_hand() -> None:
    again = {"forgotten": 0.0, "retained": 0.9, "test": 0.8}
    edited = {"forgotten": 0.5, "retained": 0.8, "test": 0.8}
    assert average_gap(edited, again) == pytest.approx(0.2)
    assert tow(edited, again) == pytest.approx(0.5 * 0.9)
    assert tow(again, again) == 1


def test_forgetting_more_than_a_retrained_model_is_no_better() -> None:
    """Another source of the class remains, and the retrained model still knows it: 0 % is far off."""
    again = {"forgotten": 0.85, "retained": 0.9}
    assert tow({"forgotten": 0.0, "retained": 0.9}, again) < tow({"forgotten": 0.95, "retained": 0.9}, again)


def test_completeness_counts_equal_answers() -> None:
    assert completeness(torch.eye(4)[[0, 1, 2, 3]], torch.eye(4)[[0, 1, 2, 0]]) == 0.75
    sure, unsure = torch.tensor([[9.0, 1, 0], [0, 9.0, 1]]), torch.tensor([[9.0, 0, 1], [1, 2.0, 0]])
    assert completeness(sure, unsure) == 1  # only the first answer counts, and not how sure it is


def test_margins_are_the_logit_of_the_confidence() -> None:
    out, y = random_logits(7), torch.arange(40) % 7
    p = out.softmax(1)[torch.arange(40), y]
    torch.testing.assert_close(margins(out, y), p.log() - (1 - p).log(), atol=1e-6, rtol=0)
    sure = torch.tensor([[80.0, 0.0]], dtype=torch.float64)
    assert float(margins(sure, torch.tensor([0]))) == pytest.approx(80)  # where log(1 - p) has no digit left
    with pytest.raises(InputError, match="1 output, expected two or more"):
        margins(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))


def test_klom_by_hand() -> None:
    """Half of the edited models are where the retrained ones are, half where none is."""
    edited, retrained = torch.tensor([[0.0], [0.0], [10.0], [10.0]]), torch.tensor([[0.0], [0.0], [0.0]])
    assert klom(edited, retrained)[0] == pytest.approx(0.5 * log(0.5) + 0.5 * log(0.5 / 1e-5), abs=1e-6)
    assert klom(retrained, retrained)[0] == 0
    ends, near, far = (torch.tensor([[0.0], [x], [1.0]]) for x in (0.0, 0.045, 0.055))
    assert klom(near, ends)[0] == 0  # twenty bins of 0.05
    assert klom(far, ends)[0] > 1
    assert klom(torch.full((3, 1), 500.0), torch.full((3, 1), 900.0))[0] == 0  # clipped


def test_klom_tells_the_edited_from_the_retrained() -> None:
    rng = np.random.default_rng(8)
    again, twin, did_nothing = (torch.tensor(rng.normal(m, 1, (100, 30))) for m in (-4, -4, 4))
    floor = float(np.percentile(klom(twin, again), 95))
    assert floor < 1.5
    assert float(np.percentile(klom(did_nothing, again), 5)) > 5


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match=r"logits \(2, 3\) and \(2, 4\)"):
        kl(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(InputError, match="with N above 0"):
        jsd(torch.zeros(0, 3), torch.zeros(0, 3))
    with pytest.raises(InputError, match="expected the same sets of rows"):
        tow({"test": 0.5}, {"retained": 0.5})
    with pytest.raises(InputError, match="expected models by the same rows"):
        klom(torch.zeros(1, 3), torch.zeros(4, 3))
