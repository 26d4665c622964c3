"""How close is an edited model to one that was retrained without the data? Zero accuracy is not the aim; the retrained one is.

Every distance is to be read beside that of the unedited model, and beside the distance between two retrained ones
(`intervals.noise_floor`).
"""

from collections.abc import Mapping, Sequence
from math import log

import numpy as np
import torch
from torch import Tensor

from fedunlearn.errors import InputError
from fedunlearn.evaluation.intervals import Floats

BINS, CLIP, TINY = 20, 100.0, 1e-5  # of KLOM, as in its authors' code


def average_gap(scores: Mapping[str, float], retrained: Mapping[str, float]) -> float:
    """Mean distance of accuracies to a retrained model's (SalUn, arXiv 2310.12508), over the sets of rows that both have.

    Differs: SalUn's average has membership inference in it, which stands apart here.

    Args:
        scores: accuracy of a model by set of rows: forgotten, retained, test.
        retrained: of a retrained model on the same.

    Raises:
        InputError: they have no set in common.
    """
    gaps = _gaps(scores, retrained)
    return sum(gaps) / len(gaps)


def tow(scores: Mapping[str, float], retrained: Mapping[str, float]) -> float:
    """Tug of war (Zhao et al., NeurIPS 2024, arXiv 2406.01257): the product of 1 - gap over sets of rows; 1 is like retrained.

    Args:
        scores: accuracy of a model by set of rows: forgotten, retained, test.
        retrained: of a retrained model on the same.

    Raises:
        InputError: they have no set in common.
    """
    return float(np.prod([1 - gap for gap in _gaps(scores, retrained)]))


def kl(true: Tensor, other: Tensor) -> float:
    """Mean over rows of KL(p || q) = sum over classes of p log(p / q), in nats.

    Args:
        true: logits [N, C] of p. To measure an edited model, p is the retrained one.
        other: logits [N, C] of q: the edited model.
    """
    log_p, log_q = _logs(true, other)
    return float(_divergences(log_p, log_q).mean())


def jsd(one: Tensor, other: Tensor) -> float:
    """Mean over rows of the Jensen-Shannon divergence, in nats, from 0 to log 2; symmetric.

    Half of KL(p || m) + KL(q || m) with m = (p + q) / 2, summed over classes.

    Args:
        one: logits [N, C].
        other: logits [N, C].
    """
    log_p, log_q = _logs(one, other)
    log_m = torch.logaddexp(log_p, log_q) - log(2)
    return float((_divergences(log_p, log_m) + _divergences(log_q, log_m)).mean() / 2)


def zrf(out: Tensor, incompetent: Tensor) -> float:
    """Zero retrain forgetting (Chundawat et al., AAAI 2023, arXiv 2205.08096) on what is forgotten: 1 - JSD / log 2.

    Between 0 and 1; 1 is a model that answers as a freshly initialised one does. To be compared with a retrained model's, not
    with 1: a model that was retrained does not answer at random.

    Args:
        out: logits [N, C] of the model.
        incompetent: logits [N, C] of a freshly initialised one.
    """
    return 1 - jsd(out, incompetent) / log(2)


def zrf_legacy(out: Tensor, incompetent: Tensor) -> float:
    """ZRF as widely copied code computes it. Only to show what it is worth: do not report it.

    It divides by rows times classes instead of by rows, so that it tends to 1 as classes grow whatever was forgotten, and it
    takes the divergences in the wrong direction, KL(m || p) + KL(m || q).

    Args:
        out: logits [N, C] of the model.
        incompetent: logits [N, C] of a freshly initialised one.
    """
    log_p, log_q = _logs(out, incompetent)
    log_m = torch.logaddexp(log_p, log_q) - log(2)
    return 1 - float((_divergences(log_m, log_p) + _divergences(log_m, log_q)).mean() / (2 * out.shape[1]))


def completeness(out: Tensor, retrained: Tensor) -> float:
    """Share of rows on which two models give the same class (Cao and Yang, S&P 2015).

    Args:
        out: logits [N, C].
        retrained: logits [N, C].
    """
    _logs(out, retrained)
    return float((out.argmax(1) == retrained.argmax(1)).double().mean())


def klom(edited: Tensor, retrained: Tensor) -> Floats:
    """KL of margins (Georgiev et al., ICLR 2025, arXiv 2410.23232): how far edited models are from retrained ones, row by row.

    For each row, KL(edited || retrained) in nats between histograms of the margins that many models give it: 20 bins over the
    range of both, margins clipped to +-100, retrained bins not below 1e-5. (The authors' code loses the largest margin, which
    falls beyond its last bin; here it is in it.) Report percentiles over rows; with few models the floor between two halves of
    the retrained ones is high, and is to be reported beside it.

    Args:
        edited: `margins` [M, N] of M edited models on N rows.
        retrained: [M', N] of M' retrained ones.

    Returns:
        float64 [N].

    Raises:
        InputError: other rows, or fewer than two models.
    """
    if edited.shape[1:] != retrained.shape[1:] or min(len(edited), len(retrained)) < 2:
        raise InputError(f"KLOM: margins {tuple(edited.shape)} and {tuple(retrained.shape)}; expected models by the same rows")
    ours, theirs = (np.clip(m.numpy().astype(np.float64), -CLIP, CLIP).T for m in (edited, retrained))
    return np.array([_binned(p, q) for p, q in zip(ours, theirs, strict=True)])


def _binned(ours: Floats, theirs: Floats) -> float:
    low, high = min(ours.min(), theirs.min()), max(ours.max(), theirs.max())
    p, q = (np.histogram(m, BINS, (low, high))[0] / len(m) for m in (ours, theirs))
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / np.maximum(q[seen], TINY))).sum())


def _gaps(scores: Mapping[str, float], retrained: Mapping[str, float]) -> Sequence[float]:
    common = [name for name in scores if name in retrained]
    if not common:
        raise InputError(
            f"closeness: accuracies on {sorted(scores)} and on {sorted(retrained)}, expected the same sets of rows"
        )
    return [abs(scores[name] - retrained[name]) for name in common]


def _logs(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    if one.shape != other.shape or one.dim() != 2 or not len(one):
        raise InputError(f"closeness: logits {tuple(one.shape)} and {tuple(other.shape)}, expected [N, C] twice with N above 0")
    return one.double().log_softmax(1), other.double().log_softmax(1)


def _divergences(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of each row [N]; a class that p gives nothing adds nothing."""
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0.0).sum(1)
