"""Some of many, in their order, held as the bits of a whole number."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, TypeVar, overload

T_co = TypeVar("T_co", covariant=True)
Key = TypeVar("Key", bound=Hashable)
Bits = int  # a set, its first member being the lowest bit

_DIGITS = bytes.maketrans(b"01", b"\0\1")


@dataclass(frozen=True, slots=True, eq=False)
class Subset(Sequence[T_co]):
    """Some of a sequence's members, in its order; equal to a tuple of the same.

    The heirs of a federation of thousands may each have thousands of roots; as tuples of names these would fill the memory.

    Args:
        of: all that there is to choose from.
        bits: which of it.
    """

    of: Sequence[T_co]
    bits: Bits

    def __len__(self) -> int:
        return self.bits.bit_count()

    def __iter__(self) -> Iterator[T_co]:
        return compress(self.of, bin(self.bits)[:1:-1].encode().translate(_DIGITS))

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | Sequence[T_co]:
        return tuple(self)[index]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Subset | tuple):
            return NotImplemented
        if isinstance(other, Subset) and other.of is self.of:
            return self.bits == other.bits
        mine: tuple[Any, ...] = tuple(self)
        return mine == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


def positions(keys: Iterable[Key]) -> dict[Key, Bits]:
    """Of every key, where among all it stands."""
    found: dict[Key, Bits] = {}
    for i, key in enumerate(keys):
        found[key] = found.get(key, 0) | 1 << i
    return found
