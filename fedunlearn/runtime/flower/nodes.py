"""Which node is which site."""

import time
from collections.abc import Collection, Mapping

from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp import Grid

from fedunlearn.errors import SiteError
from fedunlearn.runtime.flower.exchange import Exchange
from fedunlearn.runtime.flower.records import CONFIG, WHOAMI

LOOK = 0.5  # seconds between two looks for sites that are missing


class Nodes:
    """Finds the nodes of sites.

    A node that the SuperLink knows by a registered name is the site of that name. Any other node is asked once, and believed:
    register and authenticate nodes where that is not enough. A site that two nodes claim is neither.

    Args:
        grid: where to look.
        sites: site -> node, where that is known beforehand; nobody is asked then.
        join: seconds to wait for sites.
    """

    def __init__(self, grid: Grid, sites: Mapping[str, int] | None, join: float) -> None:
        self._grid, self._join, self._fixed = grid, join, sites is not None
        self._claims: dict[str, list[int]] = {site: [node] for site, node in (sites or {}).items()}
        self._told: dict[int, str] = {}  # node -> what it says it is; empty where it does not say
        self._absent: set[str] = set()  # waited for in vain: looked for once a time, not waited for again

    def of(self, place: str) -> int | None:
        """The node of a place, as last seen."""
        nodes = self._claims.get(place, [])
        return nodes[0] if len(nodes) == 1 else None

    def again(self, place: str) -> int | None:
        """The node of a place now: a site may have come back as another node."""
        node = self.of(place)
        if not self._fixed and (node is None or node not in set(self._grid.get_node_ids())):
            self._look(LOOK)
        return self.of(place)

    def find(self, places: Collection[str]) -> None:
        """Look until all are there, or `join` is over; once for those that did not come before."""
        new = any(self.of(p) is None and p not in self._absent for p in places)
        until = time.monotonic() + (self._join if new else 0.0)
        while not self._fixed and any(self.of(p) is None for p in places):
            self._look(max(LOOK, until - time.monotonic()))
            if all(self.of(p) is not None for p in places) or time.monotonic() >= until:
                break
            time.sleep(min(LOOK, self._join))
            self._told = {node: place for node, place in self._told.items() if place}  # the silent are asked again
        self._absent = {p for p in (*self._absent, *places) if self.of(p) is None}

    def wait(self, places: Collection[str]) -> None:
        """Look until all are there.

        Raises:
            SiteError: some are not, by `join`; names them all.
        """
        self._absent -= set(places)
        self.find(places)
        missing = [f"{p}: {self.absence(p)}" for p in places if self.of(p) is None]
        if missing:
            raise SiteError(f"{len(missing)} of {len(places)} places are missing after {self._join:g} s: {'; '.join(missing)}")

    def contested(self, place: str) -> bool:
        """Whether several nodes say that they are a place."""
        return len(self._claims.get(place, [])) > 1

    def absence(self, place: str) -> str:
        """Why a place has no node."""
        nodes = self._claims.get(place, [])
        if self.contested(place):
            return f"nodes {', '.join(map(str, sorted(nodes)))} all say that they are it; register nodes by name"
        there = sorted(p for p in self._claims if p and self.of(p) is not None)
        return f"no node is this site; there are {', '.join(there) or 'none'}"

    def _look(self, seconds: float) -> None:
        named = {info.node_id: info.name for info in self._grid.get_nodes()}
        asked = [node for node, name in named.items() if not name and node not in self._told]
        letters = {node: RecordDict({CONFIG: ConfigRecord({"ask": "place"})}) for node in asked}
        for node, outcome in Exchange(self._grid, WHOAMI, letters, lambda n: n, seconds).run().items():
            said = outcome.content.get(CONFIG) if outcome.content is not None else None
            place = said.get("place") if isinstance(said, ConfigRecord) else None
            self._told[node] = place if isinstance(place, str) else ""
        registered = {name for name in named.values() if name}
        self._claims = {}
        for node, name in named.items():
            claimed = name or self._told.get(node, "")
            if name or claimed not in registered:  # what is registered is not overruled by what somebody says
                self._claims.setdefault(claimed, []).append(node)
