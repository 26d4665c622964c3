"""What was done and what it did: facts that are equal on every backend, and what it cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedunlearn.evaluation import Scores
from fedunlearn.lineage import Heir, Model
from fedunlearn.runtime.tasks import Applied, Scored

COMMITTED, PENDING, UNTOUCHED, WAITING = "committed", "pending", "untouched", "waiting"


@dataclass(frozen=True)
class Tested:
    """Test scores of one heir, wherever they were taken.

    Args:
        before: of the version that was edited.
        after: of the candidate.
        retrained: of the retrained model; None where there is none.
        at: "forgotten": place -> the classes scored there (none for samples); "retained": the place that scored the rest.
        refused: why what its home could not test was not tested elsewhere.
    """

    before: Scores
    after: Scores
    retrained: Scores | None
    at: Mapping[str, Any]
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """The outcome of one request.

    Args:
        facts: plain data, no times: "request", "plan", "method", "settings", "gate", "models" (a row each, see `row`),
            "objections" (each a "model" and a "text"), "accepted_untested", "absent", "guarded", and where there is any
            "codes" (of places that work with other code), "spent", "within", "noted", "unregistered", "reference".
        cost: "seconds", "measure_seconds", "evaluation_seconds", "rows_read", "rows_calibrated", "bytes_up" and, where
            messages were sent, "traffic" by place; differs from run to run.
    """

    facts: Mapping[str, Any]
    cost: Mapping[str, Any]

    @property
    def accepted(self) -> bool:
        """Whether no heir was held back or left unresolved."""
        return not self.facts["objections"]

    @property
    def nothing(self) -> bool:
        """Whether there was nothing to forget."""
        return not self.facts["models"]

    def to_json(self) -> dict[str, Any]:
        """The object that `unlearn --json` prints."""
        models = [{k: v for k, v in m.items() if k not in ("curve",)} for m in self.facts["models"]]
        return {
            "accepted": self.accepted,
            "seconds": self.cost["seconds"],
            "objections": self.facts["objections"],
            "models": models,
            "request": self.facts["request"],
            "method": self.facts["method"],
            "settings": self.facts["settings"],
            "accepted_untested": self.facts["accepted_untested"],
            "guarded": self.facts.get("guarded", {}),
            "codes": self.facts.get("codes", {}),
            "cost": dict(self.cost),
        }


def row(
    heir: Heir,
    model: Model,
    scored: Scored | None,
    applied: Applied | None,
    retrained: Scores | None,
    missing: tuple[str, ...],
    unmeasured: tuple[str, ...],
    status: str,
    held_out: bool,
    evaluated: Mapping[str, Mapping[str, Any]],
    tested: Tested | None = None,
    untested: Sequence[str] = (),
    unresolved: Sequence[str] = (),
    compared: str | None = None,
) -> dict[str, Any]:
    """One heir, as the record keeps it. Scores are fractions of rows, None where not tested, or where the home is offline.

    `forgotten_on` says which rows are the forgotten ones: "test" rows for classes; for samples and whole sites the forgotten
    rows themselves, which are "training" rows and mean something only beside the retrained model's value. `evaluation` is what
    was found of the candidate, by tier, without seconds and curves; empty where nobody could be asked. `scored_at` says where:
    by place, the forgotten classes scored there, and the place of the rest; None where there is no candidate. `untested` says
    what was due and could not be tested, whether or not somebody accepted that; `unresolved`, where its score tells nothing.
    `version_retrained` names what it was compared with.
    """
    before = tested.before if tested else scored.test if scored else Scores(None, None, 0, 0)
    after = tested.after if tested else before
    version = scored.version if scored else None
    return {
        "name": heir.name,
        "home": heir.home,
        "born": model.born,
        "target": heir.target,
        "forgotten_before": before.forgotten,
        "forgotten_after": after.forgotten,
        "retained_before": before.retained,
        "retained_after": after.retained,
        "mask_retained": applied.mask.retained if applied and applied.mask else None,
        "retrained_forgotten": retrained.forgotten if retrained else None,
        "retrained_retained": retrained.retained if retrained else None,
        "forgotten_on": "test" if held_out else "training",
        "forgotten_by_class": dict(after.by_class),
        "rows_forgotten": after.rows_forgotten,
        "rows_retained": after.rows_retained,
        "scored_at": dict(tested.at) if tested else None,
        "holds_class": heir.holds_class,
        "sources": list(heir.sources),
        "points": [f"{p.model} @ {p.shard}" for p in heir.points],
        "version_before": version,
        "version_after": applied.version if applied else version,
        "version_retrained": compared,
        "strength": dict(applied.strength) if applied and applied.strength is not None else None,
        "rule": applied.rule if applied else None,
        "curve": [[dict(s), *rest] for s, *rest in applied.curve] if applied else [],
        "passes": applied.passes if applied else 0,
        "untested": list(untested),
        "unresolved": list(unresolved),
        "not_shared": list(missing),
        "unmeasured": list(unmeasured),
        "evaluation": {tier: _without(of, ("seconds", "curve")) for tier, of in evaluated.items()},
        "status": status,
    }


def _without(found: Any, keys: tuple[str, ...]) -> Any:
    """Plain data without some entries, however deep."""
    if not isinstance(found, Mapping):
        return found
    return {k: _without(v, keys) for k, v in found.items() if k not in keys}
