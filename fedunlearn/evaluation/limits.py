"""Limits of the gate on metrics, each named by the way to one number in what `evaluate` finds.

A way is the metric's name and the keys below it, with dots: "tow.after", "kl_to_retrained.test.after",
"relearn_retained.after.best", "population_membership.after.loss.auc.high". Where it ends at an estimate, its value is meant,
and where at a noise floor, its mean. A number that is not there, or that is said in words (a bound, "not resolvable"), was
not tested.
"""

import difflib
from collections.abc import Mapping
from math import isfinite
from typing import Any

from fedunlearn.errors import InputError, unknown
from fedunlearn.evaluation.tiers import METRICS, TIERS

SIDES = {"at_most": "at most", "at_least": "at least"}
NUMBERS = ("value", "mean")  # what an estimate and a noise floor stand for
OUTPUT_NEEDED = {"forgotten", "members", "others", "peers", "shown"}  # needs of metrics about an output for what is forgotten

ON_DEMAND = "audit"  # the tier that no request waits for
HOW = (
    "no request trains shadow models; `fedunlearn report FOLDER --tier audit` does, and measures the candidate, and "
    '--accept-untested "reason" commits it'
)

Limits = Mapping[str, Mapping[str, float]]


def check_limits(limits: Limits) -> None:
    """Refuse limits that can never be judged.

    Raises:
        InputError: an unknown metric, or no number to keep to; says the nearest right name.
    """
    for way, sides in limits.items():
        name, _, rest = way.partition(".")
        if name not in METRICS:
            raise unknown("metric", name, METRICS, where="gate.metrics")
        if not rest:
            raise InputError(f"gate.metrics: {way!r}: holds several numbers; say which, for example {name + '.after'!r}")
        if not sides:
            raise InputError(f"gate.metrics: {way}: no limit; give at_most, at_least, or both")
        for side, value in sides.items():
            if side not in SIDES:
                raise unknown("limit", side, SIDES, where=f"gate.metrics: {way}")
            if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
                raise InputError(f"gate.metrics: {way}: {side} is {value!r}, expected a number")


def tiers_of(limits: Limits) -> tuple[str, ...]:
    """The tiers that hold the metrics, and "quick"; cheap ones first."""
    asked = {"quick", *(METRICS[way.partition(".")[0]].tier for way in limits)}
    return tuple(t for t in TIERS if t in asked)


def judge_metrics(limits: Limits, target: str, evaluation: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Objections of one edited model.

    Args:
        limits: by the way to each number.
        target: of the heir; where it is "not_expressible", what can only be said of outputs that it does not have is not due.
        evaluation: what was found, by tier.

    Returns:
        What was found wrong, and what was due but not tested.
    """
    wrong, untested = [], []
    for way, sides in limits.items():
        name, _, rest = way.partition(".")
        value = number_at(evaluation, way)
        if isinstance(value, str):
            if target != "not_expressible" or not _about_outputs(name, rest):
                how = f"; {HOW}" if METRICS[name].tier == ON_DEMAND else ""
                untested.append(f"not tested: {way}: {value}{how}")
            continue
        for side, limit in sides.items():
            if value > limit if side == "at_most" else value < limit:
                wrong.append(f"{way} is {value:.4g} ({SIDES[side]} {limit:.4g})")
    return wrong, untested


def number_at(evaluation: Mapping[str, Mapping[str, Any]], way: str) -> float | str:
    """One number out of what was found of a model, or why there is none.

    Args:
        evaluation: what was found, by tier.
        way: to the number.
    """
    name, _, rest = way.partition(".")
    found = evaluation.get(METRICS[name].tier)
    if found is None:
        return "it was not evaluated; its home did not answer"
    if name in found["metrics"]:
        return _number(found["metrics"][name], rest)
    return str(found["not_measurable"].get(name, "nothing was found"))


def _about_outputs(name: str, rest: str) -> bool:
    return not OUTPUT_NEEDED.isdisjoint(METRICS[name].needs) or any(k.startswith("forgotten") for k in rest.split("."))


def _number(found: Any, way: str) -> float | str:
    """The number at the end of a way, or why there is none. Keys may have dots of their own: names of layers and classes."""
    while way:
        if not isinstance(found, Mapping):
            return f"there is nothing below {found!r}"
        keys = [k for k in found if way == k or way.startswith(f"{k}.")]
        if not keys:
            close = difflib.get_close_matches(way.split(".")[0], found, n=1, cutoff=0.5)
            hint = f" did you mean {close[0]!r}?" if close else ""
            return f"found no {way.split('.')[0]!r};{hint} there is {', '.join(found) or 'nothing'}"
        key = max(keys, key=len)
        found, way = found[key], way[len(key) + 1 :]
    if isinstance(found, Mapping):
        found = next((found[k] for k in NUMBERS if k in found), f"holds several numbers: {', '.join(found)}")
    if isinstance(found, str):
        return found
    return float(found) if isinstance(found, int | float) else "is no number"
