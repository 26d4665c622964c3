"""The gate: may an edited model become the current one? It answers in words, and objects to what was not tested."""

from dataclasses import dataclass

from fedunlearn.errors import InputError
from fedunlearn.evaluation.accuracy import Scores


@dataclass(frozen=True)
class Gate:
    """Limits, as fractions.

    Args:
        forgotten_at_most: accuracy left on the forgotten classes, where they must be absent.
        retained_drop_at_most: how much the accuracy on the rest may fall.
        distance_to_retrained_at_most: from a retrained model's accuracy on the same forgotten rows, where that is the target.

    Raises:
        InputError: a limit is not a fraction.
    """

    forgotten_at_most: float = 0.05
    retained_drop_at_most: float = 0.05
    distance_to_retrained_at_most: float = 0.10

    def __post_init__(self) -> None:
        for what, value in vars(self).items():
            if not 0 <= value <= 1:
                raise InputError(f"gate: {what} is {value}, expected a fraction from 0 to 1")

    def judge(self, target: str, before: Scores, after: Scores, retrained: Scores | None) -> tuple[list[str], list[str]]:
        """Objections to one edited model; of several classes, each is judged by itself.

        Args:
            target: "absent", "as_retrained" or "not_expressible".
            before: its scores on test rows before the edit.
            after: the same rows, after.
            retrained: the retrained model's scores on the same rows, if there is one.

        Returns:
            What was found wrong, and what was due but not tested.
        """
        wrong: list[str] = []
        untested: list[str] = []
        if target != "not_expressible":
            for what, left in after.by_class.items() if after.by_class else [("", after.forgotten)]:
                of = f"of class {what} " if len(after.by_class) > 1 else ""
                if left is None:
                    untested.append(f"not tested: no row {of or 'of what is forgotten '}can be scored at its home")
                elif target == "absent":
                    if left > self.forgotten_at_most:
                        wrong.append(
                            f"{left:.1%} of the forgotten rows {of}are still recognised (at most {self.forgotten_at_most:.1%})"
                        )
                elif (again := _of(retrained, what)) is None:
                    untested.append("not tested: there is no retrained model to compare with")
                elif (gap := abs(left - again)) > self.distance_to_retrained_at_most:
                    wrong.append(
                        f"{left:.1%} of the forgotten rows {of}are recognised, a retrained model recognises {again:.1%}: "
                        f"{gap:.1%} apart (at most {self.distance_to_retrained_at_most:.1%})"
                    )
        if after.retained is None or before.retained is None:
            untested.append("not tested: its home has no held-out row of the rest")
        elif (drop := before.retained - after.retained) > self.retained_drop_at_most:
            wrong.append(
                f"accuracy on the rest fell by {drop:.1%}, from {before.retained:.1%} to {after.retained:.1%} "
                f"(at most {self.retained_drop_at_most:.1%})"
            )
        return wrong, list(dict.fromkeys(untested))


def _of(scores: Scores | None, what: str) -> float | None:
    if scores is None:
        return None
    return scores.by_class.get(what) if what else scores.forgotten
