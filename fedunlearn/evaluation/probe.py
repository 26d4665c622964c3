"""Do the features below the last layer still know the class? An edit can bring a model to 0 % and leave them as they are.

A probe of a retrained model does not score zero: features learned on other classes tell a new class apart rather well. Only
the difference to the retrained model's own value is residual knowledge.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch

from fedunlearn.data import Rows
from fedunlearn.errors import InputError

RIDGE = (1e-2, 1e0, 1e2)  # penalties of the closed-form probe, on standardised features
LOGISTIC = (1e-2, 1e0, 1e2)  # inverse penalties of the other
FOLDS = 5


@dataclass(frozen=True)
class Probe:
    """A classifier on frozen features.

    Args:
        kind: what cross-validation chose, in words; or that it is of class means.
        right: for each test row, whether it is recognised, bool [N].
        labels: class of each test row.
    """

    kind: str
    right: tuple[bool, ...]
    labels: tuple[str, ...]

    def of(self, classes: Collection[str]) -> list[bool]:
        """Which test rows of some classes are recognised."""
        return [r for r, c in zip(self.right, self.labels, strict=True) if c in classes]


def linear_probe(calibration: Rows, test: Rows, seed: int = 0) -> Probe:
    """Linear-probe recovery: can a new last layer, told the labels, find the forgotten class in frozen features?

    Ridge regression on labels in closed form, or multinomial logistic regression, whichever cross-validation on the calibration
    rows prefers; classes weigh equally, as an attacker is after the rare one, too. Recovery of a class is `Probe.of` it.

    Args:
        calibration: features [N, D] of rows to learn on, the forgotten class among them (`features`).
        test: features of other rows, by the same net.
        seed: of the folds.

    Raises:
        InputError: no test row, fewer than two classes, or a class with a single row to learn on.
    """
    from sklearn.linear_model import LogisticRegression, RidgeClassifier  # slow to import
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    counts = calibration.counts()
    if not len(test):
        raise InputError("probe: no test row")
    if len(counts) < 2 or min(counts.values()) < 2:
        raise InputError(f"probe: rows to learn on are {counts}, expected two or more of two or more classes")
    ridge, logistic = RidgeClassifier(class_weight="balanced"), LogisticRegression(class_weight="balanced", max_iter=5000)
    search = GridSearchCV(
        Pipeline([("scale", StandardScaler()), ("probe", ridge)]),
        [{"probe": [ridge], "probe__alpha": RIDGE}, {"probe": [logistic], "probe__C": LOGISTIC}],
        scoring="balanced_accuracy",
        cv=StratifiedKFold(min(FOLDS, *counts.values()), shuffle=True, random_state=seed),
    )
    search.fit(calibration.x.numpy().astype(np.float64), calibration.y.numpy())
    best = search.best_params_
    kind = f"ridge, penalty {best['probe__alpha']:g}" if "probe__alpha" in best else f"logistic, C {best['probe__C']:g}"
    right = search.predict(test.x.numpy().astype(np.float64)) == test.y.numpy()
    return Probe(kind, tuple(right.tolist()), test.labels)


def prototypes(calibration: Rows, test: Rows, shots: int | None = None) -> Probe:
    """The nearest class mean: what overwriting rows of the head by means of a few examples would recognise.

    Undoes exactly those edits that change the last layer alone (prototypical relearning, arXiv 2506.01318).

    Args:
        calibration: features [N, D] of rows that the means are of.
        test: features of other rows, by the same net.
        shots: how many rows of each class, the first ones; all by default.

    Raises:
        InputError: no test row, no shot, or rows of a single class.
    """
    if not len(test) or (shots is not None and shots < 1):
        raise InputError(f"prototypes: {len(test)} test rows and {shots} shots, expected one or more of each")
    shown = calibration if shots is None else calibration.first(shots)
    known = [k for k in range(len(shown.classes)) if bool((shown.y == k).any())]
    if len(known) < 2:
        raise InputError(f"prototypes: rows of {sorted(shown.counts())} alone, expected two or more classes")
    means = torch.stack([shown.x[shown.y == k].double().mean(0) for k in known])
    nearest = torch.tensor(known)[torch.cdist(test.x.double(), means).argmin(1)]
    return Probe(
        f"means of {'all' if shots is None else shots} rows of each class", tuple((nearest == test.y).tolist()), test.labels
    )
