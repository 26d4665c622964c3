"""What departed is measured by nobody, and whoever inherited from it is reached all the same."""

from hypothesis import given, strategies as st

from fedunlearn.lineage import Lineage, Request, discover
from tests.lineage.families import SITES, lineages
from tests.lineage.test_discover import asked, requests, touched


@given(lineages(), requests(), st.sets(st.sampled_from(SITES)))
def test_what_departed_is_measured_by_nobody_and_reached_all_the_same(
    lineage: Lineage, request: Request, departed: set[str]
) -> None:
    if asked(lineage, request) is None:
        return
    after = lineage.without(departed)
    whole, plan = discover(lineage, request), discover(after, request)
    assert (plan.roots, plan.affected, dict(plan.sources)) == (whole.roots, whole.affected, dict(whole.sources))
    assert [h.name for h in plan.heirs] == [h.name for h in whole.heirs if h.home not in departed]
    aims = {h.name: (h.target, h.classes, h.absent) for h in whole.heirs}
    for heir in plan.heirs:
        assert (heir.target, heir.classes, heir.absent) == aims[heir.name]
        assert departed.isdisjoint([p.site for p in heir.points] + [s.site for s in heir.own])
        assert all(after[p.model].kept for p in heir.points)
        measured = {p.shard for p in heir.points}
        for root in heir.sources:
            present = {s for s in touched(lineage, root, request) if s.split("/")[0] not in departed}
            assert root in heir.unmeasured or (present and present <= measured)


@given(lineages(), requests())
def test_whoever_departed_without_data_or_models_changes_no_plan(lineage: Lineage, request: Request) -> None:
    if asked(lineage, request) is not None:
        assert discover(lineage.without({"elsewhere"}), request) == discover(lineage, request)
