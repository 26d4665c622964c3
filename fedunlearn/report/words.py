"""What people read instead of names: metrics, and where a model was scored."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedunlearn.lineage import NOT_EXPRESSIBLE

TITLES = {
    "accuracy": "accuracy",
    "accuracy_by_class": "accuracy by class",
    "worst_class": "most that a class that stays has lost",
    "average_gap": "mean gap to the retrained model's accuracies",
    "tow": "tug of war (ToW; 1 is like retrained)",
    "kl_to_retrained": "divergence from the retrained model (KL, nats)",
    "jsd_to_retrained": "divergence from the retrained model (Jensen-Shannon, nats)",
    "completeness": "same answers as the retrained model",
    "probe": "linear probe",
    "prototypes": "nearest class means",
    "cka": "likeness of features (CKA)",
    "fisher_residual": "Fisher information that is left",
    "relearn_retained": "relearning on rows that all stay",
    "relearn_shots": "relearning on a few rows of each class",
    "population_membership": "population membership attacks",
    "backdoor": "planted trigger",
    "ulira": "membership attack by example (U-LiRA)",
    "ulira_from_retrained": "membership attack by example, against models that never saw the rows",
    "klom": "margins against models that never saw the rows (KLOM, nats)",
}


def title(metric: str) -> str:
    """What a metric is called; what is none is called as it is."""
    return TITLES.get(metric, metric)


def several(names: Sequence[str]) -> str:
    """Some names, and whether there are more."""
    return ", ".join(names[:5]) + " and others" * (len(names) > 5)


def scored_at(row: Mapping[str, Any]) -> str:
    """Where the rows lie that a model's scores are of; empty where it was not scored.

    Args:
        row: of the record.
    """
    at = row.get("scored_at")
    if at is None:
        return ""
    forgotten: Mapping[str, Sequence[str]] = at["forgotten"]
    if forgotten and {*forgotten, at["retained"]} == {row["home"]}:
        return f"at {row['home']}"
    several = len({c for classes in forgotten.values() for c in classes}) > 1
    places = [f"{p} (class {', '.join(classes)})" if several and classes else p for p, classes in forgotten.items()]
    found = (
        [f"forgotten: at {', '.join(places)}" if places else "forgotten: nowhere"] if row["target"] != NOT_EXPRESSIBLE else []
    )
    return "; ".join([*found, f"the rest: at {at['retained']}" if at["retained"] else "the rest: nowhere"])
