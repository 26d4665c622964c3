"""Checking all that a place's folder holds: every hash, every reference, and what nothing refers to."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from fedunlearn.errors import StoreError
from fedunlearn.store.bank import Bank
from fedunlearn.store.files import TEMPORARY, tensors_in
from fedunlearn.store.hashing import hash_of, pack_name
from fedunlearn.store.versions import Store


@dataclass
class Checked:
    """What was found.

    Args:
        damage: in words, each with the file and what to do.
        orphans: files that nothing needs, and why; `gc` erases them.
        files: how many were read.
    """

    damage: list[str] = field(default_factory=list)
    orphans: dict[Path, str] = field(default_factory=dict)
    files: int = 0

    def add(self, other: "Checked") -> None:
        """Take in what was found elsewhere."""
        self.damage += other.damage
        self.orphans |= other.orphans
        self.files += other.files


def check_store(store: Store, needed: Mapping[str, str], erased: Mapping[str, str] = MappingProxyType({})) -> Checked:
    """Read all weights in a place's folder, what was banked of them, and what says where they lie.

    Args:
        store: of the place.
        needed: versions that must be here, and why, in words.
        erased: versions that must not be here, and why, in words.
    """
    found = Checked()
    packs = _packs(store, found)
    named = _manifests(store, needed, erased, packs, found)
    for path in (p for p in packs if p.stem not in named):
        found.orphans[path] = "a pack that no version names"
    tabled = {t for v in store.versions() for t in _tables(store, v)}
    for path in _files(store.table_path("x").parent):
        found.files += 1
        if path.stem not in tabled:  # those that are named were read with the manifests
            found.orphans[path] = "a table that no version names"
    here = set(store.versions())
    for path in _files(store.folder / "carried"):
        found.files += 1
        with noting(found):
            store.read_state(path.stem)
        if path.stem in erased:
            found.damage.append(f"{path}: of a version that was {erased[path.stem]}: {_ERASE}")
        elif path.stem not in here:
            found.orphans[path] = "what training carried along with a version that is not here"
    bank = Bank(store.folder)
    for path in bank.paths():
        found.files += 1
        with noting(found):
            bank.open(path)
    for path in sorted(store.folder.rglob(f"*{TEMPORARY}")):
        found.orphans[path] = "left half-written by a crash"
    return found


def _packs(store: Store, found: Checked) -> dict[Path, set[str]]:
    """Which tensors are in which pack."""
    packs: dict[Path, set[str]] = {}
    for path in _files(store.pack("x").parent):
        found.files += 1
        packs[path] = set()
        try:
            tensors = tensors_in(path.read_bytes())
        except (OSError, ValueError) as error:
            found.damage.append(f"{path}: cannot be read ({error}): {_RESTORE}")
            continue
        packs[path] = set(tensors)
        if pack_name(tensors) != path.stem:
            found.damage.append(f"{path}: its tensors are not those that it is named by; it was changed or damaged: {_RESTORE}")
        found.damage += [
            f"{path}: tensor {name[:12]} is not what it is called; it was changed or damaged: {_RESTORE}"
            for name, tensor in tensors.items()
            if hash_of(tensor) != name
        ]
    return packs


def _manifests(
    store: Store, needed: Mapping[str, str], erased: Mapping[str, str], packs: Mapping[Path, set[str]], found: Checked
) -> set[str]:
    """Names of the packs that manifests name."""
    named: set[str] = set()
    here = store.versions()
    for version in here:
        path = store.manifest_path(version)
        found.files += 1
        if version in erased:
            found.damage.append(f"{path}: {erased[version]}: {_ERASE}")
        elif version not in needed:
            found.orphans[path] = "a version that nothing needs"
        with noting(found):
            manifest = store.manifest(version)
            named |= set(manifest["packs"].values())
            for name, tensor in manifest["tensors"].items():
                pack = store.pack(manifest["packs"].get(tensor, ""))
                if tensor not in packs.get(pack, ()):
                    found.damage.append(f"{path}: {name!r} should be in {pack}, and is not: {_RESTORE}")
    found.damage += [
        f"{store.manifest_path(version)}: missing; it is {why}: {_RESTORE}"
        for version, why in needed.items()
        if version not in here
    ]
    return named


def _tables(store: Store, version: str) -> list[str]:
    try:
        found: list[str] = store.manifest(version)["tables"]
    except StoreError:
        return []  # whoever checks manifests says so
    return found


_RESTORE = "restore it from a backup"
_ERASE = "find out who put it back, then erase it (fedunlearn gc)"


@contextmanager
def noting(found: Checked) -> Iterator[None]:
    """What a reader says of a damaged file is noted, so that the next can be read."""
    try:
        yield
    except StoreError as error:
        found.damage.append(str(error))


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*") if p.is_file() and not p.name.endswith(TEMPORARY))
