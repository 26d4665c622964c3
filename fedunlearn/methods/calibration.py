"""Choosing a strength by forward passes on calibration rows, instead of by a constant that is right by luck."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedunlearn.errors import ShapeError
from fedunlearn.methods.base import Strength

MOST = 20  # forward passes over the calibration rows that choosing a strength may take
KEPT = 40  # strengths that may be tried where one pass serves all: edits of the last layer, on kept inputs of it
FIRST, DOUBLINGS, HALVINGS = 0.5, 12, 5  # a number is searched from 0.5 to 1024, in at most 17 tries, to 3 %
FARTHEST = FIRST * 2 ** (DOUBLINGS - 1)  # what such a search returns at the most
CLOSE = 1.05  # strengths whose ratio is below that are not told apart
SPARE = 0.01  # what an edit may cost on the rest where nothing can tell how much it forgot

AT_ROOTS = "calibrated at the roots"  # how a rule begins by which a strength travelled with the evidence

Pair = tuple[float | None, float | None]  # accuracy on forgotten and on retained calibration rows; None without rows
Tried = tuple[float | None, float | None, float]  # the same, and the size of the edit
Point = tuple[Strength, float | None, float | None, float]


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
    curve: tuple[Point, ...]


def calibrate(
    strengths: Sequence[Strength],
    score: Callable[[Strength], Tried],
    before: Pair,
    aim: float | None,
    limits: tuple[float, float] = (0.05, 0.05),
    *,
    sent: Strength | None = None,
    finer: Callable[[Sequence[Strength], Strength], Sequence[Strength]] = lambda _tried, _best: (),
    most: int = KEPT,
) -> Choice:
    """Choose among strengths.

    A strength that was calibrated at the roots comes first: it is taken where what it does here keeps to the limits, as far as
    there are rows to see it. Otherwise, with an aim and forgotten rows: among those within both limits, or among
    all if none is, the least sum of the distance to the aim and of what is lost on the rest; ties go to the smaller edit.
    Without either: the largest edit that costs at most `SPARE` on the rest, which bounds the damage and promises nothing.
    What is left of the budget goes to strengths beside the best, closer and closer. One that breaks the model is passed over.

    Args:
        strengths: what to begin with; a single one is taken as given.
        score: accuracy on forgotten and retained calibration rows after an edit of that strength, and the edit's size.
        before: the accuracies without an edit.
        aim: the forgotten accuracy to come to: 0 for a class that must be absent, a retrained model's otherwise.
        limits: the gate's, on the distance to the aim and on what is lost on the rest.
        sent: the strength that was calibrated at the roots, where a method has one.
        finer: strengths between the best one and its neighbours among those tried.
        most: how many may be tried in all.

    Raises:
        ShapeError: every strength that was tried gives NaN or infinity.
    """
    if len(strengths) == 1:
        return Choice(strengths[0], "given", ())
    rest, blind = before[1] or 0.0, aim is None or before[0] is None
    curve, tried, broken = list[Point](), list[Strength](), list[ShapeError]()

    def off(point: Point) -> float:
        return abs((point[1] or 0.0) - (aim or 0.0))

    def lost(point: Point) -> float:
        return max(0.0, rest - (point[2] or 0.0))

    def best() -> Point:
        if blind:
            fits = [p for p in curve if lost(p) <= SPARE]
            return max(fits, key=lambda p: p[3]) if fits else min(curve, key=lost)
        within = [p for p in curve if off(p) <= limits[0] and lost(p) <= limits[1]]
        return min(within or curve, key=lambda p: (off(p) + lost(p), p[3]))

    def take(strength: Strength) -> None:
        tried.append(strength)
        try:
            curve.append((strength, *score(strength)))
        except ShapeError as error:
            broken.append(error)

    if sent is not None:
        take(sent)
    if curve and sent is not None:
        if blind and lost(curve[0]) <= limits[1]:
            return Choice(sent, f"{AT_ROOTS}; no row tells what is left here", tuple(curve))
        if not blind and off(curve[0]) <= limits[0] and lost(curve[0]) <= limits[1]:
            return Choice(sent, f"{AT_ROOTS}, and within the limits here", tuple(curve))
    for strength in (s for s in strengths if s != sent):
        take(strength)
    if not curve:
        raise broken[-1]
    while len(tried) < most:
        new = [s for s in finer([s for s, *_ in curve], best()[0]) if s not in tried][: most - len(tried)]
        if not new:
            break
        for strength in new:
            take(strength)
    rule = f"closest to {aim or 0:.0%} left with the least lost on the rest"
    if blind:
        rule = f"no row tells what is left: largest that costs at most {SPARE:.0%} of the rest"
    return Choice(best()[0], rule, tuple(curve))


def beside(tried: Sequence[float], best: float) -> list[float]:
    """Geometric means of the best of some positive numbers and its neighbours; none closer than `CLOSE`."""
    above = min((v for v in tried if v > best), default=None)
    below = max((v for v in tried if 0 < v < best), default=None)
    return [(best * v) ** 0.5 for v in (above, below) if v is not None and best > 0 and max(v / best, best / v) > CLOSE]


def least(left: Callable[[float], float], aim: float) -> float:
    """The least number, to a few percent, after which at most `aim` is left; by doubling, then halving the bracket.

    Args:
        left: what is left after an edit by a number; should fall.
        aim: what may be left.

    Returns:
        `FIRST` at the least; where nothing up to `FARTHEST` is enough, the one that left the least.
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
