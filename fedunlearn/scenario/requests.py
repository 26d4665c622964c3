"""What is asked: from the words of a command to a request, and every request on a family as a case."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from fedunlearn.errors import InputError, check_names
from fedunlearn.lineage import Request, utc_today
from fedunlearn.runtime import Family, cases
from fedunlearn.runtime.books.cases import Standing
from fedunlearn.scenario.files import of_family
from fedunlearn.scenario.schema import Scenario

FARTHEST_EAST = timedelta(hours=14)  # of all time zones: where a day begins first


def request_of(
    scenario: Scenario,
    classes: str = "",
    samples: str = "",
    sites: str = "",
    since: str | None = None,
    named: Sequence[str] = (),
    due: str | None = None,
    received: str | None = None,
    case: str = "",
    family: Family | None = None,
) -> Request:
    """A request, received today unless its scenario says otherwise.

    Args:
        scenario: of the family.
        classes: to forget, with commas.
        samples: site/shard/key, with commas.
        sites: whose contributions only, with commas.
        since: only what entered training from this model on.
        named: requests that the scenario names, or that were asked of the family before, several of them to be carried out in
            one pass; they stand alone.
        due: date by which it must be done.
        received: date that it came in.
        case: its name, where the scenario has none for it; by default derived from what is asked.
        family: whose requests may be asked again by any of their names, with the dates that were said last.

    Raises:
        InputError: nobody has named such a request, one is named and described too, several cannot be merged, or one is due
            before it came in.
    """
    if named and (classes or samples or sites or since or case):
        raise InputError(
            f"{', '.join(named)}: a named request stands alone; leave out --classes, --samples, --sites, --since and --case"
        )
    if case in scenario.requests:
        raise InputError(f"--case {case}: is a request that the scenario names; ask for it by its name alone")
    tried = _asked_before(family) if named and family is not None else {}
    known = tried | {one.id: one for one in named_in(scenario) if one.id not in tried or tried[one.id].what != one.what}
    check_names("request", named, known)
    plain = [known[name] for name in named]

    def listed(text: str) -> tuple[str, ...]:
        return tuple(v.strip() for v in text.split(",") if v.strip())

    asked = plain or [Request(listed(classes), listed(samples), listed(sites), since, id=case)]
    found = [_dated(one, due or one.due, received or one.received) for one in asked]
    return found[0] if len(found) == 1 else Request(merges=tuple(found))


def _dated(request: Request, due: str | None, received: str | None) -> Request:
    """A request with its dates; without the second it came in today, perhaps late."""
    today = utc_today().isoformat()
    dated = replace(request, due=due, received=received or today)
    if received and received > (datetime.now(UTC) + FARTHEST_EAST).date().isoformat():  # whoever asks may be elsewhere
        raise InputError(f"request {request.id}: received {received}, which is after today ({today}); correct --received")
    if received and dated.due and dated.received and dated.due < dated.received:
        raise InputError(
            f"request {dated.id}: due {dated.due}, before it was received ({dated.received}); correct --due or --received"
        )
    return dated


def _asked_before(family: Family) -> dict[str, Request]:
    """Every request that was asked before, by each of its names."""
    return {name: replace(case.request, id=name) for case in cases(family) for name in case.names}


def cases_of(family: Family) -> tuple[Standing, ...]:
    """Every request on a family as a case, those that its scenario names among them."""
    return cases(family, named_in(of_family(family)))


def named_in(scenario: Scenario) -> tuple[Request, ...]:
    """Requests that a scenario names, as it says them."""
    return tuple(asked.request(name) for name, asked in scenario.requests.items())
