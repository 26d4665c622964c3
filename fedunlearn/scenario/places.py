"""A family's places behind each backend: all in this process, or each where it is."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from fedunlearn.errors import unknown
from fedunlearn.runtime import Backend, Family, InProcess, Worker
from fedunlearn.scenario.build import refuse_own, workers
from fedunlearn.scenario.files import of_family

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


def backend_of(family: Family, name: str = "in-process", address: str | None = None) -> AbstractContextManager[Backend]:
    """A backend for all places of a family, to be used in a `with` block.

    Args:
        family: the family.
        name: one of `BACKENDS`.
        address: of a running Ray cluster; without one, a cluster is started on this machine and stopped at the end.

    Raises:
        InputError: an unknown backend, one that is not installed, or a family whose sites are elsewhere.
    """
    refuse_own(of_family(family))
    if name == "ray":
        from fedunlearn.runtime.ray import Ray  # an extra: asked for only here

        folder = str(family.folder.resolve())
        return Ray({place: partial(open_worker, folder, place) for place in of_family(family).places}, address)
    if name != "in-process":
        raise unknown("backend", name, BACKENDS)
    return nullcontext(InProcess(workers(of_family(family), family)))
