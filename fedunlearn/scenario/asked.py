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
    received: str | None = None,
    case: str = "",
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
        received: date that it came in.
        case: its name, where the scenario has none for it; by default derived from what is asked.

    Raises:
        InputError: the scenario names no such request, one is named and described too, several cannot be merged, or one is due
            before it came in.
    """
    if named and (classes or samples or sites or since or case):
        raise InputError(
            f"{', '.join(named)}: a named request stands alone; leave out --classes, --samples, --sites, --since and --case"
        )
    if case in scenario.requests:
        raise InputError(f"--case {case}: is a request that the scenario names; ask for it by its name alone")
    found = []
    for name in named:
        if name not in scenario.requests:
            raise unknown("request", name, scenario.requests)
        one = scenario.requests[name].request(name)
        found.append(replace(one, due=due or one.due, received=received or one.received or date.today().isoformat()))

    def listed(text: str) -> tuple[str, ...]:
        return tuple(v.strip() for v in text.split(",") if v.strip())

    if not found:
        received = received or date.today().isoformat()
        found = [Request(listed(classes), listed(samples), listed(sites), since, id=case, received=received, due=due)]
    for one in found:
        if one.due and one.received and one.due < one.received:
            raise InputError(
                f"request {one.id}: due {one.due}, before it was received ({one.received}); correct --due or --received"
            )
    return found[0] if len(found) == 1 else Request(merges=tuple(found))
