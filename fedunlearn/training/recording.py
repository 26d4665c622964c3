"""What is known of a federation that somebody else's code has trained, and the lineage that follows from it."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedunlearn.errors import InputError
from fedunlearn.lineage import Model, Shard
from fedunlearn.tensors import Tensors

SHARD = "main"


@dataclass(frozen=True)
class Told:
    """What a site says of its part in a round.

    Args:
        site: its name.
        classes: names of the outputs, in their order.
        rows: how many rows of each class trained the local model; classes without a row are left out.
    """

    site: str
    classes: tuple[str, ...]
    rows: Mapping[str, int]


@dataclass(frozen=True)
class Recording:
    """A federation, as it was seen from the server.

    Args:
        rounds: round -> who took part; rounds that gave no model are left out.
        weights: the last global model.
        strategy: what the server's strategy is called.
        seconds: how long it took.
    """

    rounds: Mapping[int, tuple[Told, ...]]
    weights: Tensors
    strategy: str
    seconds: float

    @property
    def sites(self) -> tuple[str, ...]:
        """Everybody who took part in some round."""
        return tuple(sorted({t.site for told in self.rounds.values() for t in told}))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the outputs.

        Raises:
            InputError: no round gave a model, or sites name different classes.
        """
        told = [t for round_ in self.rounds.values() for t in round_]
        if not told:
            raise InputError("no round gave a model; there is nothing to record")
        for other in told[1:]:
            if other.classes != told[0].classes:
                raise InputError(
                    f"site {other.site!r} names classes {other.classes}, {told[0].site!r} names {told[0].classes}; all sites "
                    f"must name the same classes in the same order"
                )
        return told[0].classes

    @property
    def trained(self) -> int:
        """Rows that went through a local training, over all rounds."""
        return sum(n for told in self.rounds.values() for t in told for n in t.rows.values())

    def models(self, name: str, home: str, size: int) -> tuple[Model, ...]:
        """Every local and global model in order of time; the last global one is kept, and has the name.

        Args:
            name: of the last model.
            home: who holds it.
            size: how many parameters it has.
        """
        head, found, parents = self.classes, [], tuple[str, ...]()
        last = max(self.rounds)
        for number, told in sorted(self.rounds.items()):
            local = [f"{name}/r{number}/{t.site}" for t in told]
            for one, t in zip(local, told, strict=True):
                data = (Shard(t.site, SHARD, dict(t.rows)),)
                found.append(Model(one, t.site, "federated", head, parents, data, False, size))
            merged = name if number == last else f"{name}/r{number}"
            found.append(Model(merged, home, "federated", head, tuple(local), (), number == last, size))
            parents = (merged,)
        return tuple(found)
