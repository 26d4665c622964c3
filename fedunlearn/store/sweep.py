"""Erasing versions for good: whatever only they had goes, and nothing else."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from fedunlearn.errors import StoreError
from fedunlearn.store.bank import Bank
from fedunlearn.store.files import TEMPORARY, erase
from fedunlearn.store.hashing import hash_of
from fedunlearn.store.versions import Store

Drop = Callable[[Mapping[str, str], Collection[str]], bool]
"""Of a bank's entry: whether it goes, from what was measured on what and the classes that it holds."""


@dataclass(frozen=True)
class Swept:
    """What was, or would be, erased at one place.

    Args:
        versions: their names.
        tensors: how many tensors.
        banked: how many entries of the bank.
        crashed: how many files that a crash left half-written.
        bytes: by how much the place gets smaller.
    """

    versions: tuple[str, ...] = ()
    tensors: int = 0
    banked: int = 0
    crashed: int = 0
    bytes: int = 0


def sweep(store: Store, keep: Collection[str], drop: Drop = lambda _what, _classes: False, *, dry: bool = False) -> Swept:
    """Erase all versions but those to be kept, for good.

    With them go tensors that only they had, what training carried along with them, what was banked of them; and what a crash
    left behind. A pack that holds both kept and erased tensors is written anew. Crashed anywhere, every kept version can be
    read, and sweeping again finishes.

    Args:
        store: of one place.
        keep: names of versions, wherever they lie; what was banked of any other goes.
        drop: further entries of the bank that go.
        dry: erase nothing, only say what would go.

    Raises:
        StoreError: a version to be kept is damaged; nothing was erased.
    """
    going = [v for v in store.versions() if v not in keep]
    kept = [store.read(v).name for v in store.versions() if v in keep]
    used = _used(store, kept)
    files = sorted(store.pack("x").parent.glob("*.safetensors"))
    unused = [path for path in files if path.stem not in used]
    shared = {
        path: gone for path in files if path.stem in used and (gone := _tensors(path).difference(*used[path.stem].values()))
    }
    banked = [path for path in Bank(store.folder).paths() if _goes(Bank(store.folder), path, keep, drop)]
    tables = _unnamed(store, kept)
    carried = [p for p in sorted((store.folder / "carried").glob("*.safetensors")) if p.stem not in keep]
    crashed = sorted(store.folder.rglob(f"*{TEMPORARY}"))
    lost = [*crashed, *banked, *carried, *map(store.manifest_path, going), *tables, *unused]
    tensors = {t for path in unused for t in _readable(path)}.union(*shared.values())
    found = Swept(tuple(going), len(tensors), len(banked), len(crashed), sum(map(_size, lost)) + _bytes(shared))
    if not dry:
        for path in lost:
            erase(path)  # in this order: a manifest before the packs that it names
        for path in shared:
            _rewrite(store, path, used)
        for path in _unnamed(store, kept):
            erase(path)
        store.look_again()
    return found


def _used(store: Store, versions: Collection[str]) -> dict[str, dict[str, set[str]]]:
    """Pack -> version -> tensors that it reads from it."""
    used: dict[str, dict[str, set[str]]] = {}
    for version in versions:
        for tensor, pack in store.manifest(version)["packs"].items():
            used.setdefault(pack, {}).setdefault(version, set()).add(tensor)
    return used


def _rewrite(store: Store, path: Path, used: dict[str, dict[str, set[str]]]) -> None:
    """Move what is wanted of a pack to a new one, have every manifest name that one, then erase the old one."""
    wanted = set[str]().union(*used[path.stem].values())  # with what was left of another pack, if that became this one
    if wanted == _tensors(path):
        return
    with safe_open(path, framework="pt") as held:
        tensors = {name: held.get_tensor(name) for name in sorted(wanted)}
    for name, tensor in tensors.items():
        if hash_of(tensor) != name:
            raise StoreError(f"{path}: content of tensor {name[:12]} is damaged; {_HELP}")
    new = store.write_pack(tensors)
    for version, tensors_of in used.pop(path.stem).items():
        store.replace_pack(version, path.stem, new)
        used.setdefault(new, {}).setdefault(version, set()).update(tensors_of)
    erase(path)


def _unnamed(store: Store, versions: Collection[str]) -> list[Path]:
    """Tables that none of these versions' manifests name."""
    named = {table for version in versions for table in store.manifest(version)["tables"]}
    return [path for path in sorted(store.table_path("x").parent.glob("*.json")) if path.stem not in named]


_HELP = "run fedunlearn fsck, restore it from a backup, and try again"


def _tensors(path: Path) -> set[str]:
    try:
        with safe_open(path, framework="pt") as held:
            return set(held.keys())
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); {_HELP}") from error


def _readable(path: Path) -> set[str]:
    try:
        return _tensors(path)
    except StoreError:
        return set()


def _bytes(shared: Mapping[Path, Collection[str]]) -> int:
    """Of tensors that go out of packs that stay."""
    total = 0
    for path, gone in shared.items():
        with safe_open(path, framework="pt") as held:
            total += sum(t.numel() * t.element_size() for t in map(held.get_tensor, gone))
    return total


def _goes(bank: Bank, path: Path, keep: Collection[str], drop: Drop) -> bool:
    try:
        what, by_class = bank.open(path)
    except StoreError:
        return True  # nobody can say what it holds, and it can be measured again
    return what["version"] not in keep or drop(what, by_class)


def _size(path: Path) -> int:
    return path.stat().st_size
