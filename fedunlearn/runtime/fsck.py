"""Checking all files of a family: every hash, every reference, and what nothing refers to. Reads only."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from blake3 import blake3

from fedunlearn.data.register import FOLDER as REGISTERS, register_file
from fedunlearn.errors import StoreError
from fedunlearn.plain import loads, shaped
from fedunlearn.runtime.books import records
from fedunlearn.runtime.books.evaluations import FOLDER, KIND, file_of, read_result, strays
from fedunlearn.runtime.books.family import ERASED, ID, LEDGER, LINEAGE, NEXT, NOTE, POINTER, TOPOLOGY, Family
from fedunlearn.runtime.books.keeping import needed, sealed_away
from fedunlearn.runtime.books.yardstick import FOLDER as REFERENCES, forged
from fedunlearn.runtime.place.check import check_place, check_registers
from fedunlearn.runtime.place.mirror import Mirror, path
from fedunlearn.runtime.seal import references
from fedunlearn.runtime.settle import cut, exclusions
from fedunlearn.runtime.witnesses import unwitnessed
from fedunlearn.store import Checked, Ledger

MADE = (FOLDER, "reports", REFERENCES)  # beside the family, and can be made again
OURS = (REGISTERS, records.FOLDER, "homes")
KNOWN = (TOPOLOGY, NEXT, LINEAGE, LEDGER, f"{LEDGER}.lock", NOTE, ERASED, ID, POINTER, *OURS, *MADE)


def fsck(folder: Path | str, here: Collection[str] | None = None) -> Checked:
    """Check a family's folder.

    Args:
        folder: of the family.
        here: places whose stores must be in the folder; None for all.

    Raises:
        InputError: there is no family, or its training was cut off.
    """
    folder, found = Path(folder), Checked(files=1)
    try:
        family = Family(folder)
        _ = family.ledger
    except StoreError as error:
        return Checked([f"{error}"], {}, 1)
    if not family.ledger.lines:
        _ = Family.open(folder)  # says why there is none
    found.damage += family.ledger.verify()
    if family.ledger.torn:
        _torn(family.ledger, found)
    try:
        _ = family.lineage
    except StoreError as error:
        found.damage.append(str(error))
        return found
    found.damage += [words for words in [unwitnessed(family)] if words]
    _plain(family, found)
    check_registers(folder, found)
    found.damage += [
        f"{register_file(folder, name)}: is missing; without it rows that models were trained on may be held out, and rows "
        f"may be called otherwise: restore it from a backup"
        for name in family.unregistered
    ]
    found.damage += family.altered
    places = family.places if here is None else [p for p in family.places if p in here]
    twins, wanted = references(family), needed(family)
    every = {v for one in (family, *twins) if _readable(one) for held in needed(one).values() for v in held}
    for place in places:
        _mirror(family, place, found)
        gone = {v: why for v, why in _gone(family, place).items() if v not in every}
        checked = check_place(family.store(place), wanted.get(place, {}), erased=gone)
        found.add(checked)
        for file in [f for f in checked.orphans if f.stem in every and f.parent.name == "versions"]:
            del found.orphans[file]  # a reference's, which a site keeps beside the family's own
    for other in sorted((folder / "homes").glob("*")):
        if other.name not in family.places:
            left = "of a place that has departed" if other.name in family.departed else "no place of this family"
            found.orphans[other] = left
    for other in sorted(folder.iterdir()):
        if other.name not in KNOWN:
            found.orphans[other] = "no file of a family"
    whole = {twin.folder for twin in twins}
    for twin in sorted((folder / REFERENCES).glob("*")):
        if twin in whole:
            found.add(fsck(twin, here))
            if words := forged(family, Family(twin)):
                found.damage.append(words)
            continue
        try:
            ledger = Ledger(twin / LEDGER)
        except StoreError as error:
            found.damage.append(f"{error}; or delete {twin}, which is retrained when it is asked for")
            continue
        found.orphans[twin] = "a reference whose training was cut off"
        if ledger.torn:
            _torn(ledger, found)
    return found


def _gone(family: Family, place: str) -> dict[str, str]:
    """Versions that a place has said to have erased, and why; one that still owes it has them yet, which `show` says."""
    told = family.erased.get(place)
    upto = next((line.number for line in family.ledger.lines if line.hash == told), -1)
    return {
        version: f"sealed by ledger line {line.number}, which had it erased, and it is back"
        for version, line in sealed_away(family).items()
        if line.number <= upto
    }


def _readable(twin: Family) -> bool:
    """Whether it is known who descends from whom there; if not, its own check says why."""
    try:
        _ = twin.lineage
    except StoreError:
        return False
    return True


def _torn(ledger: Ledger, found: Checked) -> None:
    """A torn line is what a crash leaves; a whole one that only lacks its newline, with something behind it, is not."""
    try:
        whole = "previous" in shaped(loads(ledger.torn[:-1]), dict[str, Any])
    except ValueError:
        whole = False
    if whole:
        found.damage.append(f"{ledger.path}: its last line is whole, but not the newline behind it; restore it from a backup")
    else:
        found.orphans[ledger.path.with_name(f"{LEDGER}.torn")] = "the last line is torn; the next command moves it here"


def _plain(family: Family, found: Checked) -> None:
    """Scenario and notes, against what the ledger says of them; the lineage was read already."""
    found.files += 1
    for what, file, hashed in (
        ("topology", family.topology, _hash(family.topology)),
        *([("family", named, named.read_text(errors="replace"))] if (named := family.folder / ID).exists() else []),
    ):
        found.files += 1
        told = family.trained(what)
        if told is not None and told != hashed:
            found.damage.append(f"{file}: is not what the ledger recorded; it was changed or damaged: restore it from a backup")
    found.files += len(records.named(family))
    found.damage += records.damaged(family)
    found.orphans |= dict.fromkeys(records.strays(family), "a record that no ledger line names; it is not used")
    _evaluations(family, found)
    if (left := family.folder / NEXT).exists() and left != family.topology:
        found.orphans[left] = "of an extension that was cut off"
    lines = set(family.ledger.hashes)
    for note in (NOTE, ERASED):
        file = family.folder / note
        if not file.exists():
            continue
        found.files += 1
        try:
            plain = shaped(loads(file.read_bytes()), dict[str, str])
            good = plain.keys() <= {*family.places, *family.departed} and set(plain.values()) <= lines
        except (OSError, ValueError):
            good = False
        if not good:
            found.damage.append(f"{file}: names places or ledger lines that there are not; delete it and run fedunlearn settle")


def _evaluations(family: Family, found: Checked) -> None:
    """Every result that a ledger line names; in a copy of a family that lives elsewhere only those that came home are there."""
    for told in (x for x in family.ledger.lines if x.kind == KIND):
        of = family.ledger.lines[told.body["evaluates"]]
        for model, tier, hashed in ((m, t, h) for m, tiers in told.body["results"].items() for t, h in tiers.items()):
            file = file_of(family.folder, hashed)
            if family.elsewhere and not file.exists():
                continue
            found.files += 1
            try:
                read_result(family.folder, hashed, of, model, tier)
            except (OSError, ValueError) as error:
                told_of = f"what ledger line {told.number} says was found of {model}, tier {tier}"
                found.damage.append(f"{file}: not {told_of} ({error}); restore it from a backup")
    found.orphans |= dict.fromkeys(strays(family), "an evaluation that no ledger line names; it is not used")


def _mirror(family: Family, place: str, found: Checked) -> None:
    """A place's mirror must say what the ledger said at the line that it names.

    One that lacks a version in force has not acknowledged the last line, but knows what it says; `check_place` tells of that.
    """
    store = family.store(place)
    file, mirror = path(store), Mirror.of(store)
    if not file.exists():
        return  # it has acknowledged nothing yet; `show` says so
    found.files += 1
    line = next((x for x in family.ledger.lines if mirror and x.hash == mirror.line), None)
    if line is not None:
        heads = family.homed(family.ledger.heads(line.number + 1), place)
        told = Mirror(line.hash, line.number + 1, heads, exclusions(family, line.number + 1).get(place, {}))
        if file.read_bytes() == told.to_bytes():
            return
    if mirror is not None and _lacks_a_version(family, place, mirror):
        return
    if line is not None:
        found.damage.append(f"{file}: is not what ledger line {line.number} says; it was changed or damaged: fedunlearn settle")
        return
    known = cut(family) if mirror else ""
    found.damage.append(known or f"{file}: not a mirror of the ledger; it was changed or damaged: run fedunlearn settle")


def _lacks_a_version(family: Family, place: str, mirror: Mirror) -> bool:
    """Whether a place knows what is in force and excluded, and has not all of the former (see `follow`)."""
    heads = family.homed(family.heads, place)
    known = (mirror.heads, mirror.exclusions) == (heads, exclusions(family).get(place, {}))
    return known and not {*heads.values()} <= {*family.store(place).versions()}


def _hash(file: Path) -> str:
    return blake3(file.read_bytes()).hexdigest() if file.exists() else "missing"
