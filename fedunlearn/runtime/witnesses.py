"""What an answer about a ledger rests on: who confirms its lines, and whose clock its times are of."""

from fedunlearn.runtime.books.family import Family
from fedunlearn.runtime.place.mirror import path
from fedunlearn.runtime.settle import known_lines


def confirmed(family: Family) -> dict[int, list[str]]:
    """Ledger line -> places that have acknowledged it last: by their mirrors in the folder, of others by the note there."""
    found: dict[int, list[str]] = {}
    known = known_lines(family)
    for line in family.ledger.lines:
        if places := [place for place, acknowledged in known.items() if acknowledged == line.hash]:
            found[line.number] = places
    return found


def elsewhere(family: Family) -> tuple[str, ...]:
    """Places whose stores are not in the folder."""
    here = _here(family)
    return tuple(place for place in family.places if place not in here)


def rests_on(family: Family) -> str:
    """What finding no line missing rests on, in words."""
    count, far = len(family.places), elsewhere(family)
    told = ", ".join(f"line {n} by {len(places)} of {count} places" for n, places in sorted(confirmed(family).items()))
    asked = f", or fedunlearn settle, which asks {', '.join(far)}, whose stores are elsewhere" if far else ""
    return (
        f"confirmed: {told or 'no line by any place'}; all by files in this folder. Whoever cuts the ledger can cut these as "
        f"well: then only --expect with a hash that was noted elsewhere finds it{asked}"
    )


def unwitnessed(family: Family) -> str:
    """What to say where no place in the folder mirrors the ledger any more; empty where one does, or where none must.

    Right behind the first line none must: training may have been cut off there. Nor where all stores are elsewhere.
    """
    here = _here(family)
    if _mirrored(family) or not here or (len(family.ledger.lines) == 1 and family.acknowledged.keys().isdisjoint(here)):
        return ""
    return (
        f"{family.ledger.path}: none of the places in this folder ({', '.join(here)}) has its mirror of it, though they have "
        f"acknowledged lines: the mirrors were deleted, and lines may be missing; hold it against a hash that was noted "
        f"elsewhere (fedunlearn log --expect), then run fedunlearn settle"
    )


def remarks(family: Family) -> list[str]:
    """What is no damage, as an honest mistake does it as well, but is to be known."""
    lines = family.ledger.lines
    found = [
        f"{family.ledger.path}: ledger line {n}: its time, {lines[n].time}, is before that of line {n - 1}, "
        f"{lines[n - 1].time}: a clock was set back, or had been ahead"
        for n in family.ledger.set_back
    ]
    if _here(family) and not _mirrored(family) and not unwitnessed(family):
        found.append(
            f"{family.ledger.path}: no place in this folder has acknowledged it yet: its training was cut off right behind its "
            f"line, or the mirrors were deleted; run fedunlearn settle"
        )
    return found


def _here(family: Family) -> list[str]:
    """Places whose stores are in the folder; none in a copy of a family that lives elsewhere."""
    return [place for place in family.places if not family.elsewhere and family.store(place).folder.is_dir()]


def _mirrored(family: Family) -> bool:
    """Whether some place in the folder has a mirror; what it says, `fsck` checks."""
    return any(path(family.store(place)).exists() for place in _here(family))
