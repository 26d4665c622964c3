"""What is to be forgotten."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, Self

from fedunlearn.errors import InputError, unknown
from fedunlearn.lineage.graph import Lineage
from fedunlearn.lineage.model import Shard


@dataclass(frozen=True)
class Request:
    """Classes (at all sites, or at some), single samples, or all that some sites contributed.

    Args:
        classes: names of classes; with `sites`, only the rows of those classes at those sites.
        samples: `site/shard/key` each; stands alone.
        sites: without classes, all that these sites contributed.
        since: name of a kept model; only what trained models after it (in order of time) is part of the request.
        id: name of the case; by default derived from what is asked.
        received: ISO date the request came in.
        due: ISO date it must be done by.

    Raises:
        InputError: nothing is asked, samples are mixed with the rest, or a date is not one.
    """

    classes: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    since: str | None = None
    id: str = ""
    received: str | None = None
    due: str | None = None

    def __post_init__(self) -> None:
        for what in ("classes", "samples", "sites"):
            object.__setattr__(self, what, tuple(sorted({str(v) for v in getattr(self, what)})))
        if not (self.classes or self.samples or self.sites):
            raise InputError("request: names nothing to forget; give classes, samples (site/shard/key) or sites")
        if self.samples and (self.classes or self.sites):
            raise InputError("request: samples stand alone; ask for classes or sites in a request of their own")
        for sample in self.samples:
            if sample.count("/") < 2:
                raise InputError(f"request: sample {sample!r}: expected site/shard/key")
        for what in ("received", "due"):
            given = getattr(self, what)
            try:
                _ = given is None or date.fromisoformat(given)
            except (TypeError, ValueError):
                raise InputError(f"request: {what} {given!r}: expected a date like 2026-11-21") from None
        if not self.id:
            asked = json.dumps([self.classes, self.samples, self.sites, self.since])
            object.__setattr__(self, "id", "r-" + hashlib.blake2s(asked.encode(), digest_size=4).hexdigest())

    @cached_property
    def shards(self) -> dict[str, tuple[str, ...]]:
        """For samples: the keys asked for, by `site/shard`."""
        found: dict[str, list[str]] = {}
        for sample in self.samples:
            site, shard, key = sample.split("/", 2)
            found.setdefault(f"{site}/{shard}", []).append(key)
        return {shard: tuple(keys) for shard, keys in found.items()}

    def touches(self, shard: Shard) -> tuple[str, ...]:
        """Classes of a shard of which rows are to be forgotten; for samples, all that the shard holds."""
        if self.samples:
            return tuple(shard.rows) if shard.key in self.shards else ()
        if self.sites and shard.site not in self.sites:
            return ()
        return tuple(c for c, n in shard.rows.items() if n and (not self.classes or c in self.classes))

    def check(self, lineage: Lineage) -> None:
        """Refuse names that the lineage does not know; a known one that touches nothing is fine.

        Raises:
            InputError: says the nearest right name.
        """
        where = f"request {self.id}"
        for c in self.classes:
            if c not in lineage.classes:
                raise unknown("class", c, lineage.classes, where=where)
        for s in self.sites:
            if s not in lineage.sites:
                raise unknown("site", s, lineage.sites, where=where)
        shards = {s.key for m in lineage.models for s in m.data} if self.samples else set()
        for key in self.shards:
            if key.split("/")[0] not in lineage.sites:
                raise unknown("site", key.split("/")[0], lineage.sites, where=where)
            if key not in shards:
                raise unknown("shard", key, shards, where=where)
        if self.since is not None and not lineage[self.since].kept:
            raise InputError(f"{where}: since {self.since!r} is a model on the way to another; name a kept model")

    @property
    def what(self) -> tuple[object, ...]:
        """What is asked, whatever the case is called."""
        return self.classes, self.samples, self.sites, self.since

    def words(self) -> str:
        """The request in a few words, for people."""
        if self.samples:
            what = f"{len(self.samples)} sample{'s' * (len(self.samples) > 1)}"
        else:
            what = f"class {', '.join(self.classes)}" if self.classes else "all"
        where = f" of {', '.join(self.sites)}" if self.sites else ""
        return f"{what}{where}" + (f" since {self.since}" if self.since else "")

    def to_json(self) -> dict[str, Any]:
        """As plain data; `from_json` is its inverse."""
        return {
            "id": self.id,
            "classes": list(self.classes),
            "samples": list(self.samples),
            "sites": list(self.sites),
            "since": self.since,
            "received": self.received,
            "due": self.due,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        lists = {k: tuple(plain.get(k, ())) for k in ("classes", "samples", "sites")}
        return cls(
            **lists, since=plain.get("since"), id=plain.get("id", ""), received=plain.get("received"), due=plain.get("due")
        )
