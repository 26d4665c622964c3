"""Choosing a strength by forward passes on calibration rows, instead of by a constant that is right by luck."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedunlearn.methods.base import Strength

SPARE = 0.01  # what an edit may cost on the rest where nothing can tell how much it forgot

Pair = tuple[float | None, float | None]  # accuracy on forgotten and on retained calibration rows; None without rows
Tried = tuple[float | None, float | None, float]  # the same, and the size of the edit


@dataclass(frozen=True)
class Choice:
    """The strength chosen, why, and what every strength tried would have given.

    Args:
        strength: the chosen one.
        rule: how it was chosen, in words.
        curve: (strength, forgotten, retained, size of the edit) for each one tried.
    """

    strength: Strength
    rule: str
    curve: tuple[tuple[Strength, float | None, float | None, float], ...]


def calibrate(
    strengths: Sequence[Strength],
    score: Callable[[Strength], Tried],
    before: Pair,
    aim: float | None,
    limits: Pair = (0.05, 0.05),
) -> Choice:
    """Choose among strengths.

    With an aim and forgotten rows: among those within both limits, or among all if none is, the least sum of the distance to
    the aim and of what is lost on the rest; ties go to the smaller edit. Without either: the largest edit that costs at most
    `SPARE` on the rest, which bounds the damage and promises nothing.

    Args:
        strengths: what to choose from; a single one is taken as given.
        score: accuracy on forgotten and retained calibration rows after an edit of that strength, and the edit's size.
        before: the accuracies without an edit.
        aim: the forgotten accuracy to come to: 0 for a class that must be absent, a retrained model's otherwise.
        limits: the gate's, on the distance to the aim and on what is lost on the rest.
    """
    if len(strengths) == 1:
        return Choice(strengths[0], "given", ())
    curve = tuple((s, *score(s)) for s in strengths)
    rest = before[1] or 0.0
    lost = [max(0.0, rest - (r or 0.0)) for _, _, r, _ in curve]
    if aim is None or before[0] is None:
        fits = [i for i, cost in enumerate(lost) if cost <= SPARE]
        best = max(fits, key=lambda i: curve[i][3]) if fits else min(range(len(lost)), key=lost.__getitem__)
        return Choice(curve[best][0], f"no row tells what is left: largest that costs at most {SPARE:.0%} of the rest", curve)
    off = [abs((f or 0.0) - aim) for _, f, _, _ in curve]
    away, drop = (1.0 if limit is None else limit for limit in limits)
    within = [i for i in range(len(curve)) if off[i] <= away and lost[i] <= drop] or list(range(len(curve)))
    best = min(within, key=lambda i: (off[i] + lost[i], curve[i][3]))
    return Choice(curve[best][0], f"closest to {aim:.0%} left with the least lost on the rest", curve)
