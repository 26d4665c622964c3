"""Sums by class, kept beside the version they were measured on, so that a later request reads no data."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3
from pydantic import NonNegativeInt
from safetensors.torch import save
from typing_extensions import TypedDict

from fedunlearn.errors import StoreError
from fedunlearn.plain import loads, shaped
from fedunlearn.store.files import behind_hash, tensors_in, with_hash, write_atomically
from fedunlearn.tensors import Tensors

SEPARATOR = "\x1f"  # between class and parameter in a file's names; in neither


class _Meta(TypedDict):
    what: str
    counts: str


class _Header(TypedDict):
    __metadata__: _Meta


@dataclass(frozen=True)
class Banked:
    """Sums over the rows of one class of one shard.

    Args:
        sums: by parameter, float64.
        count: how many rows.
    """

    sums: Tensors
    count: int


class Bank:
    """Files `bank/<key>.safetensors` in a place's folder; the key is a hash of what was measured on what.

    A version's name is a hash of its content: when the weights change, so does the key, and what was banked for the old
    weights is not found any more. `rows` is a hash of the keys of the shard's rows, for the same reason.

    Args:
        folder: of the place.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bank"

    def write(self, what: Mapping[str, str], by_class: Mapping[str, Banked]) -> None:
        """Keep the sums of every class.

        Args:
            what: version, shard, rows, statistic, loss and layers; any difference is another entry.
            by_class: class -> sums.
        """
        tensors = {f"{c}{SEPARATOR}{name}": t for c, held in by_class.items() for name, t in held.sums.items()}
        meta = {"what": json.dumps(dict(what), sort_keys=True), "counts": json.dumps({c: h.count for c, h in by_class.items()})}
        data = save({n: t.contiguous() for n, t in tensors.items()}, metadata=meta)
        write_atomically(self._path(what), with_hash(data))

    def read(self, what: Mapping[str, str]) -> dict[str, Banked] | None:
        """The sums of every class; None if nothing was banked for exactly this.

        Raises:
            StoreError: the file is damaged.
        """
        path = self._path(what)
        return self.open(path)[1] if path.exists() else None

    def paths(self) -> tuple[Path, ...]:
        """Files of all entries."""
        return tuple(sorted(self.folder.glob("*.safetensors")))

    def open(self, path: Path) -> tuple[dict[str, str], dict[str, Banked]]:
        """An entry: what was measured on what, and the sums of every class.

        Raises:
            StoreError: the file is damaged, or is not where such an entry belongs.
        """
        try:
            data = behind_hash(path.read_bytes())
            tensors = tensors_in(data)
            length = int.from_bytes(data[:8], "little")
            meta = shaped(loads(data[8 : 8 + length]), _Header)["__metadata__"]
            counts, what = shaped(loads(meta["counts"]), dict[str, NonNegativeInt]), shaped(loads(meta["what"]), dict[str, str])
            if self._path(what) != path or not {"version", "shard"} <= what.keys():
                raise ValueError("it is another entry's")
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{path}: not a bank of importances ({error}); delete it and run `fedunlearn bank` again"
            ) from error
        return what, {
            c: Banked({n.split(SEPARATOR, 1)[1]: t for n, t in tensors.items() if n.split(SEPARATOR, 1)[0] == c}, count)
            for c, count in counts.items()
        }

    def _path(self, what: Mapping[str, str]) -> Path:
        return self.folder / f"{blake3(json.dumps(dict(what), sort_keys=True).encode()).hexdigest()}.safetensors"
