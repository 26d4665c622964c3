"""Forward passes only: what every `unlearn` can afford."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fedunlearn.evaluation.closeness import average_gap, completeness, jsd, kl, tow
from fedunlearn.evaluation.intervals import LEVEL, difference, noise_floor, proportion
from fedunlearn.evaluation.outputs import hits
from fedunlearn.evaluation.trial import Trial

COMPARED = ("forgotten", "retained", "test")  # the three sets of rows of the literature
ONE = "one retrained model: no floor; give several, of different seeds"


def accuracies(trial: Trial) -> dict[str, Any]:
    """Of each net on each set of rows, with Wilson's interval; training rows of a forgotten class are apart."""
    more = ("forgotten_training",) if trial.material.classes else ()
    parts = _with_rows(trial, (*COMPARED, *more))
    return {net: {part: _accuracy(trial, net, part).to_json() for part in parts} for net in trial.nets.named}


def accuracies_by_class(trial: Trial) -> dict[str, Any]:
    """Of each net on the held-out test rows of each class that has any."""
    names = ("forgotten", "test") if trial.material.classes else ("test",)
    found: dict[str, dict[str, Any]] = {}
    for net in trial.nets.named:
        found[net] = {}
        for name in names:
            rows = trial.parts[name]
            right = hits(trial.logits(net, name), rows.y)
            for c, n in rows.counts().items():
                found[net][c] = proportion(int(right[rows.positions([c])].sum()), n).to_json()
    return found


def worst_class(trial: Trial) -> dict[str, Any]:
    """Of the classes that stay, the one whose accuracy on held-out test rows fell most from before, by net.

    The mean on the rest hides it: of a hundred classes one may be gone for a point. One is the worst of many by chance, too:
    its interval is as wide as all of theirs must be to cover 95 % together (Bonferroni); the value itself is not corrected.
    """
    rows, found = trial.parts["test"], {}
    right = {net: hits(trial.logits(net, "test"), rows.y) for net in trial.nets.named}
    at = {c: rows.positions([c]) for c in rows.counts()}
    for net in (n for n in right if n != "before"):
        fell = {c: float(right["before"][i].double().mean() - right[net][i].double().mean()) for c, i in at.items()}
        worst = max(fell, key=fell.__getitem__)
        first, second = (right[of][at[worst]].tolist() for of in ("before", net))
        found[net] = {"class": worst, "fell": difference(first, second, 1 - (1 - LEVEL) / len(at)).to_json()}
    return found


def gaps(trial: Trial) -> dict[str, Any]:
    """Mean distance of accuracies to the retrained models'."""
    return _of_accuracies(trial, average_gap)


def tug_of_war(trial: Trial) -> dict[str, Any]:
    """ToW: 1 is like retrained.

    Differs: where classes are forgotten, their accuracy is of held-out rows, in the paper of those that were trained on.
    """
    return _of_accuracies(trial, tow)


def divergence(trial: Trial) -> dict[str, Any]:
    """KL(retrained || model), nats, on each set of rows."""
    return _of_logits(trial, lambda model, again: kl(again, model))


def symmetric_divergence(trial: Trial) -> dict[str, Any]:
    """Jensen-Shannon divergence to the retrained models, nats."""
    return _of_logits(trial, jsd)


def agreement(trial: Trial) -> dict[str, Any]:
    """Completeness: share of rows with the retrained models' answer."""
    return _of_logits(trial, completeness)


def _accuracy(trial: Trial, net: str, part: str) -> Any:
    rows = trial.parts[part]
    return proportion(int(hits(trial.logits(net, part), rows.y).sum()), len(rows))


def _with_rows(trial: Trial, parts: tuple[str, ...]) -> list[str]:
    return [p for p in parts if len(trial.parts[p])]


def _of_accuracies(trial: Trial, distance: Callable[[dict[str, float], dict[str, float]], float]) -> dict[str, Any]:
    parts = _with_rows(trial, COMPARED)
    scores = {net: {p: _accuracy(trial, net, p).value for p in parts} for net in trial.nets.named}
    return {"over": parts, **_to_retrained(trial, scores, distance)}


def _of_logits(trial: Trial, distance: Callable[[Tensor, Tensor], float]) -> dict[str, Any]:
    outputs = {p: {net: trial.logits(net, p) for net in trial.nets.named} for p in _with_rows(trial, COMPARED)}
    return {p: _to_retrained(trial, of, distance) for p, of in outputs.items()}


def _to_retrained(trial: Trial, of: dict[str, Any], distance: Callable[[Any, Any], float]) -> dict[str, Any]:
    """Mean over the retrained models, for every other net; and the same among themselves."""
    again = trial.nets.again
    means = {net: sum(distance(of[net], of[r]) for r in again) / len(again) for net in of if net not in again}
    floor = noise_floor([of[r] for r in again], distance).to_json() if len(again) > 1 else ONE
    return {**means, "retrained_to_retrained": floor}
