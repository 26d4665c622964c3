"""Choosing a strength by forward passes on calibration rows, instead of by a constant that is right by luck."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from fedunlearn.errors import ShapeError
from fedunlearn.methods.base import Strength
from fedunlearn.scores import Scores

MOST = 20  # forward passes over the calibration rows that choosing a strength may take
BEGIN = 5  # strengths that a search begins with, evenly spread
GAIN = 0.005  # a gap that promises less is not searched
FIRST, DOUBLINGS, HALVINGS = 0.5, 12, 5  # a number is searched from 0.5 to 1024, in at most 17 tries, to 3 %
FARTHEST = FIRST * 2 ** (DOUBLINGS - 1)  # what such a search returns at the most
SPARE = 0.01  # what an edit may cost on the rest where nothing can tell how much it forgot

AT_ROOTS = "calibrated at the roots"  # how a rule begins by which a strength travelled with the evidence

NOTHING_LEFT = Scores(0.0, None, 0, 0)  # the aim where classes must be absent
BROKEN = Scores(0.0, 0.0, 0, 0), inf  # how an edit counts after which the model gives NaN or infinity: it went too far
Result = tuple[Scores, float]  # of an edit: accuracies on calibration rows, and its size
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
    score: Callable[[Strength], Result],
    before: Scores,
    aim: Scores | None,
    limits: tuple[float, float] = (0.05, 0.05),
    *,
    sent: Strength | None = None,
    most: int = MOST,
) -> Choice:
    """Choose among strengths.

    A strength that was calibrated at the roots comes first: it is taken where what it does here keeps to the limits, as far as
    there are rows to see it. Otherwise, with an aim and forgotten rows: among those within both limits, or among
    all if none is, the least sum of the distance to the aim and of what is lost on the rest; ties go to the smaller edit.
    Of several classes, the one that is farthest from its aim counts. Where retraining costs accuracy on the rest, losing as
    much is no loss. Without an aim or forgotten rows: the largest edit that costs at most `SPARE` on the rest, as no smaller
    one that was tried costs more; that bounds the damage and promises nothing. Without rows of the rest, nothing bounds the
    damage, and none is chosen.

    A few, evenly spread, are tried to begin with. A larger edit leaves less and costs more: what lies between two that were
    tried can be as good as what the larger leaves at what the smaller costs (or as the aim, where the larger ruins the model,
    which may make everything the class). The gap that promises most is halved, until none promises more than was found or the
    budget is spent. One that breaks the model is passed over.

    Args:
        strengths: what to choose from, from the smallest edit to the largest; a single one is taken as given.
        score: accuracies on calibration rows after an edit of that strength, and the edit's size.
        before: the accuracies without an edit.
        aim: to come to: 0 of classes that must be absent, a retrained model's accuracies otherwise; None if nobody can say.
        limits: the gate's, on the distance to the aim and on what is lost on the rest.
        sent: the strength that was calibrated at the roots, where a method has one.
        most: how many may be tried in all.

    Raises:
        ShapeError: every strength that was tried gives NaN or infinity.
    """
    if len(strengths) == 1:
        return Choice(strengths[0], "given", ())
    search = _Search(score, before, aim, limits)
    if sent is not None and (result := search.take(sent)) is not BROKEN and search.lost(result[0]) <= limits[1]:
        if search.unseen:
            return search.choice(sent, f"{AT_ROOTS}; {search.unseen} what is left here")
        if search.badness(result) <= (False, inf):
            return search.choice(sent, f"{AT_ROOTS}, and within the limits here")
    if search.rest is None:
        return search.choice(
            None, "no calibration row of the rest tells what an edit costs: give a strength, for example --set alpha=10"
        )
    line = {at: search.take(strengths[at]) for at in evenly(len(strengths), BEGIN)[: most - len(search.tried)]}
    while len(search.tried) < most and search.found():
        gaps = [(search.badness(line[a], line[b]), a, b) for a, b in pairwise(sorted(line)) if b - a > 1]
        best = min(search.badness(result) for _, result in search.found())
        worth = [(worse, round(bad, 2), a - b, a, b) for (worse, bad), a, b in gaps if (worse, bad + GAIN) < best]
        if not worth:
            break
        *_, a, b = min(worth)  # of those that promise as much, the widest
        line[(a + b) // 2] = search.take(strengths[(a + b) // 2])
    return search.best()


class _Search:
    """What was tried, and how bad it is; arguments are those of `calibrate`."""

    def __init__(
        self, score: Callable[[Strength], Result], before: Scores, aim: Scores | None, limits: tuple[float, float]
    ) -> None:
        self._score, self._aim, self._limits = score, aim, limits
        self.rest = min((s.retained for s in (before, aim) if s is not None and s.retained is not None), default=None)
        self.unseen = "no row tells" if before.forgotten is None else "no retrained model tells" if aim is None else ""
        self.tried: list[tuple[Strength, Result]] = []
        self._broken: list[ShapeError] = []

    def take(self, strength: Strength) -> Result:
        """What comes of a strength, tried once; `BROKEN` where the model breaks."""
        for one, result in self.tried:
            if one == strength:
                return result
        try:
            result = self._score(strength)
        except ShapeError as error:
            self._broken.append(error)
            result = BROKEN
        self.tried.append((strength, result))
        return result

    def found(self) -> list[tuple[Strength, Result]]:
        """All that broke nothing."""
        return [(strength, result) for strength, result in self.tried if result is not BROKEN]

    def lost(self, scores: Scores) -> float:
        """What an edit costs on the rest."""
        return max(0.0, (self.rest or 0.0) - (scores.retained or 0.0))

    def badness(self, *ends: Result) -> tuple[bool, float]:
        """Whether a limit is broken, and how bad it is; of a smaller and a larger edit, the least that may lie between them."""
        cost, sizes, limits = min(self.lost(scores) for scores, _ in ends), [size for _, size in ends], self._limits
        if self._aim is None or self.unseen:  # what is larger than one that costs too much only seems to cost less
            least = min((size for _, (scores, size) in self.tried if self.lost(scores) > SPARE), default=inf)
            return (True, cost) if cost > SPARE or min(sizes) > least else (False, -max(sizes))
        small, large = ends[0][0], ends[-1][0]
        ruined = self.lost(small) <= limits[1] < self.lost(large) and _away([small], self._aim) <= _away([large], self._aim)
        away = 0.0 if ruined else _away([small, large], self._aim)  # what is ruined may well know the class again
        return away > limits[0] or cost > limits[1], away + cost

    def best(self) -> Choice:
        """The least bad of what was tried; of several, the smallest edit.

        Raises:
            ShapeError: all of it broke the model.
        """
        if not self.found():
            raise self._broken[-1]
        strength, (scores, _) = min(self.found(), key=lambda one: (self.badness(one[1]), one[1][1]))
        if not self.unseen:
            to = self._aim.forgotten if self._aim is not None and self._aim.forgotten else 0.0
            return self.choice(strength, f"closest to {to:.0%} left with the least lost on the rest")
        bound = "largest that costs at most" if self.lost(scores) <= SPARE else "costs the least, though more than"
        return self.choice(strength, f"{self.unseen} what is left: {bound} {SPARE:.0%} of the rest")

    def choice(self, strength: Strength | None, rule: str) -> Choice:
        """A strength, and all that was tried."""
        return Choice(strength, rule, tuple((s, of.forgotten, of.retained, size) for s, (of, size) in self.found()))


def evenly(of: int, number: int) -> list[int]:
    """Positions among so many, the first and the last and what lies evenly between; all where there are no more."""
    return sorted({round(i * (of - 1) / max(1, number - 1)) for i in range(number)})


def _away(ends: Sequence[Scores], aim: Scores) -> float:
    """How far from its aim what is left of a class is, or must be between two results; of the class where that is most.

    A class that no row tells of is no farther from its aim than the others.
    """
    away = 0.0
    seen = {c: None for scores in ends for c, left in scores.by_class.items() if left is not None}
    for c in seen or {"": None}:
        left = [(scores.by_class.get(c) if seen else scores.forgotten) or 0.0 for scores in ends]
        to = aim.by_class.get(c)
        to = (aim.forgotten or 0.0) if to is None else to
        away = max(away, min(left) - to, to - max(left))
    return away


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
