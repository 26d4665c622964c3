"""How long will it take? From steps of the same kind that are done; where there are none, it says so."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

Step = tuple[str, str]  # topology; "training", "retraining", or a method


@dataclass
class Clock:
    """Counts steps down.

    Args:
        left: how many of each kind are to be done.
        seconds: what those took that are done, in this run or before.
        kept: how many were done before this run.
    """

    left: Counter[Step] = field(default_factory=Counter)
    seconds: dict[Step, list[float]] = field(default_factory=dict)
    kept: int = 0

    @classmethod
    def of(cls, steps: Iterable[tuple[Step, float | None]]) -> "Clock":
        """Of all steps, with the seconds of those that are done."""
        clock = cls()
        for step, seconds in steps:
            if seconds is None:
                clock.left[step] += 1
            else:
                clock.seconds.setdefault(step, []).append(seconds)
                clock.kept += 1
        return clock

    def done(self, step: Step, seconds: float) -> None:
        """One step of those that were left was done."""
        self.left[step] -= 1
        self.seconds.setdefault(step, []).append(seconds)

    @property
    def known(self) -> float:
        """Seconds for what is left of the kinds that are known."""
        return sum(n * sum(s) / len(s) for step, n in self.left.items() if (s := self.seconds.get(step)))

    @property
    def unknown(self) -> int:
        """How many steps are left of kinds that nothing is known of."""
        return sum(n for step, n in self.left.items() if step not in self.seconds)

    def words(self) -> str:
        """What is left, and how long that takes."""
        steps = self.left.total()
        about = [_hours(self.known)] if steps > self.unknown else []
        if self.unknown:
            about.append(
                f"unknown for {self.unknown}, until the first of {'its' if self.unknown == 1 else 'their'} kind is done"
            )
        said = f"{steps} step{'s' * (steps != 1)} left" + (f", {self.kept} kept from before" if self.kept else "")
        return f"{said}; time: {' and '.join(about)}" if steps else said


def _hours(seconds: float) -> str:
    return f"about {seconds / 3600:.1f} hours" if seconds >= 3600 else f"about {max(seconds / 60, 0.1):.1f} minutes"
