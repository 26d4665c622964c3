"""Choosing a strength by forward passes on calibration rows, instead of by a constant that is right by luck."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedunlearn.errors import ShapeError
from fedunlearn.methods.base import Strength
from fedunlearn.scores import Scores

MOST = 20  # forward passes over the calibration rows that choosing a strength may take
KEPT = 40  # strengths that may be tried where one pass serves all: edits of the last layer, on kept inputs of it
FIRST, DOUBLINGS, HALVINGS = 0.5, 12, 5  # a number is searched from 0.5 to 1024, in at most 17 tries, to 3 %
FARTHEST = FIRST * 2 ** (DOUBLINGS - 1)  # what such a search returns at the most
CLOSE = 1.05  # strengths whose ratio is below that are not told apart
SPARE = 0.01  # what an edit may cost on the rest where nothing can tell how much it forgot

AT_ROOTS = "calibrated at the roots"  # how a rule begins by which a strength travelled with the evidence

NOTHING_LEFT = Scores(0.0, None, 0, 0)  # the aim where classes must be absent
Point = tuple[Strength, float | None, float | None, float]


@dataclass(frozen=True)
class Choice:
    """The strength chosen, why, and what every strength tried would have given.

    Args:
        strength: the chosen one; None where nothing tells one from another.
        rule: how it was chosen, in words.
        curve: (strength, forgotten, retained, size of the edit) for each one tried.
    """

    strength: Strength | None
    rule: str
    curve: tuple[Point, ...]


def calibrate(
    strengths: Sequence[Strength],
    score: Callable[[Strength], tuple[Scores, float]],
    before: Scores,
    aim: Scores | None,
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
    Of several classes, the one that is farthest from its aim counts. Where retraining costs accuracy on the rest, losing as
    much is no loss. Without an aim or forgotten rows: the largest edit that costs at most `SPARE` on the rest, which bounds the
    damage and promises nothing. Without rows of the rest, nothing bounds the damage, and none is chosen.
    What is left of the budget goes to strengths beside the best, closer and closer. One that breaks the model is passed over.

    Args:
        strengths: what to begin with; a single one is taken as given.
        score: accuracies on calibration rows after an edit of that strength, and the edit's size.
        before: the accuracies without an edit.
        aim: to come to: 0 of classes that must be absent, a retrained model's accuracies otherwise; None if nobody can say.
        limits: the gate's, on the distance to the aim and on what is lost on the rest.
        sent: the strength that was calibrated at the roots, where a method has one.
        finer: strengths between the best one and its neighbours among those tried.
        most: how many may be tried in all.

    Raises:
        ShapeError: every strength that was tried gives NaN or infinity.
    """
    if len(strengths) == 1:
        return Choice(strengths[0], "given", ())
    rest = min((s.retained for s in (before, aim) if s is not None and s.retained is not None), default=None)
    unseen = "no row tells" if before.forgotten is None else "no retrained model tells" if aim is None else ""
    found, tried, broken = list[tuple[Strength, Scores, float]](), list[Strength](), list[ShapeError]()

    def off(scores: Scores) -> float:
        if aim is None:
            return 0.0
        named = [(v, aim.by_class.get(c)) for c, v in scores.by_class.items()] or [(scores.forgotten, None)]
        return max(abs((v or 0.0) - ((aim.forgotten or 0.0) if to is None else to)) for v, to in named)

    def lost(scores: Scores) -> float:
        return max(0.0, (rest or 0.0) - (scores.retained or 0.0))

    def best() -> tuple[Strength, Scores, float]:
        if unseen:
            fits = [p for p in found if lost(p[1]) <= SPARE]
            return max(fits, key=lambda p: p[2]) if fits else min(found, key=lambda p: lost(p[1]))
        within = [p for p in found if off(p[1]) <= limits[0] and lost(p[1]) <= limits[1]]
        return min(within or found, key=lambda p: (off(p[1]) + lost(p[1]), p[2]))

    def take(strength: Strength) -> None:
        tried.append(strength)
        try:
            found.append((strength, *score(strength)))
        except ShapeError as error:
            broken.append(error)

    def chosen(strength: Strength | None, rule: str) -> Choice:
        return Choice(strength, rule, tuple((s, of.forgotten, of.retained, size) for s, of, size in found))

    if sent is not None:
        take(sent)
    if found and sent is not None and lost(found[0][1]) <= limits[1]:
        if unseen:
            return chosen(sent, f"{AT_ROOTS}; {unseen} what is left here")
        if off(found[0][1]) <= limits[0]:
            return chosen(sent, f"{AT_ROOTS}, and within the limits here")
    if rest is None:
        return chosen(
            None, "no calibration row of the rest tells what an edit costs: give a strength, for example --set alpha=10"
        )
    for strength in (s for s in strengths if s != sent):
        take(strength)
    if not found:
        raise broken[-1]
    while len(tried) < most:
        new = [s for s in finer([s for s, *_ in found], best()[0]) if s not in tried][: most - len(tried)]
        if not new:
            break
        for strength in new:
            take(strength)
    strength, scores, _ = best()
    if not unseen:
        to = aim.forgotten if aim is not None and aim.forgotten else 0.0
        return chosen(strength, f"closest to {to:.0%} left with the least lost on the rest")
    bound = "largest that costs at most" if lost(scores) <= SPARE else "costs the least, though more than"
    return chosen(strength, f"{unseen} what is left: {bound} {SPARE:.0%} of the rest")


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
