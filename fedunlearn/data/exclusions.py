"""What must not be trained on any more. Every loader honours it; the training loop refuses what slips by."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from typing_extensions import TypedDict

from fedunlearn.data.rows import Rows
from fedunlearn.errors import ExcludedError, StoreError
from fedunlearn.plain import shaped, unstamped

MIRROR = "place.json"  # what a place keeps of the ledger: its heads, and what it must not train on


class Selected(TypedDict):
    """A `Selection` as plain data."""

    classes: list[str]
    samples: list[str]


class _Mirror(TypedDict):
    exclusions: dict[str, Selected]


@dataclass(frozen=True)
class Selection:
    """Rows of one site, by description: `shard/key` samples, or all rows of some classes, or (both empty) all rows."""

    classes: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()

    def picks(self, shard: str, rows: Rows) -> list[int]:
        """Positions of the rows of a shard that are described.

        Args:
            shard: the shard's name at its site.
            rows: its rows.
        """
        if self.samples:
            wanted = {s.removeprefix(f"{shard}/") for s in self.samples if s.startswith(f"{shard}/")}
            return [i for i, key in enumerate(rows.keys) if key in wanted]
        return rows.positions(self.classes).tolist() if self.classes else list(range(len(rows)))

    def words(self) -> str:
        """It in a few words, for people."""
        if self.samples:
            return f"{len(self.samples)} sample{'s' * (len(self.samples) > 1)}"
        return f"class {', '.join(self.classes)}" if self.classes else "all rows"

    def meets(self, other: "Selection") -> bool:
        """Whether a row may be described by both: of samples and classes nobody can tell without the rows."""
        if self.samples and other.samples:
            return not set(self.samples).isdisjoint(other.samples)
        return not (self.classes and other.classes) or not set(self.classes).isdisjoint(other.classes)


@dataclass(frozen=True)
class Exclusions:
    """What a site must not train on, by the request that said so."""

    by_request: Mapping[str, Selection]

    @classmethod
    def read(cls, path: Path) -> Self:
        """From the mirror of the ledger that a place keeps; without one there are none.

        Raises:
            StoreError: the file is not what the place wrote.
        """
        if not path.exists():
            return cls({})
        try:
            plain = shaped(unstamped(path.read_bytes()), _Mirror)["exclusions"]
            return cls({k: Selection(tuple(v["classes"]), tuple(v["samples"])) for k, v in plain.items()})
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{path}: not a mirror of the ledger ({error}); run `fedunlearn settle` before training here"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """As plain data, as `read` takes it."""
        return {k: {"classes": list(s.classes), "samples": list(s.samples)} for k, s in self.by_request.items()}

    def beside(self, what: str, more: Mapping[str, Selection]) -> "Exclusions":
        """These and some more; as names of both are an asker's choice, each gets a word before it by which they differ."""
        own = {f"own {name}": chosen for name, chosen in self.by_request.items()}
        return Exclusions({f"{what} {name}": chosen for name, chosen in more.items()} | own)

    def keep(self, shard: str, rows: Rows) -> Rows:
        """The rows of a shard that may still be trained on."""
        gone = {i for s in self.by_request.values() for i in s.picks(shard, rows)}
        return rows.take([i for i in range(len(rows)) if i not in gone]) if gone else rows

    def check(self, shard: str, rows: Rows) -> None:
        """Refuse rows that are excluded.

        Raises:
            ExcludedError: says how many, the first, and which request excluded it.
        """
        for request, selection in self.by_request.items():
            hit = selection.picks(shard, rows)
            if hit:
                raise ExcludedError(
                    f"training on {len(hit)} excluded rows of shard {shard!r} (first: "
                    f"{rows.keys[hit[0]]!r}): request {request} had them forgotten; load rows through "
                    f"the site, or roll the request back and lift its exclusion"
                )
