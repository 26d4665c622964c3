"""Can an attacker tell which rows a model was trained on? Per-example attacks first; population attacks are called so.

An attack gives every row a score, larger for "was trained on it". It is judged on forgotten rows against rows of the same
kind that nobody trained on: 0.5 is a model that treats both alike, and so is what a retrained model shows. Below 0.5 is no
better than above: over-forgotten rows are told apart just as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedunlearn.errors import InputError
from fedunlearn.evaluation.intervals import Estimate, Floats, bootstrap, proportion

RESOLVABLE = {0.01: 1_000, 0.001: 10_000}  # false positive rate -> rows nobody trained on: ten of them are above the threshold
FEW = 32  # models on either side, below which a variance of its own for every row is mostly noise
NORMAL = 1.959963984540054  # standard deviations of a normal distribution that 95 % are within
LEAST = 1e-3  # standard deviation, nats; differences of margins below it are rounding
POINTS = 200  # of a curve that is kept for drawing

Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Verdict:
    """How well an attack tells members from others.

    Args:
        auc: area under the ROC curve; the interval is the wider of a bootstrap over both kinds of rows and of `_newcombe`'s.
        accuracy: balanced accuracy at the attack's own threshold, for attacks that have one.
        tpr: true positive rate at each false positive rate; its interval is the wider of an exact one at the threshold found
            and of a bootstrap, which moves the threshold too. Or why there are too few rows to speak of it.
        members: rows that were trained on.
        others: rows that were not.
        curve: (false positive rate, true positive rate), for drawing.
    """

    auc: Estimate
    accuracy: float | None
    tpr: Mapping[float, Estimate | str]
    members: int
    others: int
    curve: tuple[tuple[float, float], ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        rates = {f"{r:g}": e if isinstance(e, str) else e.to_json() for r, e in self.tpr.items()}
        return {**vars(self), "auc": self.auc.to_json(), "tpr": rates, "curve": [list(p) for p in self.curve]}


def verdict(members: Floats, others: Floats, threshold: float | None = None, seed: int = 0) -> Verdict:
    """Judge the scores of an attack.

    Args:
        members: scores [M] of rows that were trained on.
        others: scores [N] of rows that were not.
        threshold: scores above it say "member", for attacks that know where.
        seed: of the bootstrap.

    Raises:
        InputError: fewer than two rows of either kind.
    """
    from sklearn.metrics import roc_curve  # slow to import

    if min(len(members), len(others)) < 2:
        raise InputError(f"membership: {len(members)} members and {len(others)} others, expected two or more of each")
    truth = np.r_[np.ones(len(members)), np.zeros(len(others))]
    fpr, tpr, _ = roc_curve(truth, np.r_[members, others], drop_intermediate=False)
    rates: dict[float, Estimate | str] = {}
    for rate, least in RESOLVABLE.items():
        if len(others) < least:
            rates[rate] = f"not resolvable: {len(others)} rows that nobody trained on, expected {least:,} or more"
        else:
            rates[rate] = _rate(members, others, rate, seed)
    accuracy = None if threshold is None else float(np.mean(members > threshold) + np.mean(others <= threshold)) / 2
    kept = np.unique(np.linspace(0, len(fpr) - 1, POINTS).astype(int))
    curve = tuple((float(fpr[i]), float(tpr[i])) for i in kept)
    return Verdict(_area(members, others, seed), accuracy, rates, len(members), len(others), curve)


def _area(members: Floats, others: Floats, seed: int) -> Estimate:
    found = bootstrap([members, others], auc, seed)
    low, high = _newcombe(found.value, len(members), len(others))
    return Estimate(found.value, min(found.low, low), max(found.high, high), found.n)


def _newcombe(area: float, m: int, n: int) -> tuple[float, float]:
    """95 % interval of an area from how many rows there are of either kind: method 5 of Newcombe 2006 (Statist. Med. 25, 559).

    It is a point nowhere: of three rows that all score above three others a bootstrap says [1, 1].
    """
    from scipy.optimize import brentq  # slow to import

    def off(true: float) -> float:
        spread = (m + n) / 2 - 1
        both = 1 + spread * (1 - true) / (2 - true) + spread * true / (1 + true)
        return float((area - true) ** 2 - NORMAL**2 * true * (1 - true) * both / (m * n))

    inside = min(max(area, 1e-12), 1 - 1e-12)  # at the very ends is another root
    return (brentq(off, 0.0, inside) if area > 0 else 0.0), (brentq(off, inside, 1.0) if area < 1 else 1.0)


def _rate(members: Floats, others: Floats, rate: float, seed: int) -> Estimate:
    allowed = int(rate * len(others) + 1e-9)  # false positives

    def found(ours: Floats, theirs: Floats, axis: int) -> Any:
        threshold = -np.partition(-theirs, allowed, axis=axis)[..., allowed]
        return (ours > threshold[..., None]).mean(axis)

    at = proportion(round(float(found(members, others, -1)) * len(members)), len(members), "exact")
    moved = bootstrap([members, others], found, seed)
    return Estimate(at.value, min(at.low, moved.low), max(at.high, moved.high), len(members))


def auc(members: Floats, others: Floats, axis: int = -1) -> Any:
    """Probability that a member scores above another row, ties counting half; over stacks of samples along an axis.

    Args:
        members: scores [..., M].
        others: scores [..., N].
        axis: where the rows are; the last.
    """
    from scipy.stats import rankdata  # slow to import

    m, n = members.shape[axis], others.shape[axis]
    ranks = rankdata(np.concatenate([members, others], axis=axis), axis=axis)
    return (np.take(ranks, np.arange(m), axis=axis).sum(axis) - m * (m + 1) / 2) / (m * n)


def ulira(observed: Tensor, margins: Tensor, inside: Tensor) -> Floats:
    """U-LiRA (Hayes et al. 2025, arXiv 2403.01218; Carlini et al. 2022, arXiv 2112.03570): the likelihood ratio of each row.

    For each row, one normal distribution of its margin over shadow models that were trained on it and then made to forget it,
    and one over models that never saw it; which does the margin on the model under attack fit better? With few models on
    either side rows share the two variances. Without unlearned shadows this is plain LiRA, which is weaker.

    Args:
        observed: `margins` [N] of the model under attack on N rows.
        margins: of K shadow models on the same rows [K, N].
        inside: which of them were trained on which row [K, N].

    Returns:
        Log of the ratio of the likelihoods, nats, float64 [N]; its logistic function is the score in the paper, and 0 the
        threshold.

    Raises:
        InputError: shapes differ, or a row has fewer than two models on a side.
    """
    if margins.shape != inside.shape or margins.shape[1:] != observed.shape:
        raise InputError(
            f"U-LiRA: margins {tuple(margins.shape)} of shadows, {tuple(inside.shape)} memberships, {tuple(observed.shape)} "
            f"observed; expected [K, N] twice and [N]"
        )
    phi, x, trained = margins.numpy().astype(np.float64), observed.numpy().astype(np.float64), inside.numpy().astype(bool)
    counts = np.minimum(trained.sum(0), (~trained).sum(0))
    if len(counts) and counts.min() < 2:
        raise InputError(
            f"U-LiRA: a row has {counts.min()} shadow models on one side, expected two or more; train more shadows"
        )
    return _log_normal(x, phi, trained, counts >= FEW) - _log_normal(x, phi, ~trained, counts >= FEW)


def _log_normal(x: Floats, phi: Floats, chosen: Bools, enough: Bools) -> Floats:
    """Log density of x [N], up to a constant, under each row's normal distribution over the chosen models.

    A row has a variance of its own on both sides or on none: a sharp one held against a blunt one tells less than either kind.
    """
    number = chosen.sum(0)
    mean = np.where(chosen, phi, 0).sum(0) / number
    squares = np.where(chosen, (phi - mean) ** 2, 0).sum(0)
    own = squares / (number - 1)
    shared = squares.sum() / (number - 1).sum() if len(number) else 0.0
    deviation = np.maximum(np.sqrt(np.where(enough, own, shared)), LEAST)
    log_density: Floats = -(((x - mean) / deviation) ** 2) / 2 - np.log(deviation)
    return log_density


def population_scores(out: Tensor, y: Tensor) -> dict[str, Floats]:
    """Attacks with one threshold for all rows: weak, cheap, often reported. To report, never to headline.

    Args:
        out: logits [N, C].
        y: labels [N].

    Returns:
        Scores [N] by attack: "loss" (Yeom et al. 2018), "entropy" (of the outputs, as SSD's code), "modified_entropy".
    """
    log_p = out.double().log_softmax(1)
    loss = log_p.gather(1, y[:, None])[:, 0]
    entropy = (log_p.exp() * log_p).sum(1)
    return {"loss": loss.numpy(), "entropy": entropy.numpy(), "modified_entropy": -modified_entropy(out, y).numpy()}


def modified_entropy(out: Tensor, y: Tensor) -> Tensor:
    """Entropy that knows the label (Song and Mittal 2021, arXiv 2003.10595, equation 6): 0 for a sure and right row.

    -(1 - p_y) log p_y - sum over the other classes of p_c log(1 - p_c).

    Args:
        out: logits [N, C].
        y: labels [N].

    Returns:
        Nats [N].
    """
    log_p = out.double().log_softmax(1)
    p, label = log_p.exp(), y[:, None]
    rest = (-(p * (-p.clamp(max=1 - 1e-15)).log1p())).scatter(1, label, 0.0).sum(1)
    own = log_p.gather(1, label)[:, 0]
    return own.expm1() * own + rest


def modified_entropy_legacy(out: Tensor, y: Tensor) -> Tensor:
    """The same as widely copied code computes it. Only to show what it is worth: do not report it.

    It takes log p where log(1 - p) is meant, and exchanges the columns of all labels that occur in the batch in every row
    instead of each row's own: the result does not depend on a row's label, and does on the batch that it comes in.

    Args:
        out: logits [N, C].
        y: labels [N].
    """
    log_p = out.double().log_softmax(1)
    weight = log_p.exp()
    occurring = torch.bincount(y, minlength=out.shape[1]) > 0
    weight[:, occurring] = 1 - weight[:, occurring]
    return -(weight * log_p).sum(1)


def population_logistic(
    members: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor], forgotten: tuple[Tensor, Tensor], seed: int = 0
) -> tuple[Verdict, Estimate]:
    """Logistic regression on loss, entropy and modified entropy: does it call forgotten rows members?

    Learned on one half of the retained rows and of rows that nobody trained on, judged on the other. The aim is the share that
    it calls members of a retrained model, not 0.

    Args:
        members: logits [N, C] and labels [N] of rows that were trained on and stay.
        others: of rows that nobody trained on.
        forgotten: of rows that were to be forgotten.
        seed: of the split.

    Returns:
        The attack's verdict on held-out rows (an attack of 0.5 says nothing), and the share of forgotten rows that it calls
        members.

    Raises:
        InputError: fewer than four members or others: a half is for learning.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if min(len(members[1]), len(others[1])) < 4:
        raise InputError(f"membership: {len(members[1])} members and {len(others[1])} others, expected four or more of each")
    known, unknown, asked = (np.stack(list(population_scores(*rows).values()), 1) for rows in (members, others, forgotten))
    x, y = np.r_[known, unknown], np.r_[np.ones(len(known)), np.zeros(len(unknown))]
    x_fit, x_held, y_fit, y_held = train_test_split(x, y, test_size=0.5, stratify=y, random_state=seed)
    attack = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)).fit(x_fit, y_fit)
    score = attack.decision_function(x_held)
    found = verdict(score[y_held == 1], score[y_held == 0], 0.0, seed)
    return found, proportion(int(attack.predict(asked).sum()), len(asked))
