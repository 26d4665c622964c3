"""What heirs are compared with: the same family, retrained without the data."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from fedunlearn.lineage import Plan, Request
from fedunlearn.runtime.backend import Backend
from fedunlearn.runtime.books.family import Family
from fedunlearn.runtime.roll import Roll
from fedunlearn.runtime.rounds import fetch
from fedunlearn.runtime.scoring import everywhere, score_all
from fedunlearn.runtime.tasks import Fetched, Scored


@dataclass(frozen=True)
class Reference:
    """Heirs as they are in a retrained family.

    Args:
        scored: their scores.
        sent: the weights of those whose home in the family does not hold them.
        key: name of the folder of the retrained family; empty where it has none beside the family.
        further: requests whose data it lacks besides, as they were carried out before it was trained, but after what it is
            compared with.
        lacks: `site/shard` -> rows that it lacks besides, though the family was trained on some: requests on other families
            have excluded them there since.
    """

    scored: Mapping[str, Scored] = field(default_factory=dict)
    sent: Mapping[str, Fetched] = field(default_factory=dict)
    key: str = ""
    further: tuple[Request, ...] = ()
    lacks: Mapping[str, int] = field(default_factory=dict)

    @property
    def lacking(self) -> tuple[str, ...]:
        """What it lacks besides, in words."""
        others = [f"{n} rows of {shard}, which requests on other families exclude there" for shard, n in self.lacks.items()]
        return (*(f"{r.words()} ({r.id})" for r in self.further), *others)

    @property
    def gone(self) -> tuple[str, ...]:
        """Classes that it never saw for those: no part of "the rest" where it is compared with."""
        return tuple(sorted({c for r in self.further if everywhere(r) for c in r.classes}))

    @classmethod
    def of(
        cls,
        twin: Family,
        plan: Plan,
        backend: Backend,
        gone: Sequence[str] | None = None,
        holding: Collection[str] = (),
        further: tuple[Request, ...] = (),
        lacks: Mapping[str, int] = MappingProxyType({}),
    ) -> "Reference":
        """Score a retrained family, and fetch what has to travel.

        Args:
            twin: the retrained family.
            plan: of the family: which heirs, and what scores are about.
            backend: carries tasks to the places of the retrained family.
            gone: classes forgotten before; by default those that the twin's own ledger says.
            holding: places with one store for both families.
            further: as above.
            lacks: as above.

        Raises:
            SiteError: a home failed.
        """
        heirs = tuple(h for h in plan.heirs if h.name in twin.heads)  # what only the forgotten rows trained is not there
        scored = score_all(twin, replace(plan, heirs=heirs), backend, gone)
        travel = {(h.name, scored[h.name].version) for h in heirs if h.home not in holding}
        found = fetch(twin, travel, backend, Roll({h.home for h in heirs}))
        return cls(scored, {name: weights for (name, _), weights in found.items()}, twin.folder.name, further, lacks)
