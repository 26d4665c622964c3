"""A place that is gone for good: a hospital that closed, a disk that is lost. The family goes on without it."""

from fedunlearn.errors import InputError, unknown
from fedunlearn.runtime.backend import Backend
from fedunlearn.runtime.books.family import Family
from fedunlearn.runtime.seal import owed
from fedunlearn.runtime.settle import alone, known_lines, settle


def lost_with(family: Family, place: str) -> dict[str, str]:
    """The models that are lost when a place is: their current versions.

    Raises:
        InputError: there is no such place, it has departed before, or no model would be left.
    """
    if before := family.departed.get(place):
        raise InputError(f"place {place!r}: departed on {before.time[:10]} already (ledger line {before.number})")
    if place not in family.places:
        raise unknown("place", place, family.places, where=str(family.folder))
    lost = family.homed(family.heads, place)
    if len(lost) == len(family.heads):
        raise InputError(f"place {place!r}: every model that is left is there; without it there is no family")
    return lost


def depart(family: Family, backend: Backend, place: str, *, reason: str | None = None) -> Family:
    """Give up a place: nobody waits for it, asks it or counts on it any more, and its models are retired.

    What it trained stays in the lineage. Models that inherited from it are reached by later requests all the same, with the
    evidence that others have; where nobody has any, by methods that need none. What it held, and whether it erased what it was
    told to, nobody can say: the ledger line names what it was known to hold. It does not come back under its name.

    Args:
        family: the family.
        backend: carries the news to the other places; those that are offline follow later.
        place: its name.
        reason: why; goes to the ledger.

    Returns:
        The family, opened anew; the ledger's last line says it.

    Raises:
        InputError: as `lost_with`; nothing was changed.
        SiteError: it has departed, but some other place failed; settling finishes.
        BusyError: another command is at work.
    """
    with alone(family, backend, but=(place,)):
        lost = lost_with(family, place)
        told = {"acknowledged": known_lines(family)[place], "unerased": place in owed(family)}
        family.ledger.append("departed", {"place": place, "lost": lost, **told, "reason": reason})
        family.reread()
        found = Family.open(family.folder)
        settle(found, backend, quorum=0.0)
    return found
