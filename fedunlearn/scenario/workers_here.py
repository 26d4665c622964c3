"""Places that live with the coordinator of a family whose sites are elsewhere: homes of global models, say."""

from collections.abc import Sequence
from functools import partial

from torch import nn

from fedunlearn.data import MIRROR, Exclusions, Rows, SiteData
from fedunlearn.data.rows import joined
from fedunlearn.errors import InputError, unknown
from fedunlearn.runtime import Family, Worker
from fedunlearn.scenario.build import among, shared_test
from fedunlearn.scenario.nets import maker
from fedunlearn.scenario.schema import Scenario
from fedunlearn.scenario.workers import best_device


def workers_here(scenario: Scenario, family: Family, places: Sequence[str] = ()) -> dict[str, Worker]:
    """Workers of places that hold no rows to train on: their stores are in the family's folder, they test on `data.test`.

    Args:
        scenario: the family's scenario, whose data says `sites: own`.
        family: the family, or one that is still to be trained.
        places: their names; by default every home that is no site.

    Raises:
        InputError: a place is unknown or is a site, or the test set cannot be opened.
    """
    homes = [p for p in scenario.places if p not in scenario.sites]
    for place in places:
        if place in scenario.sites:
            raise InputError(f"place {place!r} is a site; its own worker answers for it, where its rows are")
        if place not in homes:
            raise unknown("place", place, homes)
    held, device = _held_out(scenario), best_device()

    def make(outputs: int, net: str, seed: int = 0) -> nn.Module:
        return maker(scenario, _shape(family))(outputs, net, seed)

    found = {}
    for place in places or homes:
        store = family.store(place)
        found[place] = Worker(
            place, store, SiteData(place, {}, held, partial(Exclusions.read, store.folder / MIRROR)), make, device
        )
    return found


def _held_out(scenario: Scenario) -> dict[str, Rows]:
    """The test sets of all sets that have one, joined."""
    opened = {name: shared_test(spec, scenario.folder) for name, spec in scenario.sets.items() if spec.test is not None}
    classes = tuple(dict.fromkeys(c for splits in opened.values() for c in splits["test"].classes))
    several = len(scenario.sets) > 1
    return {
        split: joined([among(splits[split], classes, name if several else "") for name, splits in opened.items()])
        for split in ("calibration", "test")
        if opened
    }


def _shape(family: Family) -> tuple[int, ...]:
    """Shape of one input, as the sites told it when the family was trained."""
    shapes = [tuple(line.body["shape"]) for line in family.ledger.lines if "shape" in line.body]
    if not shapes:
        raise InputError(f"{family.folder}: is not trained yet, so nobody here knows the shape of its inputs; train it first")
    return shapes[-1]
