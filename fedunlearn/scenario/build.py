"""From a scenario to what each place holds."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedunlearn.data import (
    MIRROR,
    Exclusions,
    Rows,
    Selection,
    SiteData,
    held_out,
    open_rows,
    open_site,
    shard,
)
from fedunlearn.data.rows import joined, twins
from fedunlearn.errors import InputError, check_names, unknown
from fedunlearn.lineage import Request
from fedunlearn.nets import build
from fedunlearn.scenario.schema import Data, Scenario, matching
from fedunlearn.scenario.sources import Opening

MAIN = "main"  # the set under `data`; a site's rows of a set are the shard of that name

MakeNet = Callable[[int, str, int], nn.Module]  # for so many outputs, of the architecture of that name, from a seed
Seen = tuple[tuple[str, ...], tuple[int, ...]]  # what rows are like: the classes that they name, the shape of an input


@dataclass(frozen=True)
class Opened:
    """A scenario's data.

    Args:
        places: what every place holds.
        classes: what every set names, in its own order.
    """

    places: dict[str, SiteData]
    classes: dict[str, tuple[str, ...]]


def open_site_data(scenario: Scenario, homes: Path) -> dict[str, SiteData]:
    """What every place of a scenario holds (see `open_data`)."""
    return open_data(scenario, homes).places


def open_data(scenario: Scenario, homes: Path) -> Opened:
    """Open every set. Sets are dealt to the sites; a factory's rows are the sites' own.

    Classes of all sets share one list, so that a head can be tested wherever held-out rows of its classes are.

    Args:
        scenario: the scenario.
        homes: folder of the places, for their exclusions.

    Raises:
        InputError: data cannot be opened, a site's rows do not fit the others, two sets name the same class, or the rows are
            the sites' own.
    """
    refuse_own(scenario)
    opened = {name: _open_set(scenario, name) for name in scenario.sets if scenario.sites_of(name) or name == MAIN}
    shards: dict[str, dict[str, Rows]] = {}
    held: dict[str, dict[str, list[Rows]]] = {}
    classes = union({name: _seen(rows) for name, (dealt, _) in opened.items() for rows in list(dealt.values())[:1]})
    for name, (dealt, kept) in opened.items():
        for site, rows in dealt.items():
            shards.setdefault(site, {})[name] = rows.for_head(classes)
        for place, splits in kept.items():
            for split, rows in splits.items():
                held.setdefault(place, {}).setdefault(split, []).append(among(rows, classes, name if len(opened) > 1 else ""))
    places = {
        place: SiteData(
            place,
            shards.get(place, {}),
            {split: joined(parts) for split, parts in held.get(place, {}).items()},
            partial(Exclusions.read, homes / place / MIRROR),
        )
        for place in scenario.places
    }
    return Opened(places, {name: next((r.classes for r in dealt.values()), ()) for name, (dealt, _) in opened.items()})


def among(rows: Rows, classes: tuple[str, ...], name: str) -> Rows:
    """Rows of one of several sets, to be joined with the others'; keys of two sets may be the same, so they get its name."""
    named = rows.for_head(classes)
    return replace(named, keys=tuple(f"{name}/{key}" for key in named.keys)) if name else named


def refuse_own(scenario: Scenario) -> None:
    """Refuse to do in this process what only the sites can do.

    Raises:
        InputError: the sites' rows are their own.
    """
    if scenario.own:
        raise InputError(
            f"{scenario.name}: its data says `sites: own`, so its sites are elsewhere and this process cannot open their rows; "
            f"name the folder of their site.yaml files (--sites-in), or ask them: `--backend flower --federation NAME`"
        )


def shared_test(spec: Opening, beside: str, trained: Sequence[Rows] = ()) -> dict[str, Rows]:
    """The declared test set, in two: to calibrate on, and to test on.

    Args:
        spec: what declares it.
        beside: the folder in which a relative path is looked up.
        trained: rows to train on, as far as they are here; nothing may be tested on them. Sets have a few twins, no more.

    Raises:
        InputError: there is none, it cannot be opened, or most of it is trained on.
    """
    rows = open_rows(spec.test or "", "test", beside=beside, options=spec.test_options)
    if 2 * (again := twins(rows, trained)) > len(rows):
        raise InputError(
            f"data.test: {spec.test!r}: {again} of its {len(rows)} rows are among those that are trained on; name another set, "
            f"or leave `test` out, and rows of the set are held out"
        )
    _, calibration, test = held_out(rows, 0.4, 0.6, spec.seed)
    return {"calibration": calibration, "test": test}


def _open_set(scenario: Scenario, name: str) -> tuple[dict[str, Rows], dict[str, dict[str, Rows]]]:
    """Rows of every site, and held-out rows of every place, of one set."""
    spec, sites = scenario.sets[name], scenario.sites_of(name)
    dealt: dict[str, Rows] = {}
    held: dict[str, dict[str, Rows]] = {}
    fractions = (spec.calibration, spec.held_out) if spec.test is None else (0.0, 0.0)
    if spec.set is not None:
        rows = open_rows(spec.set, beside=scenario.folder, options=spec.options)
        train, calibration, test = held_out(rows, *fractions, spec.seed)
        without = {s: _lacks(rows.classes, spec, s) for s in sites}
        share = {s: v for s in sites if (v := matching(spec.share, s)) is not None}
        dealt = shard(train, sites, spec.shards, seed=spec.seed, without=without, concentration=spec.concentration, share=share)
        held = {place: {"calibration": calibration, "test": test} for place in scenario.places}
    else:
        for site in sites:
            own = open_site(spec.factory or "", site)
            own = own.without(_lacks(own.classes, spec, site))
            dealt[site], calibration, test = held_out(own, *fractions, spec.seed)
            held[site] = {"calibration": calibration, "test": test}
    if spec.test is not None:
        shared = shared_test(spec, scenario.folder, tuple(dealt.values()))
        if dealt:
            check_test(spec, shared["test"].classes, [c for rows in dealt.values() for c in rows.classes])
        held = dict.fromkeys(scenario.places, shared)
    agree({site: _seen(rows) for site, rows in dealt.items()})
    return dealt, held


def _lacks(classes: tuple[str, ...], spec: Data, site: str) -> list[str]:
    """Classes that a site does not get."""
    lacks, only = matching(spec.without, site) or (), matching(spec.only, site)
    for key, named in (("without", lacks), ("only", only or ())):
        check_names("class", named, classes, f"data.{key}.{site}")
    return [c for c in classes if c in lacks or (only is not None and c not in only)]


def check_test(spec: Data, named: Collection[str], known: Collection[str]) -> None:
    """Refuse a test set of classes that nothing is trained on.

    Raises:
        InputError: says the first such class.
    """
    missing = sorted(set(named) - set(known))
    if missing:
        raise InputError(f"data.test: {spec.test!r} names a class {missing[0]!r} that the rows to train on do not name")


def union(sets: Mapping[str, Seen]) -> tuple[str, ...]:
    """The classes of all sets, which must differ, and whose inputs must have one shape.

    Raises:
        InputError: two sets name the same class, or their inputs differ in shape.
    """
    found: dict[str, str] = {}
    for name, (classes, _) in sets.items():
        for c in classes:
            if c in found:
                raise InputError(f"data: sets {found[c]} and {name} both name a class {c!r}; give them names of their own")
            found[c] = name
    shapes = {name: shape for name, (_, shape) in sets.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"data: inputs of one family must have one shape, found {shapes}; make a family of each")
    return tuple(found)


def agree(sites: Mapping[str, Seen]) -> None:
    """Refuse a set that is not the same to all its sites.

    Raises:
        InputError: says which site differs from the first, in classes or in shape.
    """
    first = next(iter(sites), "")
    for site, (classes, shape) in sites.items():
        if classes != sites[first][0]:
            raise InputError(
                f"data: {site} names classes {classes}, {first} names {sites[first][0]}; all sites "
                f"must name the same classes in the same order"
            )
        if shape != sites[first][1]:
            raise InputError(f"data: inputs of {site} have shape {shape}, those of {first} {sites[first][1]}")


def _seen(rows: Rows) -> Seen:
    return rows.classes, tuple(rows.x.shape[1:])


def net_maker(scenario: Scenario, data: Mapping[str, SiteData]) -> MakeNet:
    """Makes nets of the scenario's architectures; each that a model has is tried once on real rows.

    Raises:
        InputError: a net cannot be made, or does not turn rows into outputs.
    """
    sample = next(rows for d in data.values() for rows in d.shards.values())
    shape, classes = tuple(sample.x.shape[1:]), len(sample.classes)
    for name in dict.fromkeys(scenario.net_of(m) for m in scenario.models):
        spec = _net_spec(scenario, name)
        net = build(spec, shape, classes).eval()
        try:
            with torch.no_grad():
                out = net(sample.x[:2])
        except Exception as error:  # whatever the user's net raises is theirs to read
            raise InputError(f"net {dict(spec)}: raised {type(error).__name__} on rows of shape {shape}: {error}") from error
        if not isinstance(out, torch.Tensor) or out.shape != (len(sample.x[:2]), classes):
            got = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
            raise InputError(
                f"net {dict(spec)}: gave {got} for {len(sample.x[:2])} rows, expected one output a class ({classes})"
            )
    return maker(scenario, shape)


def maker(scenario: Scenario, shape: tuple[int, ...]) -> MakeNet:
    """Makes nets of the scenario's architectures for inputs of a shape, untried."""
    return lambda outputs, name, seed: build(_net_spec(scenario, name), shape, outputs, seed)


def _net_spec(scenario: Scenario, name: str) -> Mapping[str, Any]:
    return net_spec(scenario.net, scenario.nets, scenario.data.vocabulary, name)


def net_spec(
    net: Mapping[str, Any], nets: Mapping[str, Mapping[str, Any]], vocabulary: int | None, name: str
) -> Mapping[str, Any]:
    """What an architecture is built from.

    Args:
        net: the family's own.
        nets: the others by name.
        vocabulary: how many tokens the data counts; a net for texts counts alike.
        name: of the architecture; empty for the family's own.

    Raises:
        InputError: there is none of that name.
    """
    if name and name not in nets:
        raise unknown("net", name, nets, where="nets")
    spec = nets[name] if name else net
    if str(spec.get("name", "")).startswith("text_") and vocabulary is not None:
        return {"vocabulary": vocabulary, **spec}
    return spec


def check_samples(scenario: Scenario, homes: Path, request: Request) -> None:
    """Refuse samples that their sites do not hold, as far as that can be seen from here: not where sites open their own.

    Args:
        scenario: says what sites hold.
        homes: the family's, where exclusions are.
        request: names samples, or does not.

    Raises:
        InputError: says the nearest sample.
    """
    if scenario.own or not request.samples:
        return
    data = open_site_data(scenario, homes)
    for shard_, keys in request.shards.items():
        site, name = shard_.split("/", 1)
        data[site].selected(name, Selection(samples=tuple(f"{name}/{k}" for k in keys)))
