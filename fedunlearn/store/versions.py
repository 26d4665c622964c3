"""Versions of models: manifests of tensors by content. Nothing is ever overwritten; a new version is a new name."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from fedunlearn.errors import ShapeError, StoreError, unknown
from fedunlearn.store.files import write_atomically
from fedunlearn.tensors import Head, Tensors

FORMAT = 1


@dataclass(frozen=True)
class Version:
    """A version read back: its name (a hash of its content), its weights, what its outputs are called, and its architecture."""

    name: str
    weights: dict[str, torch.Tensor]
    head: Head
    net: str = ""


class Store:
    """Versions in a folder: `packs/` of tensors, `versions/` of manifests.

    Args:
        folder: made when the first version is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._packs: dict[str, str] | None = None  # tensor hash -> the pack that holds it

    def write(self, weights: Tensors, head: Head, net: str = "") -> str:
        """Keep a version and read it back; tensors that some version already has are not written again.

        Args:
            weights: parameters and buffers.
            head: the names of its outputs.
            net: which of the family's architectures it has; empty for the family's own.

        Returns:
            The version's name: the same content has the same name, wherever it is written.

        Raises:
            ShapeError: a weight is NaN or infinite.
        """
        for name, tensor in weights.items():
            if tensor.is_floating_point() and not _finite(tensor):
                raise ShapeError(f"weights of {name!r} are NaN or infinite; such a version is not kept")
        hashes = {name: hash_of(tensor) for name, tensor in sorted(weights.items())}
        content = {"format": FORMAT, "head": {"layer": head.layer, "classes": list(head.classes)}, "tensors": hashes}
        if net:
            content["net"] = net
        version = blake3(_canonical(content)).hexdigest()
        self._write(version, content, weights, self._known())
        try:
            self.read(version)
        except StoreError:  # a pack that was trusted to hold some of it is damaged or gone: write all of it again
            self._write(version, content, weights, {})
            self.read(version)
        return version

    def _write(self, version: str, content: dict[str, Any], weights: Tensors, known: dict[str, str]) -> None:
        new = {h: weights[n].detach().cpu().contiguous() for n, h in content["tensors"].items() if h not in known}
        if new:
            pack = self.write_pack(new)
            known.update(dict.fromkeys(new, pack))
            self._known().update(known)
        manifest = {**content, "packs": {h: known[h] for h in sorted(set(content["tensors"].values()))}}
        data, path = _canonical({**manifest, "hash": blake3(_canonical(manifest)).hexdigest()}), self.manifest_path(version)
        if not path.exists() or path.read_bytes() != data:
            write_atomically(path, data)

    def read(self, version: str) -> Version:
        """Read a version and check every hash.

        Raises:
            StoreError: it is missing, damaged, or not ours.
        """
        manifest = self.manifest(version)
        parts: dict[str, list[tuple[str, str]]] = {}
        for name, content in manifest["tensors"].items():
            parts.setdefault(manifest["packs"][content], []).append((name, content))
        found: dict[str, torch.Tensor] = {}
        for pack, named in parts.items():
            found |= self._tensors(version, self.pack(pack), named)
        weights = {name: found[name] for name in manifest["tensors"]}
        head = manifest["head"]
        return Version(version, weights, Head(head["layer"], tuple(head["classes"])), manifest.get("net", ""))

    def _tensors(self, version: str, path: Path, named: Sequence[tuple[str, str]]) -> dict[str, torch.Tensor]:
        """What a version needs of one pack: tensors by parameter name, each checked against its hash."""
        found: dict[str, torch.Tensor] = {}
        name = ""
        try:
            with safe_open(path, framework="pt") as pack:
                for name, content in named:
                    tensor = found[name] = pack.get_tensor(content)
                    if hash_of(tensor) != content:
                        raise StoreError(
                            f"{path}: content of {name!r} is not what version {version[:12]} recorded; the file was "
                            f"changed or damaged: restore it from a backup"
                        )
        except (OSError, SafetensorError) as error:
            raise StoreError(
                f"{path}: cannot be read ({error}); version {version[:12]} needs it for {name or named[0][0]!r}: "
                f"restore the file from a backup"
            ) from error
        return found

    def manifest(self, version: str) -> dict[str, Any]:
        """The manifest of a version, its content checked against its name.

        Raises:
            StoreError: it is missing, damaged, or not ours.
        """
        path = self.manifest_path(version)
        if not path.exists():
            raise unknown_version(version, self)
        try:
            manifest: dict[str, Any] = json.loads(path.read_bytes())
            if manifest["format"] != FORMAT:
                raise StoreError(f"{path}: format {manifest['format']}, this fedunlearn reads {FORMAT}")
            content = {k: manifest[k] for k in ("format", "head", "net", "tensors") if k != "net" or k in manifest}
            names = blake3(_canonical(content)).hexdigest()
            whole = blake3(_canonical({**content, "packs": manifest["packs"]})).hexdigest()
            intact = names == version and whole == manifest["hash"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: not a manifest of a version ({error}); restore it from a backup") from error
        if not intact:
            raise StoreError(f"{path}: content and hashes do not agree; it was changed or damaged: restore it from a backup")
        return manifest

    def write_state(self, version: str, state: Tensors) -> None:
        """Keep what training carries along with a version (a server optimiser's moments, say); another version has none."""
        data = save({n: t.detach().cpu().contiguous() for n, t in state.items()})
        write_atomically(self._state(version), blake3(data).digest() + data)

    def read_state(self, version: str) -> dict[str, torch.Tensor]:
        """What was kept with exactly this version; empty where nothing was.

        Raises:
            StoreError: the file is damaged.
        """
        path = self._state(version)
        if not path.exists():
            return {}
        raw = path.read_bytes()
        try:
            if blake3(raw[32:]).digest() != raw[:32]:
                raise ValueError("content and hash do not agree")
            return load(raw[32:])
        except (ValueError, SafetensorError) as error:
            raise StoreError(f"{path}: not the state of a version ({error}); delete it to train on without it") from error

    def _state(self, version: str) -> Path:
        return self.folder / "carried" / f"{version}.safetensors"

    def write_pack(self, tensors: Tensors) -> str:
        """Write tensors, by their hashes, into one file; its name."""
        data = save(dict(tensors))
        pack = blake3(data).hexdigest()
        write_atomically(self.pack(pack), data)
        return pack

    def pack(self, name: str) -> Path:
        """Where a pack lies."""
        return self.folder / "packs" / f"{name}.safetensors"

    def replace_packs(self, version: str, packs: Mapping[str, str]) -> None:
        """Say anew which packs hold the tensors of a version, which is the same version all the same."""
        manifest = {k: v for k, v in self.manifest(version).items() if k != "hash"} | {"packs": dict(packs)}
        write_atomically(
            self.manifest_path(version), _canonical({**manifest, "hash": blake3(_canonical(manifest)).hexdigest()})
        )
        self._packs = None

    def versions(self) -> tuple[str, ...]:
        """Names of all versions that are here."""
        return tuple(sorted(p.stem for p in (self.folder / "versions").glob("*.json")))

    def manifest_path(self, version: str) -> Path:
        """Where the manifest of a version lies."""
        return self.folder / "versions" / f"{version}.json"

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


def _finite(tensor: torch.Tensor) -> bool:
    """By the sum, which is many times as fast; a sum of finite numbers may be infinite, then each is looked at."""
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def hash_of(tensor: torch.Tensor) -> str:
    """A tensor's name, from its content."""
    plain = tensor.detach().cpu().contiguous()
    found = blake3(f"{plain.dtype}|{tuple(plain.shape)}|".encode())
    return found.update(plain.reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def _canonical(plain: Mapping[str, Any]) -> bytes:
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()
