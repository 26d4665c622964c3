"""What is measured when: cheap metrics at every request, costly ones when asked for. Every cost is declared.

quick   forward passes only        part of every `unlearn`
full    probes, relearning, population attacks
audit   shadow models

A metric that cannot be taken is listed with the reason, never left out and never zero.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedunlearn.errors import InputError, unknown
from fedunlearn.evaluation import audit, full, quick
from fedunlearn.evaluation.material import SPLITS, Material
from fedunlearn.evaluation.trial import Effort, Nets, Trial


@dataclass(frozen=True)
class Metric:
    """One entry of the menu.

    Args:
        tier: where it belongs.
        cost: what it takes, in words, for each net unless it says otherwise.
        needs: names in `NEEDS`, without which it cannot be taken.
        take: gives plain data.
    """

    tier: str
    cost: str
    needs: tuple[str, ...]
    take: Callable[[Trial], dict[str, Any]]


TIERS = ("quick", "full", "audit")

PASSES = "one forward pass over at most `most` rows of each set"
EDITS = "all shadow models: edited once, two forward passes"
AGAINST = ("shadows", "unlearn", "innocents", "members", "peers")
METRICS: dict[str, Metric] = {
    "accuracy": Metric("quick", PASSES, ("compared",), quick.accuracies),
    "accuracy_by_class": Metric("quick", "shares the pass", ("held_out",), quick.accuracies_by_class),
    "worst_class": Metric("quick", "shares the pass", ("staying",), quick.worst_class),
    "average_gap": Metric("quick", "shares the pass", ("retrained", "compared"), quick.gaps),
    "tow": Metric("quick", "shares the pass", ("retrained", "compared"), quick.tug_of_war),
    "kl_to_retrained": Metric("quick", "shares the pass", ("retrained", "compared"), quick.divergence),
    "jsd_to_retrained": Metric("quick", "shares the pass", ("retrained", "compared"), quick.symmetric_divergence),
    "completeness": Metric("quick", "shares the pass", ("retrained", "compared"), quick.agreement),
    "probe": Metric("full", "31 fits of a linear classifier on calibration features", ("probed",), full.probe),
    "prototypes": Metric("full", "one forward pass over held-out rows", ("probed",), full.class_means),
    "cka": Metric("full", "two forward passes over at most `few` rows", ("inputs",), full.alignment),
    "fisher_residual": Metric("full", "a backward pass a row, held-out rows of the classes", ("forgotten",), full.fisher),
    "relearn_retained": Metric(
        "full", "`steps` training steps, a look at each", ("forgotten", "retained"), full.relearn_retained
    ),
    "relearn_shots": Metric("full", "at most `steps` training steps", ("forgotten", "shown"), full.relearn_shots),
    "population_membership": Metric("full", PASSES, ("members", "others"), full.population_membership),
    "backdoor": Metric("full", "two forward passes over test rows", ("trigger", "held_out"), full.backdoor),
    "ulira": Metric("audit", EDITS, ("shadows", "members", "peers"), audit.per_example),
    "ulira_from_retrained": Metric(
        "audit", "shares the edits; a forward pass of all innocents", (*AGAINST, "retrained"), audit.from_retrained
    ),
    "klom": Metric("audit", "shares the edits; a forward pass of all innocents", AGAINST, audit.margins_from_retrained),
}


def _rows(trial: Trial, part: str, what: str) -> str | None:
    n = len(trial.parts[part])
    return None if n > 1 else f"{'one' if n else 'no'} {what} here, expected two or more"


def _forgotten(trial: Trial) -> str | None:
    classes, head = trial.material.classes, trial.nets.head.classes
    if classes and not set(classes) & set(head):
        return f"the model has no output for class {', '.join(classes)}"
    return _rows(trial, "forgotten", f"{'held-out test' if classes else 'training'} row of what is forgotten")


def _probed(trial: Trial) -> str | None:
    classes, (calibration, test) = trial.material.classes, trial.material.probed
    if not classes:
        return "the request names no class, so that no held-out row is of what is forgotten"
    missing = [
        f"{split} rows of class {c}"
        for split, rows in zip(SPLITS, (calibration, test), strict=True)
        for c in classes
        if not len(rows.of([c]))
    ]
    return f"no {', '.join(missing)} are here" if missing else None


def _shown(trial: Trial) -> str | None:
    some = len(trial.material.forgotten) or len(trial.material.calibration.of(trial.material.classes))
    return None if some else "no row of what is forgotten is here to learn on"


NEEDS: dict[str, Callable[[Trial], str | None]] = {  # None, or why it is not there
    "retrained": lambda t: None if t.nets.retrained else full.NO_REFERENCE,
    "forgotten": _forgotten,
    "inputs": lambda t: _rows(t, "forgotten_inputs", "row of what is forgotten"),
    "probed": _probed,
    "shown": _shown,
    "compared": lambda t: None if any(len(t.parts[p]) for p in quick.COMPARED) else "no rows are here",
    "held_out": lambda t: None if len(t.material.test) else "no held-out test rows are here",
    "staying": lambda t: None if len(t.parts["test"]) else "no held-out test rows of what stays are here",
    "retained": lambda t: _rows(t, "retained", "training row that stays"),
    "members": lambda t: _rows(t, "forgotten_training", "training row of what is forgotten"),
    "others": lambda t: _rows(t, "others", "held-out row of a class that forgotten rows have"),
    "peers": lambda t: _rows(t, "peers", "held-out row of a class that forgotten rows have"),
    "trigger": lambda t: None if t.material.trigger else "nothing that is known of was planted",
    "innocents": lambda t: None if t.effort.innocents is not None else "no pool of models that never saw it was given",
    "unlearn": lambda t: None if t.effort.unlearn is not None else t.effort.why,
    "shadows": lambda t: None if t.effort.shadows is not None else "no pool of shadow models was given",
}


def costs(tier: str) -> dict[str, str]:
    """What each metric of a tier takes, in words.

    Raises:
        InputError: there is no such tier.
    """
    if tier not in TIERS:
        raise unknown("tier", tier, TIERS)
    return {name: m.cost for name, m in METRICS.items() if m.tier == tier}


def evaluate(
    tier: str, nets: Nets, material: Material, effort: Effort | None = None, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Take the metrics of one tier for one heir; lower tiers are not taken again.

    Args:
        tier: "quick", "full" or "audit".
        nets: the heir before, after, retrained, masked.
        material: rows to judge it on.
        effort: shots, steps, seeds, shadow models.
        progress: told, in words, what is being done.

    Returns:
        Plain data, ready for JSON: `tier`; `nets`, their names; `rows`, how many of each set; `metrics`, by name;
        `not_measurable`, by name: why (each metric of the tier is in exactly one of the two); and `seconds`, by name, which
        alone differ from run to run.

    Raises:
        InputError: there is no such tier, rows are not labelled by the nets' head, or a net is in training mode.
        ShapeError: a net's outputs are NaN or infinite.
    """
    declared, trial = costs(tier), Trial(nets, material, effort or Effort(), progress)
    metrics: dict[str, Any] = {}
    missing: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for number, (name, cost) in enumerate(declared.items(), 1):
        reasons = [why for need in METRICS[name].needs if (why := NEEDS[need](trial))]
        if reasons:
            missing[name] = "; ".join(reasons)
            continue
        progress(f"{tier} {number} of {len(declared)}: {name} ({cost})")
        started = time.perf_counter()
        try:
            metrics[name] = METRICS[name].take(trial)
        except InputError as error:  # too few rows of some class, features that are not there: said, not hidden
            missing[name] = str(error)
        seconds[name] = time.perf_counter() - started
    return {
        "tier": tier,
        "nets": list(nets.named),
        "rows": {part: len(rows) for part, rows in trial.parts.items()},
        "metrics": metrics,
        "not_measurable": missing,
        "seconds": seconds,
    }
