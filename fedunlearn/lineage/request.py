"""What is to be forgotten."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any, Self

from fedunlearn.errors import InputError, check_names
from fedunlearn.lineage.graph import Lineage
from fedunlearn.lineage.model import Shard


def utc_today() -> date:
    """The day by UTC, in which ledger lines tell the time: on one calendar nothing is late for being done elsewhere."""
    return datetime.now(UTC).date()


@dataclass(frozen=True)
class Request:
    """Classes (at all sites, or at some), single samples, or all that some sites contributed.

    `Request(merges=(a, b))` asks for what `a` and `b` ask, in one pass; each stays a case of its own.

    Args:
        classes: names of classes; with `sites`, only the rows of those classes at those sites.
        samples: `site/shard/key` each; stands alone.
        sites: without classes, all that these sites contributed.
        since: name of a kept model; only what trained models after it (in order of time) is part of the request.
        id: name of the case; by default derived from what is asked, or the names of those it merges.
        received: ISO date the request came in, a day of UTC as all that are told; of those it merges, the first.
        due: ISO date it must be done by; of those it merges, the first.
        merges: requests that it carries out together; what is to be forgotten follows from them.

    Raises:
        InputError: nothing is asked, samples are mixed with the rest, a date is not one, or what it merges cannot be said as
            one request.
    """

    classes: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    since: str | None = None
    id: str = ""
    received: str | None = None
    due: str | None = None
    merges: tuple["Request", ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise InputError(f"request: id is {self.id!r}, expected text")
        for what in ("classes", "samples", "sites"):
            if isinstance(given := getattr(self, what), str | bytes):  # letter by letter it would be names, too
                raise InputError(f"request: {what} is {given!r}, expected several names: ({given!r},)")
            object.__setattr__(self, what, tuple(sorted({str(v) for v in getattr(self, what)})))
        if self.merges:
            self._unite()
        if not (self.classes or self.samples or self.sites):
            if self.since is not None:
                raise InputError(
                    f"request: since {self.since!r} alone names nothing to forget, it narrows; give classes or sites too"
                )
            raise InputError("request: names nothing to forget; give classes, samples (site/shard/key) or sites")
        if self.samples and (self.classes or self.sites):
            raise InputError("request: samples stand alone; ask for classes or sites in a request of their own")
        for sample in self.samples:
            if sample.count("/") < 2:
                raise InputError(f"request: sample {sample!r}: expected site/shard/key")
        for what in ("received", "due"):
            given = getattr(self, what)
            try:
                object.__setattr__(self, what, given and date.fromisoformat(given).isoformat())
            except (TypeError, ValueError):
                raise InputError(f"request: {what} {given!r}: expected a date like 2026-11-21") from None
        if not self.id:
            asked = json.dumps([self.classes, self.samples, self.sites, self.since])
            object.__setattr__(self, "id", "r-" + hashlib.blake2s(asked.encode(), digest_size=4).hexdigest())

    def _unite(self) -> None:
        """Say as one what those it merges ask."""
        each = tuple(one for r in self.merges for one in (r.merges or (r,)))
        names, seen = ", ".join(r.id for r in each), dict[object, Request]()
        for r in each:
            if (twin := seen.get(r.id) or seen.get(r.what)) is not None:
                raise InputError(
                    f"requests {names}: {twin.id} ({twin.words()}) and {r.id} ({r.words()}) have one name or ask for the same; "
                    f"leave one out"
                )
            seen |= {r.id: r, r.what: r}
        united = _union(each)
        if any(self.what) and self.what != united:
            raise InputError(f"request {self.id or names}: asks for something else than what it merges ({names}) does together")
        fields: dict[str, object] = dict(zip(("classes", "samples", "sites", "since"), united, strict=True))
        for what in ("received", "due"):
            given = [d for r in each if (d := getattr(r, what))]
            fields[what] = getattr(self, what) or min(given, key=date.fromisoformat, default=None)
        for what, value in {**fields, "id": self.id or "+".join(r.id for r in each), "merges": each}.items():
            object.__setattr__(self, what, value)

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

    def covers(self, other: "Request") -> bool:
        """Whether all that another asks for is part of this, as far as names tell: of which class a sample is, they do not."""
        if self.since not in (None, other.since):
            return False
        if self.samples:
            return bool(other.samples) and set(other.samples) <= set(self.samples)
        sites = {key.split("/", 1)[0] for key in other.shards} if other.samples else set(other.sites)
        everywhere, every_class = not self.sites, not self.classes
        within = everywhere or (bool(sites) and sites <= set(self.sites))
        return within and (every_class or (bool(other.classes) and set(other.classes) <= set(self.classes)))

    def check(self, lineage: Lineage) -> None:
        """Refuse names that the lineage does not know; a known one that touches nothing is fine.

        Raises:
            InputError: says the nearest right name.
        """
        where = f"request {self.id}"
        check_names("class", self.classes, lineage.classes, where)
        check_names("site", self.sites, lineage.sites, where)
        shards = {s.key for m in lineage.models for s in m.data} if self.samples else set()
        check_names("site", (key.split("/")[0] for key in self.shards), lineage.sites, where)
        check_names("shard", self.shards, shards, where)
        if self.since is not None and not (lineage[self.since].kept or lineage[self.since].home in lineage.departed):
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
            "merges": [r.to_json() for r in self.merges],
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        lists = {k: tuple(plain.get(k, ())) for k in ("classes", "samples", "sites")}
        return cls(
            **lists,
            since=plain.get("since"),
            id=plain.get("id", ""),
            received=plain.get("received"),
            due=plain.get("due"),
            merges=tuple(map(cls.from_json, plain.get("merges", ()))),
        )


def _union(requests: Sequence[Request]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], str | None]:
    """Classes, samples, sites and `since` of the one request that asks for what several ask together, no more and no less.

    Raises:
        InputError: there is none; says which of them go together.
    """
    everywhere = {c for r in requests if not r.sites for c in r.classes}
    asked = {(c, s) for r in requests for c in r.classes or ("",) for s in r.sites or ("",) if not (s and c in everywhere)}
    classes, sites = {c for c, _ in asked}, {s for _, s in asked}
    kinds = {(bool(r.classes), bool(r.samples), r.since) for r in requests}
    if len(kinds) > 1 or len(asked) < len(classes) * len(sites):
        together: dict[object, list[str]] = {}
        for r in requests:
            kind = bool(r.classes), bool(r.samples), r.since, r.sites if r.classes else ()
            together.setdefault(kind, []).append(r.id)
        raise InputError(
            f"requests {', '.join(r.id for r in requests)}: no one request says this: it would be about classes, samples or "
            f"whole sites, with one `since`, and ask for each of its classes at each of its sites; run one pass each for: "
            f"{'; '.join(map(', '.join, together.values()))}"
        )
    samples = {s for r in requests for s in r.samples}
    found = [tuple(sorted(names - {""})) for names in (classes, samples, sites)]
    return found[0], found[1], found[2], requests[0].since
