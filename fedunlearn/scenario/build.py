"""From a scenario to what each place holds, and to the workers that answer for them."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import nn

from fedunlearn.data import MIRROR, Exclusions, Rows, Selection, SiteData, held_out, open_rows, open_site, shard
from fedunlearn.errors import InputError
from fedunlearn.lineage import Request
from fedunlearn.nets import build
from fedunlearn.runtime import Family, Worker
from fedunlearn.scenario.schema import Scenario

SHARD = "main"  # the one shard that a scenario gives to each site


def open_site_data(scenario: Scenario, homes: Path) -> dict[str, SiteData]:
    """What every place of a scenario holds. Sets are dealt; a factory's rows are the sites' own.

    Args:
        scenario: the scenario.
        homes: folder of the places, for their exclusions.

    Raises:
        InputError: data cannot be opened, or a site's rows do not fit the others.
    """
    spec = scenario.data
    shards: dict[str, Rows] = {}
    held: dict[str, dict[str, Rows]] = {}
    if spec.set is not None:
        train, calibration, test = held_out(open_rows(_beside(scenario, spec.set)), spec.calibration, spec.held_out, spec.seed)
        shards = shard(
            train, scenario.sites, spec.shards, seed=spec.seed, without=spec.without, concentration=spec.concentration
        )
        held = {place: {"calibration": calibration, "test": test} for place in scenario.places}
    else:
        for site in scenario.sites:
            rows = open_site(spec.factory or "", site).without(spec.without.get(site, ()))
            shards[site], calibration, test = held_out(rows, spec.calibration, spec.held_out, spec.seed)
            held[site] = {"calibration": calibration, "test": test}
    if spec.test is not None:
        shared = open_site(spec.test, "test") if ":" in spec.test else open_rows(_beside(scenario, spec.test))
        _, calibration, test = held_out(shared, 0.4, 0.6, spec.seed)
        held = {place: {"calibration": calibration, "test": test} for place in scenario.places}
    _agree(shards)
    return {
        place: SiteData(
            place,
            {SHARD: shards[place]} if place in shards else {},
            held.get(place, {}),
            partial(Exclusions.read, homes / place / MIRROR),
        )
        for place in scenario.places
    }


def net_maker(scenario: Scenario, data: Mapping[str, SiteData]) -> Callable[[int, int], nn.Module]:
    """Makes a net of the scenario's architecture for so many outputs, from a seed; tried once on real rows.

    Raises:
        InputError: the net cannot be made, or does not turn rows into outputs.
    """
    sample = next(d.shards[SHARD] for d in data.values() if d.shards)
    shape, classes = tuple(sample.x.shape[1:]), len(sample.classes)
    net = build(scenario.net, shape, classes).eval()
    try:
        with torch.no_grad():
            out = net(sample.x[:2])
    except Exception as error:  # whatever the user's net raises is theirs to read
        raise InputError(
            f"net {dict(scenario.net)}: raised {type(error).__name__} on rows of shape {shape}: {error}"
        ) from error
    if not isinstance(out, torch.Tensor) or out.shape != (len(sample.x[:2]), classes):
        got = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        raise InputError(
            f"net {dict(scenario.net)}: gave {got} for {len(sample.x[:2])} rows, expected one output a class ({classes})"
        )
    return lambda outputs, seed: build(scenario.net, shape, outputs, seed)


def check_samples(data: Mapping[str, SiteData], request: Request) -> None:
    """Refuse samples that their sites do not hold.

    Raises:
        InputError: says the nearest sample.
    """
    for shard_, keys in request.shards.items():
        site, name = shard_.split("/", 1)
        data[site].selected(name, Selection(samples=tuple(f"{name}/{k}" for k in keys)))


def _beside(scenario: Scenario, name: str) -> str:
    """A path as the topology's author meant it: relative to the file."""
    beside = Path(scenario.folder) / name
    return str(beside) if scenario.folder and name.endswith(".npz") and beside.exists() else name


def workers(scenario: Scenario, family: Family) -> dict[str, Worker]:
    """A worker for every place, in this process.

    Args:
        scenario: the family's scenario.
        family: where its homes are.
    """
    data = open_site_data(scenario, family.folder / "homes")
    make = net_maker(scenario, data)
    device = device_of()
    return {p: Worker(p, family.store(p), data[p], lambda n: make(n, 0), device) for p in scenario.places}


def device_of() -> str:
    """The GPU where there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _agree(shards: Mapping[str, Rows]) -> None:
    first = next(iter(shards))
    for site, rows in shards.items():
        if rows.classes != shards[first].classes:
            raise InputError(
                f"data: {site} names classes {rows.classes}, {first} names {shards[first].classes}; all sites "
                f"must name the same classes in the same order"
            )
        if rows.x.shape[1:] != shards[first].x.shape[1:]:
            raise InputError(
                f"data: inputs of {site} have shape {tuple(rows.x.shape[1:])}, those of {first} "
                f"{tuple(shards[first].x.shape[1:])}"
            )
