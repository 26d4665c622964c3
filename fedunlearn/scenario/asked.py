"""From the words of a command to a request."""

from dataclasses import replace
from datetime import date

from fedunlearn.errors import InputError, unknown
from fedunlearn.lineage import Request
from fedunlearn.scenario.schema import Scenario


def request_of(
    scenario: Scenario,
    classes: str = "",
    samples: str = "",
    sites: str = "",
    since: str | None = None,
    named: str | None = None,
    due: str | None = None,
) -> Request:
    """A request, received today unless its scenario says otherwise.

    Args:
        scenario: of the family.
        classes: to forget, with commas.
        samples: site/shard/key, with commas.
        sites: whose contributions only, with commas.
        since: only what entered training from this model on.
        named: a request that the scenario names; stands alone.
        due: date by which it must be done.

    Raises:
        InputError: the scenario names no such request, or one is named and described too.
    """
    if named is not None:
        if classes or samples or sites or since:
            raise InputError(f"--request {named}: stands alone; leave out --classes, --samples, --sites and --since")
        if named not in scenario.requests:
            raise unknown("request", named, scenario.requests)
        found = scenario.requests[named].request(named)
        return replace(found, due=due or found.due, received=found.received or date.today().isoformat())

    def listed(text: str) -> tuple[str, ...]:
        return tuple(v.strip() for v in text.split(",") if v.strip())

    return Request(listed(classes), listed(samples), listed(sites), since, received=date.today().isoformat(), due=due)
