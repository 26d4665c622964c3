"""Versions of models: manifests of tensors by content. Nothing is ever overwritten; a new version is a new name."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file

from fedunlearn.errors import StoreError, unknown
from fedunlearn.plain import canonical, digest, loads, shaped
from fedunlearn.store.files import behind_hash, replace_atomically, tensors_in, with_hash, write_atomically
from fedunlearn.store.hashing import FORMAT, content_of, hashes_of, names_of, pack_name
from fedunlearn.store.shapes import Manifest, Table
from fedunlearn.tensors import Head, Tensors

HASH = re.compile("[0-9a-f]{64}")
SMALL = 8 << 20  # bytes of a pack that is read whole, even if only some of it is wanted


@dataclass(frozen=True)
class Version:
    """A version read back.

    Args:
        name: a hash of its content.
        weights: parameters and buffers.
        head: the names of its outputs.
        net: which of the family's architectures it has; empty for the family's own.
        held: of every weight, its tensor's name and the pack that it was read from.
    """

    name: str
    weights: dict[str, torch.Tensor]
    head: Head
    net: str = ""
    held: Mapping[str, tuple[str, str]] = field(default_factory=dict, compare=False, repr=False)


class Store:
    """Versions in a folder: `packs/` of tensors, `versions/` of manifests, `tables/` of what manifests have in common.

    Args:
        folder: made when the first version is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._packs: dict[str, str] | None = None  # tensor hash -> the pack that holds it

    def write(self, weights: Tensors, head: Head, net: str = "", base: Version | None = None) -> str:
        """Keep a version; tensors that some version already has are read, to be sure, and not written again.

        Args:
            weights: parameters and buffers.
            head: the names of its outputs.
            net: which of the family's architectures it has; empty for the family's own.
            base: what was just read here; what it has as well is not read again.

        Returns:
            The version's name: the same content has the same name, wherever it is written.

        Raises:
            ShapeError: a weight is NaN or infinite.
        """
        hashes = names_of(weights)
        content = content_of(hashes, head, net)
        version = digest(content)
        try:
            if self.manifest_path(version).exists():
                self.read(version)
                return version
            held = {} if base is None else {n: pack for n, (h, pack) in base.held.items() if hashes.get(n) == h}
            known = {name: self._known()[h] for name, h in hashes.items() if name not in held and h in self._known()}
            self._found(version, hashes, known)
            known |= held
        except StoreError:  # a pack that was trusted to hold some of it is damaged or gone: write all of it again
            known = {}
        new = {h: weights[n].detach().cpu().contiguous() for n, h in hashes.items() if n not in known}
        pack = self.write_pack(new) if new else ""
        self._known().update(dict.fromkeys(new, pack))
        self._write_manifest(version, content, {n: known.get(n, pack) for n in hashes}, own=pack)
        return version

    def _write_manifest(self, version: str, content: Mapping[str, Any], packs: Mapping[str, str], own: str) -> None:
        """Names of the version's own pack stand in the manifest; those of each other pack in a table, as other versions' do."""
        apart: dict[str, dict[str, str]] = {}
        for name, tensor in content["tensors"].items():
            apart.setdefault(packs[name], {})[name] = tensor
        mine = apart.pop(own, {})
        tables = sorted(self._write_table({"pack": pack, "tensors": named}) for pack, named in apart.items())
        manifest = {**content, "tensors": mine, "pack": own, "tables": tables}
        data = canonical({**manifest, "hash": digest(manifest)})
        write_atomically(self.manifest_path(version), data)

    def _write_table(self, table: Mapping[str, Any]) -> str:
        data = canonical(table)
        name = blake3(data).hexdigest()
        path = self.table_path(name)
        if not path.exists() or path.read_bytes() != data:
            write_atomically(path, data)
        return name

    def read(self, version: str) -> Version:
        """Read a version and check every hash.

        Raises:
            StoreError: it is missing, damaged, or not ours.
        """
        manifest = self.manifest(version)
        packs = {name: manifest["packs"][tensor] for name, tensor in manifest["tensors"].items()}
        found = self._found(version, manifest["tensors"], packs)
        weights = {name: found[name] for name in manifest["tensors"]}
        head, held = manifest["head"], {name: (tensor, packs[name]) for name, tensor in manifest["tensors"].items()}
        return Version(version, weights, Head(head["layer"], tuple(head["classes"])), manifest.get("net", ""), held)

    def _found(self, version: str, hashes: Mapping[str, str], packs: Mapping[str, str]) -> dict[str, torch.Tensor]:
        """Tensors by parameter name, out of the packs that hold them."""
        parts: dict[str, list[tuple[str, str]]] = {}
        for name, pack in packs.items():
            parts.setdefault(pack, []).append((name, hashes[name]))
        found: dict[str, torch.Tensor] = {}
        for pack, named in parts.items():
            found |= self._tensors(version, self.pack(pack), named)
        return found

    def _tensors(self, version: str, path: Path, named: Sequence[tuple[str, str]]) -> dict[str, torch.Tensor]:
        """What a version needs of one pack: tensors by parameter name, each checked against its hash."""
        first: dict[str, str] = {}  # what is equal is there once: read and hashed once
        for name, content in named:
            first.setdefault(content, name)
        held: dict[str, torch.Tensor] = {}
        content = named[0][1]
        try:
            with _opened(path) as tensor_of:
                for content in first:
                    held[content] = tensor_of(content)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise StoreError(
                f"{path}: cannot be read ({error}); version {version[:12]} needs it for {first[content]!r}: "
                f"restore the file from a backup"
            ) from error
        for content, hashed in zip(held, hashes_of(held.values()), strict=True):
            if hashed != content:
                raise StoreError(
                    f"{path}: content of {first[content]!r} is not what version {version[:12]} recorded; the file was "
                    f"changed or damaged: restore it from a backup"
                )
        return {name: held[content] if first[content] == name else held[content].clone() for name, content in named}

    def manifest(self, version: str) -> dict[str, Any]:
        """What a version consists of, its content checked against its name.

        Returns:
            `format`, `head`, `net` where it has one, `tensors` (parameter name -> hash), `packs` (hash -> pack that holds it),
            and `tables` (which of them its manifest names).

        Raises:
            StoreError: it is missing, damaged, or not ours.
        """
        path = self.manifest_path(version)
        if not HASH.fullmatch(version) or not path.exists():
            raise unknown_version(version, self)
        try:
            raw = path.read_bytes()
            plain = shaped(loads(raw), dict[str, Any])
            if plain.get("format", FORMAT) != FORMAT:
                raise StoreError(
                    f"{path}: format {plain['format']}, this fedunlearn reads {FORMAT}; read it with the fedunlearn that wrote "
                    f"it (export), or train the family anew"
                )
            shaped(plain, Manifest)
            whole = digest({k: v for k, v in plain.items() if k != "hash"})
            parts = [{"pack": plain["pack"], "tensors": plain["tensors"]}, *map(self.table, plain["tables"])]
            tensors = {n: h for part in parts for n, h in part["tensors"].items()}
            content = {k: plain[k] for k in ("format", "head", "net") if k != "net" or k in plain} | {"tensors": tensors}
            names = digest(content)
            packs = {h: part["pack"] for part in parts for h in part["tensors"].values()}
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: not a manifest of a version ({error}); restore it from a backup") from error
        if names != version or whole != plain["hash"] or raw != canonical(plain):
            raise StoreError(f"{path}: content and hashes do not agree; it was changed or damaged: restore it from a backup")
        return {**content, "tensors": dict(sorted(tensors.items())), "packs": packs, "tables": plain["tables"]}

    def table(self, name: str) -> dict[str, Any]:
        """What several manifests have in common: names and hashes of tensors, and the pack that holds these.

        Raises:
            StoreError: it is missing or damaged.
        """
        path = self.table_path(name)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error}); versions need it: restore it from a backup") from error
        if blake3(data).hexdigest() != name:
            raise StoreError(
                f"{path}: its content does not hash to its name; it was changed or damaged: restore it from a backup"
            )
        try:
            return dict(shaped(loads(data), Table))
        except ValueError as error:
            raise StoreError(f"{path}: not a table of tensors ({error}); restore it from a backup") from error

    def write_state(self, version: str, state: Tensors) -> None:
        """Keep what training carries along with a version (a server optimiser's moments, say); another version has none."""
        data = save({n: t.detach().cpu().contiguous() for n, t in state.items()})
        write_atomically(self._state(version), with_hash(data))

    def read_state(self, version: str) -> dict[str, torch.Tensor]:
        """What was kept with exactly this version; empty where nothing was.

        Raises:
            StoreError: the file is damaged.
        """
        path = self._state(version)
        if not HASH.fullmatch(version) or not path.exists():
            return {}
        try:
            return tensors_in(behind_hash(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: not the state of a version ({error}); delete it to train on without it") from error

    def _state(self, version: str) -> Path:
        return self.folder / "carried" / f"{version}.safetensors"

    def write_pack(self, tensors: Tensors) -> str:
        """Write tensors, by their hashes, into one file; its name, which is a hash of theirs."""
        name = pack_name(tensors)
        replace_atomically(self.pack(name), lambda path: save_file(dict(tensors), path))
        return name

    def pack(self, name: str) -> Path:
        """Where a pack lies."""
        return self.folder / "packs" / f"{name}.safetensors"

    def replace_pack(self, version: str, old: str, new: str) -> None:
        """Say anew which pack holds what the old one held of a version, which is the same version all the same."""
        held = self.manifest(version)
        packs = {n: new if held["packs"][h] == old else held["packs"][h] for n, h in held["tensors"].items()}
        own = json.loads(self.manifest_path(version).read_bytes())["pack"]
        content = {k: v for k, v in held.items() if k not in ("packs", "tables")}
        self._write_manifest(version, content, packs, own=new if own == old else own)
        self.look_again()

    def look_again(self) -> None:
        """Packs were erased or written anew: what is remembered of them may be wrong."""
        self._packs = None

    def versions(self) -> tuple[str, ...]:
        """Names of all versions that are here."""
        return tuple(sorted(p.stem for p in (self.folder / "versions").glob("*.json")))

    def manifest_path(self, version: str) -> Path:
        """Where the manifest of a version lies."""
        return self.folder / "versions" / f"{version}.json"

    def table_path(self, name: str) -> Path:
        """Where a table lies."""
        return self.folder / "tables" / f"{name}.json"

    def _known(self) -> dict[str, str]:
        if self._packs is None:
            self._packs = {}
            for version in self.versions():
                with suppress(StoreError):  # a damaged manifest promises nothing; whoever reads that version is told
                    self._packs.update(self.manifest(version)["packs"])
        return self._packs


def unknown_version(version: str, store: Store) -> StoreError:
    """The error for a version that a store does not have."""
    return StoreError(str(unknown(f"version in {store.folder}", version, store.versions())))


@contextmanager
def _opened(pack: Path) -> Iterator[Callable[[str], torch.Tensor]]:
    """Tensors of a pack by their hashes; out of a small file all at once, which is several times as fast as one by one."""
    if pack.stat().st_size <= SMALL:
        yield tensors_in(pack.read_bytes()).__getitem__
        return
    with safe_open(pack, framework="pt") as file:
        yield file.get_tensor
