"""What a tier adds to a comparison: a few numbers of every edited model; where there is none, why."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedunlearn.errors import FedUnlearnError, unknown
from fedunlearn.evaluation.limits import number_at
from fedunlearn.evaluation.tiers import METRICS
from fedunlearn.runtime import Backend, Family
from fedunlearn.scenario import assess, assessed

COMPARED = ("quick", "full")  # an audit of every method, seed and model would take days

Plain = dict[str, Any]


@dataclass(frozen=True)
class Deeper:
    """One number of an edited model.

    Args:
        key: its column in the rows.
        header: its column in the table.
        way: to the number in what an evaluation finds (see `evaluation.limits`).
        worst: picks the worst of several.
        percent: whether it is a fraction, to be shown in percent.
    """

    key: str
    header: str
    way: str
    worst: Callable[[Iterable[float]], float]
    percent: bool

    @property
    def tier(self) -> str:
        """Where it belongs."""
        return METRICS[self.way.partition(".")[0]].tier


DEEPER = (
    Deeper("tow", "ToW", "tow.after", min, False),
    Deeper("probe_above_retrained", "probe above retrained", "probe.after.above_retrained", max, True),
    Deeper("relearned", "relearned", "relearn_retained.after.best", max, True),
    Deeper("relearned_retrained", "retrained: relearned", "relearn_retained.retrained.best", max, True),
    Deeper("membership_auc", "membership AUC", "population_membership.after.loss.auc", max, False),
    Deeper("membership_auc_retrained", "retrained: membership AUC", "population_membership.retrained.loss.auc", max, False),
)
NOTHING: Plain = {**dict.fromkeys(d.key for d in DEEPER), "not_measured": ""}  # of a row without a tier


def check_tier(tier: str) -> None:
    """Refuse a tier that is not compared.

    Raises:
        InputError: says the nearest right name.
    """
    if tier and tier not in COMPARED:
        raise unknown("tier", tier, COMPARED, where="--tier")


def deeper(family: Family, tier: str, backend: Backend, reference: bool, models: Sequence[str]) -> dict[str, Plain]:
    """Columns of every heir, as the last ledger line left it, beside the retrained family.

    Args:
        family: with an unlearning as its last ledger line.
        tier: of `COMPARED`.
        backend: carries tasks to the homes.
        reference: whether there is a retrained family to compare with.
        models: the heirs.
    """
    line, missing = family.ledger.lines[-1], "it was not edited"
    try:
        found = assess(family, line, tier, backend, retrained=reference)
    except FedUnlearnError as error:
        found, missing = assessed(family, line), str(error)  # what other homes found is kept
    return {name: _columns(found.get(name), tier, missing) for name in models}


def words_of(rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """What could not be measured of the rows' models: how many of them, and what, the most frequent first."""
    said = Counter(str(r["not_measured"]) for r in _models(rows) if r.get("not_measured"))
    return [[n, text] for text, n in said.most_common()]


def means_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Plain | None]:
    """Of every number: the mean over models, requests and seeds, the worst model (its own mean), and of how many it is."""
    found: dict[str, Plain | None] = {}
    for d in DEEPER:
        values: dict[str, list[float]] = {}
        for r in _models(rows):
            if r.get(d.key) is not None:
                values.setdefault(str(r["heir"]), []).append(r[d.key])
        means = {heir: sum(of) / len(of) for heir, of in values.items()}
        each = [v for of in values.values() for v in of]
        worst = d.worst(means.values()) if means else None
        named = next((h for h, v in means.items() if v == worst), "")
        found[d.key] = {"value": sum(each) / len(each), "n": len(each), "name": named, "worst": worst} if each else None
    return found


def _models(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One row for each model, request and seed: of several classes all have the same numbers."""
    return list({(r["seed"], r["request"], r["heir"]): r for r in rows}.values())


def _columns(of: Mapping[str, Mapping[str, Any]] | None, tier: str, missing: str) -> Plain:
    due = [d for d in DEEPER if COMPARED.index(d.tier) <= COMPARED.index(tier)]
    found = {d.key: missing if of is None else number_at(of, d.way) for d in due}
    why: dict[str, list[str]] = {}
    for key, value in found.items():
        if isinstance(value, str):
            why.setdefault(value, []).append(key)
    words = "; ".join(f"{', '.join(keys)}: {text}" for text, keys in why.items())
    return {**NOTHING, **{k: v for k, v in found.items() if not isinstance(v, str)}, "not_measured": words}
