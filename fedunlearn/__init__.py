"""Unlearning for families of models: find every heir of some data, measure where it lies, edit all at once, test, record.

The public names are imported when they are first used, so that reasoning over a lineage never loads torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that editors and type checkers know them, too
    from fedunlearn.errors import FedUnlearnError as FedUnlearnError
    from fedunlearn.evaluation import Gate as Gate, Scores as Scores
    from fedunlearn.importance import Importance as Importance
    from fedunlearn.lineage import (
        Lineage as Lineage,
        Model as Model,
        Plan as Plan,
        Request as Request,
        Shard as Shard,
        discover as discover,
    )
    from fedunlearn.methods import METHODS as METHODS, Case as Case, Method as Method
    from fedunlearn.runtime import (
        Backend as Backend,
        Family as Family,
        InProcess as InProcess,
        Record as Record,
        Worker as Worker,
        rollback as rollback,
        unlearn as unlearn,
    )

_ROOMS = {
    "errors": ("FedUnlearnError",),
    "lineage": ("Lineage", "Model", "Plan", "Request", "Shard", "discover"),
    "importance": ("Importance",),
    "methods": ("METHODS", "Case", "Method"),
    "evaluation": ("Gate", "Scores"),
    "runtime": ("Backend", "Family", "InProcess", "Record", "Worker", "rollback", "unlearn"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fedunlearn' has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(f"fedunlearn.{_HOME[name]}"), name)
