"""The gate: may an edited model become the current one? It answers in words, and objects to what was not tested."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedunlearn.errors import InputError
from fedunlearn.evaluation.limits import check_limits, judge_metrics, tiers_of
from fedunlearn.scores import Scores


@dataclass(frozen=True)
class Gate:
    """Limits, as fractions, and where they may be tested.

    Args:
        forgotten_at_most: accuracy left on the forgotten classes, where they must be absent.
        retained_drop_at_most: how much the accuracy on the rest may fall; what retraining itself costs is not counted, where
            a retrained model is the target.
        distance_to_retrained_at_most: from a retrained model's accuracy on the same forgotten rows, where that is the target.
        metrics: limits on what an evaluation finds, by the way to the number: {"probe.after.above_retrained": {"at_most": 0.1}}
            (see `evaluation.limits`).
        score_at_roots: have candidates whose home has no rows to test them on scored at the sites of their roots; their
            weights travel there, as far as the home gives them.

    Raises:
        InputError: a limit is not a fraction, or a metric or its limit is none.
    """

    forgotten_at_most: float = 0.05
    retained_drop_at_most: float = 0.05
    distance_to_retrained_at_most: float = 0.10
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    score_at_roots: bool = False

    def __post_init__(self) -> None:
        for what in ("forgotten_at_most", "retained_drop_at_most", "distance_to_retrained_at_most"):
            if not 0 <= (value := getattr(self, what)) <= 1:
                raise InputError(f"gate: {what} is {value}, expected a fraction from 0 to 1")
        check_limits(self.metrics)

    @property
    def tiers(self) -> tuple[str, ...]:
        """The tiers that have to be taken before it can judge; "quick" always is."""
        return tiers_of(self.metrics)

    def judge(
        self,
        target: str,
        before: Scores,
        after: Scores,
        retrained: Scores | None,
        evaluation: Mapping[str, Mapping[str, Any]] | None = None,
        absent: Collection[str] = (),
    ) -> tuple[list[str], list[str]]:
        """Objections to one edited model; of several classes, each is judged by itself.

        Args:
            target: "absent", "as_retrained" or "not_expressible".
            before: its scores on test rows before the edit.
            after: the same rows, after.
            retrained: the retrained model's scores on the same rows, if there is one.
            evaluation: what `evaluate` found, by tier, for the limits on metrics.
            absent: classes that must be absent, whatever the target is.

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
                elif target == "absent" or what in absent:
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
        else:
            again = retrained.retained if retrained is not None and target == "as_retrained" else None
            of, due = ("", before.retained) if again is None or again >= before.retained else ("a retrained model's ", again)
            if (drop := due - after.retained) > self.retained_drop_at_most:
                wrong.append(
                    f"accuracy on the rest fell by {drop:.1%}, from {of}{due:.1%} to {after.retained:.1%} "
                    f"(at most {self.retained_drop_at_most:.1%})"
                )
        over, unknown = judge_metrics(self.metrics, target, evaluation or {})
        return wrong + over, list(dict.fromkeys(untested + unknown))

    def unresolved(self, target: str, before: Scores, retrained: Scores | None) -> list[str]:
        """Where accuracy cannot tell an edited model from one that was left as it was: both are as near a retrained one."""
        if target != "as_retrained":
            return []
        pairs = [(c, v, _of(retrained, c)) for c, v in (before.by_class or {"": before.forgotten}).items()]
        return [
            f"accuracy cannot tell: before the edit, {was:.1%} of the forgotten rows {f'of class {c} ' if c else ''}were "
            f"recognised, and a retrained model recognises {again:.1%}"
            for c, was, again in pairs
            if was is not None and again is not None and abs(was - again) <= self.distance_to_retrained_at_most
        ]


def _of(scores: Scores | None, what: str) -> float | None:
    if scores is None:
        return None
    return scores.by_class.get(what) if what else scores.forgotten
