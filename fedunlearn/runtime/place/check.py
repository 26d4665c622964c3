"""Checking all that a place keeps, with the family's ledger at hand or, by a site's owner, without. Reads only."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from fedunlearn.data import MIRROR, Selection
from fedunlearn.data.register import FOLDER as REGISTERS, LIST, Register, lost
from fedunlearn.errors import StoreError
from fedunlearn.evaluation.shadows import read_shadow
from fedunlearn.runtime.place.consent import Consent
from fedunlearn.runtime.place.guard import KEY, key_of
from fedunlearn.runtime.place.mirror import FAMILIES, Mirror, path
from fedunlearn.runtime.place.shadowing import FOLDER as SHADOWS
from fedunlearn.store import Checked, Store, check_store
from fedunlearn.store.check import noting

KNOWN = ("versions", "tables", "packs", "carried", "bank", SHADOWS, KEY, MIRROR, REGISTERS, LIST)
CONSENT = "consent"  # in a site's folder: what waits for its owner
ERROR = "error.txt"  # there, too: what went wrong last, in words that do not leave the machine


def check_place(
    store: Store, needed: Mapping[str, str], besides: tuple[str, ...] = (), erased: Mapping[str, str] = MappingProxyType({})
) -> Checked:
    """Read everything in a place's folder but its mirror of the ledger.

    Args:
        store: of the place.
        needed: versions that must be here, and why, in words.
        besides: what else may lie there.
        erased: versions that must not be here, and why, in words.
    """
    found = check_store(store, needed, erased)
    for file in sorted((store.folder / SHADOWS).glob("*/*.safetensors")):
        found.files += 1
        with noting(found):
            read_shadow(file)
    if (store.folder / KEY).exists():
        found.files += 1
        with noting(found):
            key_of(store.folder)
    check_registers(store.folder, found)
    if store.folder.exists():
        strays = (p for p in sorted(store.folder.iterdir()) if p.name not in (*KNOWN, *besides) and p not in found.orphans)
        found.orphans |= dict.fromkeys(strays, "no file of a place")
    return found


def check_registers(folder: Path, found: Checked) -> None:
    """Read what is kept of the rows that models were trained on, in a site's folder or a family's."""
    for file in sorted((folder / REGISTERS).glob("*.json")):
        found.files += 1
        with noting(found):
            Register.read(file)
    if (folder / LIST).exists():
        found.files += 1
        with noting(found):
            found.damage += lost(folder)


@dataclass(frozen=True)
class HeldModel:
    """The current version of a model whose home is a site.

    Args:
        model: its name.
        version: its version.
        family: the id of its family; empty for one that does not share the store with others.
        store: which holds it.
    """

    model: str
    version: str
    family: str
    store: Store


@dataclass(frozen=True)
class Barred:
    """What is not trained on any more at a site, for any family.

    Args:
        selection: which rows.
        request: that had them forgotten.
        family: the id of its family; empty for one that does not share the store with others.
    """

    selection: Selection
    request: str
    family: str


def models_at(folder: Path) -> list[HeldModel]:
    """What the ledgers of all families say is current at a site, as far as it was told.

    Args:
        folder: the store that its `site.yaml` names.

    Raises:
        StoreError: a mirror of a ledger is damaged.
    """
    return [
        HeldModel(model, version, family, store)
        for family, store, mirror in _mirrors(folder)
        for model, version in mirror.heads.items()
    ]


def barred_at(folder: Path) -> list[Barred]:
    """What the ledgers of all families have excluded at a site, as far as it was told; see `models_at`."""
    return [Barred(s, request, family) for family, _, mirror in _mirrors(folder) for request, s in mirror.exclusions.items()]


def _mirrors(folder: Path) -> Iterator[tuple[str, Store, Mirror]]:
    for store in (s for s in _stores(folder) if path(s).exists()):
        mirror = Mirror.of(store)
        if mirror is None:
            raise StoreError(_not_a_mirror(store))
        yield "" if store.folder == folder else store.folder.name, store, mirror


def _stores(folder: Path) -> list[Store]:
    """A site's store, and in it those of each family that shares it."""
    return [Store(folder), *map(Store, sorted((folder / FAMILIES).glob("*")))]


def _not_a_mirror(store: Store) -> str:
    return f"{path(store)}: not a mirror of the ledger; it was changed or damaged: have the coordinator run fedunlearn settle"


def check_site(folder: Path) -> Checked:
    """Read everything that a site keeps, of every family.

    The current versions must be here. Which older ones a rollback needs, the ledger says, which is elsewhere.

    Args:
        folder: the store that its `site.yaml` names.
    """
    found = Checked()
    for store in _stores(folder):
        mirror, needed = Mirror.of(store), dict[str, str]()
        if path(store).exists():
            found.files += 1
            if mirror is None:
                found.damage.append(_not_a_mirror(store))
            else:
                needed = {version: f"the current version of {model}" for model, version in mirror.heads.items()}
        checked = check_place(store, needed, besides=(FAMILIES, CONSENT, ERROR) if store.folder == folder else ())
        for file in [f for f in checked.orphans if f.parent.name == "versions"]:
            del checked.orphans[file]
        found.add(checked)
    consent = Consent(folder / CONSENT)
    for file in consent.files():
        found.files += 1
        with noting(found):
            consent.read(file)
    return found
