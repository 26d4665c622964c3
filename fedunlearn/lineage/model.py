"""A model as the lineage sees it: a name, a home, the data that trained it, and its parents."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NotRequired, Self

from pydantic import NonNegativeInt
from typing_extensions import TypedDict

from fedunlearn.errors import InputError, unknown
from fedunlearn.plain import Place, shaped

BIRTHS = ("federated", "distributed", "incremental", "transfer")


class _Shard(TypedDict):
    site: Place
    name: str
    rows: dict[str, NonNegativeInt]


class _Model(TypedDict):
    name: str
    home: Place
    born: str
    head: list[str]
    parents: list[str]
    data: list[_Shard]
    kept: bool
    size: NonNegativeInt
    net: str
    started: dict[str, str]
    imported: NotRequired[bool]


@dataclass(frozen=True)
class Shard:
    """Rows of one site that trained a model directly: how many of each class. Its key is `site/name`."""

    site: str
    name: str
    rows: Mapping[str, int]

    @property
    def key(self) -> str:
        """The shard's name among all sites; a sample is `site/shard/key`."""
        return f"{self.site}/{self.name}"


@dataclass(frozen=True)
class Model:
    """A node of the lineage.

    Args:
        name: unique in the lineage.
        home: the place that holds its weights.
        born: how it came to be, one of `BIRTHS`.
        head: names of its outputs, in the order of the rows of its last layer.
        parents: the models it started from; several are averaged.
        data: the shards that trained it directly. Empty for an average of clients.
        kept: whether its weights still exist. A retired model is walked through, never edited.
        size: how many parameters it has; only the plan's cost needs it.
        net: which of the family's architectures it has; empty for the family's own.
        started: the version of each kept parent that it started from.
        imported: whether it came with its weights: on what it was trained, and from what, is its owner's word.

    Raises:
        InputError: a field is empty, repeated or not in its menu.
    """

    name: str
    home: str
    born: str
    head: tuple[str, ...]
    parents: tuple[str, ...] = ()
    data: tuple[Shard, ...] = ()
    kept: bool = True
    size: int = field(default=0, compare=False)
    net: str = ""
    started: Mapping[str, str] = field(default_factory=dict, compare=False)
    imported: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        where = f"model {self.name!r}"
        if not self.name or not self.home:
            raise InputError(f"{where}: name and home must not be empty (home is {self.home!r})")
        if self.born not in BIRTHS:
            raise unknown("kind of birth", self.born, BIRTHS, where=where)
        for what, values in (("head", self.head), ("parents", self.parents), ("data", [s.key for s in self.data])):
            twice = sorted(v for v, n in Counter(values).items() if n > 1)
            if twice:
                raise InputError(f"{where}: {what} names {', '.join(map(repr, twice))} more than once")
        if not self.head:
            raise InputError(f"{where}: its head has no names; name every output by its class")
        if self.name in self.parents:
            raise InputError(f"{where}: is its own parent")

    @property
    def birth(self) -> str:
        """How it came to be, in words."""
        return f"{self.born}, imported" if self.imported else self.born

    def to_json(self) -> dict[str, Any]:
        """As plain data; `from_json` is its inverse."""
        data = [{"site": s.site, "name": s.name, "rows": dict(s.rows)} for s in self.data]
        return {
            "name": self.name,
            "home": self.home,
            "born": self.born,
            "head": list(self.head),
            "parents": list(self.parents),
            "data": data,
            "kept": self.kept,
            "size": self.size,
            "net": self.net,
            "started": dict(self.started),
            **({"imported": True} if self.imported else {}),
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError: it is not what `to_json` gives; places must be names that a folder may have.
            InputError: a field is empty, repeated or not in its menu.
        """
        shaped(plain, _Model)
        data = tuple(Shard(s["site"], s["name"], dict(s["rows"])) for s in plain["data"])
        return cls(
            plain["name"],
            plain["home"],
            plain["born"],
            tuple(plain["head"]),
            tuple(plain["parents"]),
            data,
            plain["kept"],
            plain["size"],
            plain["net"],
            dict(plain["started"]),
            plain.get("imported", False),
        )
