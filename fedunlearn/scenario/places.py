"""A family's places behind each backend: all in this process, or each where it is."""

from collections.abc import Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fedunlearn.errors import InputError, SiteError, TrainingError, unknown
from fedunlearn.lineage import Request, discover
from fedunlearn.methods import Method
from fedunlearn.runtime import (
    Backend,
    Family,
    InProcess,
    Record,
    Reference,
    Split,
    Worker,
    excluded,
    gone_from,
    remaining,
    resume,
    unlearn,
    waiting_plan,
)
from fedunlearn.runtime.backend import Progress, deadline
from fedunlearn.runtime.books.line_bodies import request_in
from fedunlearn.scenario.build import check_samples, refuse_own
from fedunlearn.scenario.files import of_family
from fedunlearn.scenario.requests import named_in
from fedunlearn.scenario.schema import Scenario
from fedunlearn.scenario.site import open_site_in
from fedunlearn.scenario.train import check_retrainable, imported_in, reference
from fedunlearn.scenario.train_afar import train_afar
from fedunlearn.scenario.workers import workers
from fedunlearn.scenario.workers_here import workers_here

BACKENDS = ("in-process", "ray")


def open_worker(folder: str, place: str) -> Worker:
    """The worker of one place of a family, opened where this is called.

    Args:
        folder: of the family, as a path that is right there.
        place: whose worker.

    Raises:
        InputError: the family has no such place, or its sites are elsewhere.
    """
    family = Family.open(Path(folder))
    found = workers(of_family(family), family)
    if place not in found:
        raise unknown("place", place, found)
    return found[place]


def backend_of(
    family: Family,
    name: str = "in-process",
    address: str | None = None,
    sites: Path | None = None,
    *,
    departing: Sequence[str] = (),
) -> AbstractContextManager[Backend]:
    """A backend for all places of a family, to be used in a `with` block.

    Args:
        family: the family.
        name: one of `BACKENDS`.
        address: of a running Ray cluster; without one, a cluster is started on this machine and stopped at the end.
        sites: for a family whose data says `sites: own`: see `sites_away`.
        departing: places that are about to be given up; nothing of theirs is opened.

    Raises:
        InputError: an unknown backend, one that is not installed, or a family whose sites are elsewhere, nobody knows where.
    """
    scenario = of_family(family)
    if scenario.own and sites is not None:
        return _split(scenario, family, sites_away(scenario, sites, name, address, departed={*family.departed, *departing}))
    refuse_own(scenario)
    if sites is not None:
        raise InputError(f"--sites-in {sites}: goes with a family whose data says `sites: own`; this one's is opened here")
    if name == "ray":
        from fedunlearn.runtime.ray import Ray  # an extra: asked for only here

        folder = str(family.folder.resolve())
        return Ray({place: partial(open_worker, folder, place) for place in scenario.places}, address, deadline=deadline())
    if name != "in-process":
        raise unknown("backend", name, BACKENDS)
    return nullcontext(InProcess(workers(scenario, family, departing)))


def sites_away(
    scenario: Scenario,
    folder: Path,
    name: str = "in-process",
    address: str | None = None,
    *,
    departed: Container[str] = (),
) -> AbstractContextManager[Backend]:
    """A backend for the sites of a scenario, each of which opens its own `<folder>/<site>/site.yaml`.

    Args:
        scenario: whose data says `sites: own`.
        folder: where the sites' folders are; a site whose folder is not there is offline. Under Ray this is looked up on
            each site's machine, and what the environment says there (FEDUNLEARN_SITES) is taken instead.
        name: one of `BACKENDS`.
        address: of a running Ray cluster, where each site's machine declares the resource `site:<name>`.
        departed: sites that are gone for good; nothing of theirs is opened.

    Raises:
        InputError: an unknown backend, one that is not installed, or a site's file that is wrong.
    """
    where, sites = str(folder.resolve()), [site for site in scenario.sites if site not in departed]
    if name == "ray":
        from fedunlearn.runtime.ray import Ray  # an extra: asked for only here

        return Ray({site: partial(open_site_in, where, site) for site in sites}, address, deadline=deadline())
    if name != "in-process":
        raise unknown("backend", name, BACKENDS)
    missing = {site: f"there is no folder {Path(where, site)}" for site in sites if not Path(where, site).is_dir()}
    return nullcontext(InProcess({s: open_site_in(where, s) for s in sites if s not in missing}, offline=missing, owned=True))


def retrained(
    family: Family,
    scenario: Scenario,
    request: Request,
    backend: Backend,
    progress: Progress = lambda _: None,
    *,
    before: int | None = None,
    as_then: bool = False,
) -> Reference:
    """Every heir as it would be without the data of a request and of those in force.

    Args:
        family: the family.
        scenario: what it was trained from; with another seed, what is retrained has that seed.
        request: what is left out.
        backend: carries tasks; of a family whose sites are elsewhere, a `Split`, as `backend_of` gives it.
        progress: told, in words, what is being done.
        before: a ledger line's number; other requests count as they were in force then.
        as_then: as in `reference`.

    Raises:
        InputError: the request names something that is not there; nothing is trained then.
        TrainingError: a training in this process failed.
        SiteError: a site failed, or is not there.
    """
    found, gone = discover(family.lineage, request), gone_from(family, before)
    if not isinstance(backend, Split):
        twin = reference(family, scenario, request, progress, before=before, as_then=as_then)
        return Reference.of(twin, found, InProcess(workers(scenario, twin)), gone, further=_further(family, twin, before))
    away = backend.away

    def retrain(scenario: Scenario, folder: Path, **more: Any) -> Family:
        if lacking := [site for site in scenario.sites if site in family.departed]:
            raise InputError(
                f"{', '.join(lacking)}: departed; without its rows the family cannot be retrained (--no-reference)"
            )
        try:
            return train_afar(scenario, folder, away, workers_here(scenario, Family(folder)), **more)
        except (SiteError, TrainingError) as error:
            why = error.__cause__ if isinstance(error.__cause__, SiteError) else error  # what to do is another thing here
            raise SiteError(
                f"no model could be retrained to compare with, and nothing was changed: {why}; mend that, or go on without "
                f"(--no-reference)"
            ) from error

    twin = reference(family, scenario, request, progress, retrain=retrain, before=before, as_then=as_then)
    here, holding = workers_here(scenario, twin), set(family.places)
    besides = _further(family, twin, before), _lacks(family, twin)
    return Reference.of(twin, found, Split(here, away, family.id), gone, holding - set(here), *besides)


def _lacks(family: Family, twin: Family) -> dict[str, int]:
    """Rows that a retrained family lacks as requests on other families exclude them by now, where they did not yet before."""
    told, before = twin.ledger.lines[0].body, dict[str, int]()
    for body in (line.body for line in family.ledger.lines if line.kind == "trained" and line.body["heads"]):
        models = family.whole_lineage.models[: body.get("models")]
        for shard in told.get("lacks", {}).keys() & {s.key for model in models for s in model.data}:
            withheld = body.get("withheld", {}).get(shard, 0)
            before[shard] = min(withheld, before.get(shard, withheld))
    now = told.get("withheld", {})
    return {shard: n for shard, n in told.get("lacks", {}).items() if shard in before and now.get(shard, 0) > before[shard]}


def _further(family: Family, twin: Family, before: int | None) -> tuple[Request, ...]:
    """Requests whose data a retrained family lacks, as it must not be trained on any more, that came after a ledger line."""
    if before is None:
        return ()
    line = family.ledger.lines[before]
    known = [one for r in (*excluded(family, before), request_in(line)) for one in (r, *r.merges)]
    lacking = map(Request.from_json, twin.ledger.lines[0].body["without"])
    return tuple(r for r in lacking if not any(one.covers(r) for one in known))


def forget(
    family: Family,
    request: Request,
    method: Method | str,
    backend: Backend,
    *,
    reference: bool = True,
    score_at_roots: bool = False,
    progress: Progress = lambda _: None,
    **how: Any,
) -> Record:
    """`unlearn` as the family's topology says: with its gate, beside the family retrained without the data.

    Args:
        family: the family.
        request: what is to be forgotten.
        method: does it; or its name.
        backend: carries tasks, as `backend_of` gives it.
        reference: retrain a family to compare with.
        score_at_roots: as the gate's, also where the topology does not say so.
        progress: told, in words, what is being done.
        how: as `unlearn` takes it.

    Raises:
        InputError: a model that came with its weights would have to be retrained; otherwise as `unlearn`.
    """
    scenario = of_family(family)
    gate = scenario.gate.gate
    gate = replace(gate, score_at_roots=gate.score_at_roots or score_at_roots)
    request.check(family.lineage)
    check_samples(scenario, family.folder, request)
    if reference and imported_in(scenario) and remaining(family, discover(family.lineage, request)).plan.heirs:
        check_retrainable(scenario)  # before anything is measured
    twin = partial(retrained, family, scenario, request, backend, progress) if reference else None
    noted = named_in(scenario)
    return unlearn(family, request, method, backend, gate, retrained=twin, noted=noted, progress=progress, **how)


def go_on(
    family: Family, backend: Backend, *, reference: bool = True, quorum: float = 1.0, progress: Progress = lambda _: None
) -> Record:
    """`resume`, beside the family retrained without the data.

    Args:
        family: the family.
        backend: carries tasks, as `backend_of` gives it.
        reference: retrain a family to compare with.
        quorum: as in `unlearn`.
        progress: told, in words, what is being done.
    """
    plan = waiting_plan(family)
    twin = partial(retrained, family, of_family(family), plan.request, backend, progress) if plan and reference else None
    return resume(family, backend, retrained=twin, quorum=quorum, progress=progress)


@contextmanager
def _split(scenario: Scenario, family: Family, sites: AbstractContextManager[Backend]) -> Iterator[Backend]:
    here = workers_here(scenario, family)
    with sites as away:
        yield Split(here, away, family.id)
