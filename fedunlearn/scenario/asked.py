"""From the words of a command to a request."""

from collections.abc import Sequence
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
    named: Sequence[str] = (),
    due: str | None = None,
) -> Request:
    """A request, received today unless its scenario says otherwise.

    Args:
        scenario: of the family.
        classes: to forget, with commas.
        samples: site/shard/key, with commas.
        sites: whose contributions only, with commas.
        since: only what entered training from this model on.
        named: requests that the scenario names, several of them to be carried out in one pass; they stand alone.
        due: date by which it must be done.

    Raises:
        InputError: the scenario names no such request, one is named and described too, or several cannot be merged.
    """
    if named and (classes or samples or sites or since):
        raise InputError(
            f"{', '.join(named)}: a named request stands alone; leave out --classes, --samples, --sites and --since"
        )
    found = []
    for name in named:
        if name not in scenario.requests:
            raise unknown("request", name, scenario.requests)
        one = scenario.requests[name].request(name)
        found.append(replace(one, due=due or one.due, received=one.received or date.today().isoformat()))
    if found:
        return found[0] if len(found) == 1 else Request(merges=tuple(found))

    def listed(text: str) -> tuple[str, ...]:
        return tuple(v.strip() for v in text.split(",") if v.strip())

    return Request(listed(classes), listed(samples), listed(sites), since, received=date.today().isoformat(), due=due)
