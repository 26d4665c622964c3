"""The family of `hospitals` after it forgot a class, the retrained one beside it, and what is left to train on."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import pytest

from fedunlearn.lineage import Request, discover
from fedunlearn.runtime import Answerer, Family, InProcess, Record, Reference, unlearn
from fedunlearn.runtime.place.consent import Consent
from fedunlearn.runtime.place.mirror import Excluded
from fedunlearn.runtime.tasks import Answer, Task
from fedunlearn.scenario import Scenario, open_site_data, reference, workers
from tests.conftest import LEAVE

BackendOf = Callable[[Family], InProcess]


def retrained(family: Family, scenario: Scenario, request: Request) -> Reference:
    twin = reference(family, scenario, request)
    return Reference.of(twin, discover(family.lineage, request), InProcess(workers(scenario, twin)))


def by_name(record: Record) -> dict[str, dict[str, object]]:
    return {m["name"]: m for m in record.facts["models"]}


@pytest.fixture
def done(family: Family, hospitals: Scenario, backend_of: BackendOf) -> Record:
    return unlearn(family, LEAVE, "fiun", backend_of(family), retrained=retrained(family, hospitals, LEAVE))


def site_training(scenario: Scenario, family: Family, site: str) -> set[str]:
    return set(open_site_data(scenario, family.folder)[site].training("main").labels)


@dataclass(frozen=True)
class Asking:
    """Answers for a place when its owner has allowed it, as a site of `policy: ask` does."""

    inside: Answerer
    consent: Consent

    @property
    def place(self) -> str:
        return self.inside.place

    @property
    def methods(self) -> Collection[str]:
        return self.inside.methods

    def handle(self, task: Task) -> Answer:
        excluded = Excluded.at(self.inside.store, task.family)  # type: ignore[attr-defined]
        self.consent.check(task, excluded, lambda wish: f"allow {wish}")
        return self.inside.handle(task)
