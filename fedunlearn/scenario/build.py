"""From a scenario to what each place holds."""

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

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
from fedunlearn.errors import InputError, check_names
from fedunlearn.lineage import Request
from fedunlearn.runtime import Family
from fedunlearn.scenario.registers import Registers
from fedunlearn.scenario.schema import Data, Scenario, matching
from fedunlearn.scenario.sources import MAIN, Opening

Seen = tuple[tuple[str, ...], tuple[int, ...]]  # what rows are like: the classes that they name, the shape of an input


@dataclass(frozen=True)
class Opened:
    """A scenario's data.

    Args:
        places: what every place holds.
        classes: what every set names, in its own order.
        registers: what rows were when models were first trained on them; to be held before training.
        dealt: rows to train on, of all sets and sites.
        held: rows to calibrate and test on, each set's once.
    """

    places: dict[str, SiteData]
    classes: dict[str, tuple[str, ...]]
    registers: Registers
    dealt: tuple[Rows, ...]
    held: tuple[Rows, ...]


def open_site_data(scenario: Scenario, folder: Path, departed: Container[str] = ()) -> dict[str, SiteData]:
    """What every place of a scenario holds (see `open_data`)."""
    return open_data(scenario, folder, departed).places


def open_data(scenario: Scenario, folder: Path, departed: Container[str] = ()) -> Opened:
    """Open every set. Sets are dealt to the sites; a factory's rows are the sites' own.

    Classes of all sets share one list, so that a head can be tested wherever held-out rows of its classes are.

    Args:
        scenario: the scenario.
        folder: of the family, for exclusions and registers; it need not be there.
        departed: sites that are gone for good: no factory is asked for their rows. What is dealt is dealt as ever.

    Raises:
        InputError: data cannot be opened, a site's rows do not fit the others, two sets name the same class, or the rows are
            the sites' own.
        StoreError: a register of the family's is not what its ledger recorded.
    """
    refuse_own(scenario)
    Family(folder).check_registers()
    registers = Registers(folder)
    used = [name for name in scenario.sets if scenario.sites_of(name) or name == MAIN]
    opened = {name: _open_set(scenario, name, registers, departed) for name in used}
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
            partial(Exclusions.read, folder / "homes" / place / MIRROR),
            {name: registers.gone(_source(scenario, name, place)) for name in shards.get(place, {})},
        )
        for place in scenario.places
    }
    named = {name: next((r.classes for r in dealt.values()), ()) for name, (dealt, _) in opened.items()}
    every = tuple(rows for dealt, _ in opened.values() for rows in dealt.values())
    once = {id(rows): rows for _, kept in opened.values() for splits in kept.values() for rows in splits.values()}
    return Opened(places, named, registers, every, tuple(once.values()))


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
    if 2 * (again := twins(rows.x, [t.x for t in trained])) > len(rows):
        raise InputError(
            f"data.test: {spec.test!r}: {again} of its {len(rows)} rows are among those that are trained on; name another set, "
            f"or leave `test` out, and rows of the set are held out"
        )
    _, calibration, test = held_out(rows, 0.4, 0.6, spec.seed)
    return {"calibration": calibration, "test": test}


def _source(scenario: Scenario, name: str, site: str) -> str:
    """What the register of a site's rows of a set is called: a set that is dealt has one, a factory one a site."""
    return name if scenario.sets[name].set is not None else f"{name}@{site}"


def _open_set(
    scenario: Scenario, name: str, registers: Registers, departed: Container[str]
) -> tuple[dict[str, Rows], dict[str, dict[str, Rows]]]:
    """Rows of every site, and held-out rows of every place, of one set."""
    spec, sites = scenario.sets[name], scenario.sites_of(name)
    dealt: dict[str, Rows] = {}
    held: dict[str, dict[str, Rows]] = {}
    fractions = (spec.calibration, spec.held_out) if spec.test is None else (0.0, 0.0)
    if spec.set is not None:
        rows = registers.open(name, spec, scenario.folder)
        train, *splits = held_out(rows, *fractions, spec.seed)
        calibration, test = (registers.present(name, part) for part in splits)
        without = {s: _lacks(rows.classes, spec, s) for s in sites}
        share = {s: v for s in sites if (v := matching(spec.share, s)) is not None}
        dealt = shard(train, sites, spec.shards, seed=spec.seed, without=without, concentration=spec.concentration, share=share)
        dealt = {site: registers.present(name, part) for site, part in dealt.items()}
        held = {place: {"calibration": calibration, "test": test} for place in scenario.places}
    else:
        for site in (s for s in sites if s not in departed):
            source = _source(scenario, name, site)
            own = registers.recall(source, open_site(spec.factory or "", site))
            own = own.without(_lacks(own.classes, spec, site))
            parts = held_out(own, *fractions, spec.seed)
            dealt[site], calibration, test = (registers.present(source, part) for part in parts)
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


def check_samples(scenario: Scenario, folder: Path, request: Request, gone: bool = False) -> None:
    """Refuse samples that their sites do not hold, as far as that can be seen from here: not where sites open their own.

    Args:
        scenario: says what sites hold.
        folder: of the family.
        request: names samples, or does not.
        gone: pass those that were there when models were trained.

    Raises:
        InputError: says the nearest sample.
    """
    if scenario.own or not request.samples:
        return
    check_held(open_site_data(scenario, folder), request, gone)


def check_held(data: Mapping[str, SiteData], request: Request, gone: bool = False) -> None:
    """Refuse samples that sites do not hold.

    Args:
        data: of the sites; of those that are not among them nothing can be seen.
        request: names samples, or does not.
        gone: pass those that were there when models were trained.

    Raises:
        InputError: says which.
    """
    for shard_, keys in request.shards.items():
        site, name = shard_.split("/", 1)
        if site not in data:
            continue
        check_names("shard", [shard_], [f"{site}/{of}" for of in data[site].shards], f"request {request.id}")
        there = [k for k in keys if not gone or k not in data[site].gone.get(name, ())]
        if there:
            data[site].selected(name, Selection(samples=tuple(f"{name}/{k}" for k in there)))
