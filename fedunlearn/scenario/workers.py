"""The workers that answer for the places of a scenario in this process, and where they compute."""

from collections.abc import Sequence

import torch

from fedunlearn.runtime import Family, Worker
from fedunlearn.scenario.build import open_site_data
from fedunlearn.scenario.nets import net_maker
from fedunlearn.scenario.schema import Scenario, matching
from fedunlearn.scenario.sources import Sending


def workers(scenario: Scenario, family: Family, departing: Sequence[str] = ()) -> dict[str, Worker]:
    """A worker for every place, in this process.

    Args:
        scenario: the family's scenario.
        family: where its homes are.
        departing: places that are about to be given up; like those that have departed, they have no rows any more.
    """
    data = open_site_data(scenario, family.folder, {*family.departed, *departing})
    make = net_maker(scenario, data)
    device = best_device()
    return {
        p: Worker(
            p, family.store(p), data[p], make, device,
            guard=(matching(scenario.evidence, p) or Sending()).guard,
        )
        for p in scenario.places
    }  # fmt: skip


def best_device() -> str:
    """The GPU where there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"
