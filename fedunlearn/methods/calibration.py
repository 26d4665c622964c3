"""Choosing a strength by forward passes on calibration rows, instead of by a constant that is right by luck."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedunlearn.methods.base import Strength

MOST = 20  # forward passes over the calibration rows that choosing a strength may take
KEPT = 40  # strengths that may be tried where one pass serves all: edits of the last layer, on kept inputs of it
FIRST, DOUBLINGS, HALVINGS = 0.5, 12, 5  # a number is searched from 0.5 to 1024, in at most 17 tries, to 3 %
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
    sent: Strength | None = None,
) -> Choice:
    """Choose among strengths.

    A strength that was calibrated at the roots comes first: it is taken where there are no forgotten rows to see it, or where
    what it does here keeps to both limits. Otherwise, with an aim and forgotten rows: among those within both limits, or among
    all if none is, the least sum of the distance to the aim and of what is lost on the rest; ties go to the smaller edit.
    Without either: the largest edit that costs at most `SPARE` on the rest, which bounds the damage and promises nothing.

    Args:
        strengths: what to choose from; a single one is taken as given.
        score: accuracy on forgotten and retained calibration rows after an edit of that strength, and the edit's size.
        before: the accuracies without an edit.
        aim: the forgotten accuracy to come to: 0 for a class that must be absent, a retrained model's otherwise.
        limits: the gate's, on the distance to the aim and on what is lost on the rest.
        sent: the strength that was calibrated at the roots, where a method has one.
    """
    if len(strengths) == 1:
        return Choice(strengths[0], "given", ())
    away, drop = (1.0 if limit is None else limit for limit in limits)
    rest, blind = before[1] or 0.0, aim is None or before[0] is None
    first: tuple[tuple[Strength, float | None, float | None, float], ...] = ()
    if sent is not None:
        first = ((sent, *score(sent)),)
        _, left, kept, _ = first[0]
        if blind:
            return Choice(sent, "calibrated at the roots; no row tells what is left here", first)
        if abs((left or 0.0) - (aim or 0.0)) <= away and rest - (kept or 0.0) <= drop:
            return Choice(sent, "calibrated at the roots, and within the limits here", first)
    curve = first + tuple((s, *score(s)) for s in strengths if s != sent)
    lost = [max(0.0, rest - (r or 0.0)) for _, _, r, _ in curve]
    if blind:
        fits = [i for i, cost in enumerate(lost) if cost <= SPARE]
        best = max(fits, key=lambda i: curve[i][3]) if fits else min(range(len(lost)), key=lost.__getitem__)
        return Choice(curve[best][0], f"no row tells what is left: largest that costs at most {SPARE:.0%} of the rest", curve)
    off = [abs((f or 0.0) - (aim or 0.0)) for _, f, _, _ in curve]
    within = [i for i in range(len(curve)) if off[i] <= away and lost[i] <= drop] or list(range(len(curve)))
    best = min(within, key=lambda i: (off[i] + lost[i], curve[i][3]))
    return Choice(curve[best][0], f"closest to {aim:.0%} left with the least lost on the rest", curve)


def least(left: Callable[[float], float], aim: float) -> float:
    """The least number, to a few percent, after which at most `aim` is left; by doubling, then halving the bracket.

    Args:
        left: what is left after an edit by a number; should fall.
        aim: what may be left.

    Returns:
        `FIRST` at the least; where nothing up to `FIRST * 2 ** (DOUBLINGS - 1)` is enough, the one that left the least.
    """
    tried: dict[float, float] = {}
    for k in range(DOUBLINGS):
        tried[FIRST * 2**k] = left(FIRST * 2**k)
        if tried[FIRST * 2**k] <= aim:
            break
    else:
        return min(tried, key=lambda number: (tried[number], number))
    high = max(tried)
    low = high / 2
    if len(tried) > 1:
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if left(middle) <= aim else (middle, high)
    return high
