"""Nested results of `evaluate` as rows, one number each, and what was not measured, each with its reason."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedunlearn.evaluation.tiers import TIERS, costs

CURVE = "curve"  # kept for drawing; not a number
Evaluation = Mapping[str, Mapping[str, Any]]  # tier -> result


def measurements(model: str, evaluation: Evaluation) -> list[dict[str, Any]]:
    """Every number of one model.

    Args:
        model: its name.
        evaluation: tier -> result of `fedunlearn.evaluation.evaluate`.

    Returns:
        Rows with `model`, `tier`, `metric`, `net` (which of the heir's nets, or empty), `of` (what it is of: rows, layer,
        class), `value`, `low`, `high` (95 % interval; for a noise floor the smallest and largest pair), `n`, and `words` where
        the metric gave words and no number.
    """
    return [
        {"model": model, "tier": tier, "metric": metric, **row}
        for tier, result in evaluation.items()
        for metric, found in result["metrics"].items()
        for row in _leaves(found, result["nets"], ())
    ]


def _leaves(found: Any, nets: Sequence[str], path: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    if isinstance(found, Mapping) and not {"value", "low", "high"} <= found.keys() and "pairs" not in found:
        for key, inner in found.items():
            if key != CURVE:
                yield from _leaves(inner, nets, (*path, str(key)))
        return
    net = next((part for part in path if part in nets), "")
    at = {"net": net, "of": " ".join(part.replace("_", " ") for part in path if part != net)}
    if isinstance(found, Mapping) and "pairs" in found:
        yield {
            **at,
            "value": found["mean"],
            "low": found["smallest"],
            "high": found["largest"],
            "n": found["pairs"],
            "words": "",
        }
    elif isinstance(found, Mapping):
        yield {**at, **{k: found[k] for k in ("value", "low", "high", "n")}, "words": ""}
    elif isinstance(found, int | float) and not isinstance(found, bool):
        yield {**at, "value": found, "low": None, "high": None, "n": None, "words": ""}
    else:
        words = "not measured" if found is None else ", ".join(map(str, found)) if isinstance(found, list) else str(found)
        yield {**at, "value": None, "low": None, "high": None, "n": None, "words": words}


def unmeasured(
    rows: Sequence[Mapping[str, Any]], evaluations: Mapping[str, Evaluation], stale: Mapping[tuple[str, str], str]
) -> list[dict[str, Any]]:
    """What is not known of the heirs, and why; never left out, never zero.

    Args:
        rows: the record's models.
        evaluations: of each model, those of the version that the record names.
        stale: why a tier of a model that was run is not used.

    Returns:
        `what` (names of scores and metrics), `why`, and `models`; each pair of a model and a metric of any tier is either here
        or has a result.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        name = row["name"]
        reasons = {
            tier: stale.get((name, tier), f"the {tier} tier was not run (fedunlearn report … --tier {tier})") for tier in TIERS
        }
        for what, why in (*_scores(row), *_metrics(evaluations.get(name, {}), reasons)):
            found.setdefault(why, {}).setdefault(what, []).append(name)
    return [
        {"what": [w for w, of in by_what.items() if of == models], "why": why, "models": models}
        for why, by_what in found.items()
        for models in _distinct(by_what.values())
    ]


def _scores(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Scores of the record that are None, with the reason as far as the record has one."""
    away = f"its home {row['home']} was not asked or was offline"
    if row["status"] == "waiting":
        yield "accuracy before and after", away
        return
    if row["forgotten_after"] is None:
        no_output = "it has no output for what is forgotten, so that its answers show nothing"
        no_row = f"no row of what is forgotten can be scored at its home {row['home']}"
        yield "accuracy on what is forgotten", no_output if row["target"] == "not_expressible" else no_row
    if row["retained_after"] is None:
        yield "accuracy on the rest", f"its home {row['home']} has no held-out row of the rest"
    if row["status"] == "untouched":
        yield "an edited version", "it was not edited; see the objections"
    if row["retrained_retained"] is None and row["retrained_forgotten"] is None:
        yield "the retrained model's accuracy", "no model was retrained without the data to compare with"
    if row["mask_retained"] is None:
        yield "the logit mask's accuracy", "the record has none for it"


def _metrics(evaluation: Evaluation, reasons: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for tier in TIERS:
        result = evaluation.get(tier)
        for metric in costs(tier):
            if result is None:
                yield metric, reasons[tier]
            elif metric in result["not_measurable"]:
                yield metric, result["not_measurable"][metric]
            elif metric not in result["metrics"]:
                yield metric, f"the {tier} tier was run before this metric existed"


def _distinct(lists: Any) -> list[list[str]]:
    found: list[list[str]] = []
    for one in lists:
        if one not in found:
            found.append(one)
    return found
