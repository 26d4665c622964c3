"""Where a command is carried out: the options of all commands that reach places, as one object."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any

from fedunlearn.cli import flower
from fedunlearn.cli.options import Address, Carrier, Data, Federation, OwnSites
from fedunlearn.runtime import Backend, Family
from fedunlearn.scenario import backend_of


@dataclass(frozen=True)
class Where:
    """Options of commands that are made of this by `placed`; `data` has done its work when it was read."""

    backend: Carrier = "in-process"
    address: Address = None
    sites_in: OwnSites = None
    federation: Federation = None
    data: Data = None

    @property
    def in_flower(self) -> bool:
        """Whether the command goes to a Flower deployment.

        Raises:
            InputError: as `flower.asked`.
        """
        return flower.asked(self.backend, self.federation)

    def reach(self, family: Family, departing: Sequence[str] = ()) -> AbstractContextManager[Backend]:
        """A backend for the family's places; see `backend_of`."""
        return backend_of(family, self.backend, self.address, self.sites_in, departing=departing)


HERE = Where()


def placed(command: Callable[..., None]) -> Callable[..., None]:
    """A command for Typer, with the options of `Where` in place of its parameter `where`."""
    named = inspect.Parameter.KEYWORD_ONLY
    of = [inspect.Parameter(f.name, named, default=f.default, annotation=f.type) for f in fields(Where)]
    own = [p.replace(kind=named) for p in inspect.signature(command).parameters.values()]
    every = [p for one in own for p in (of if one.name == "where" else [one])]

    @wraps(command)
    def run(**given: Any) -> None:
        command(where=Where(**{p.name: given.pop(p.name) for p in of}), **given)

    run.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in every}
    return run
