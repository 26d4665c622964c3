"""What a deployment still holds of what was sealed, byte by byte; a program of its own, as Ray needs a network to itself.

`python -m tests.runtime.remains flower|ray FOLDER` trains, banks, forgets a class and seals in a deployment on loopback, and
prints, as JSON, how many pieces were given up and which files still hold one.
"""

import json
import sys
from collections.abc import Collection, Iterable, Mapping
from contextlib import redirect_stdout
from pathlib import Path

import torch

from fedunlearn.store import Bank, Store
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "docker"))

import loopback

WINDOW = 64  # bytes of a piece that are looked for: a database may cut a longer one into pages
TELLING = 24  # distinct bytes that such a window must have, so that it can be nobody else's


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def stores(folder: Path) -> list[Store]:
    """All stores below a folder."""
    return [Store(p.parent) for p in sorted(folder.rglob("versions")) if p.is_dir()]


def tensors(folder: Path) -> dict[str, bytes]:
    """Every tensor of every version in any store below a folder, by its hash."""
    found = {}
    for store in stores(folder):
        for version in store.versions():
            names, weights = store.manifest(version)["tensors"], store.read(version).weights
            found |= {names[n]: raw(t) for n, t in weights.items()}
    return found


def importances(folder: Path, forgotten: str) -> dict[str, bytes]:
    """What is banked of a class: sums of each shard and of all together, their means, and both as they may travel."""
    sums: dict[tuple[str, str], list[tuple[torch.Tensor, int]]] = {}
    for store in stores(folder):
        bank = Bank(store.folder)
        for what, by_class in map(bank.open, bank.paths()):
            for name, t in by_class[forgotten].sums.items() if forgotten in by_class else ():
                sums.setdefault((what["version"], name), []).append((t, by_class[forgotten].count))
    found = {}
    for (version, name), parts in sums.items():
        whole = (torch.stack([t for t, _ in parts]).sum(0), sum(count for _, count in parts))
        for number, (total, count) in enumerate([*parts, whole]):
            for kind, t in (("sum", total), ("mean", total / max(count, 1))):
                found |= {f"{kind} {number} {version} {name} {d}": raw(t.to(d)) for d in (torch.float64, torch.float32)}
    return found


def telling(pieces: Mapping[str, bytes], kept: Collection[bytes]) -> dict[str, list[bytes]]:
    """Of each piece two parts that say whose they are, and that nothing holds which is kept; an edit leaves most weights."""
    found = {}
    for name, piece in pieces.items():
        parts = (piece[at : at + WINDOW] for at in range(0, len(piece) - WINDOW + 1, WINDOW))
        own = [p for p in parts if len(set(p)) >= TELLING and not any(p in other for other in kept)]
        if own:
            found[name] = [own[0], own[len(own) // 2]]
    return found


def held(folders: Iterable[Path], looked_for: Mapping[str, Collection[bytes]]) -> dict[str, list[str]]:
    """Files below the folders that hold a part of a piece, and of which."""
    found: dict[str, list[str]] = {}
    for path in (p for folder in folders for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink()):
        data = path.read_bytes()
        if names := [name for name, parts in looked_for.items() if any(part in data for part in parts)]:
            found[str(path)] = names
    return found


def story(made: loopback.Parties, *how: object, party: str) -> dict[str, list[bytes]]:
    """Train, bank, forget, seal; what was given up."""
    there = how[:2] if "flower" in how else how
    loopback.fedunlearn(made, "train", ROOT / "docker" / "digits.yaml", "--out", "runs/digits", "--bank", *how, party=party)
    banked = importances(made.folder, "0")
    trained = tensors(made.folder)
    loopback.fedunlearn(made, "unlearn", "runs/digits", "--classes", "0", "--no-reference", *there, party=party)
    loopback.fedunlearn(made, "seal", "runs/digits", "--yes", *there, party=party)
    left = tensors(made.folder)
    gone = {name: piece for name, piece in trained.items() if name not in left} | banked
    return telling(gone, left.values())


def main() -> None:
    what, folder = sys.argv[1], Path(sys.argv[2])
    with redirect_stdout(sys.stderr):
        if what == "flower":
            with loopback.flower(folder) as made:
                gone = story(made, "--backend", "flower", "--federation", loopback.NAME, party="operator")
                before = held([folder], gone)
                made.do("coordinator", "purge")
                found = held([folder], gone)
        else:
            before = {}
            with loopback.ray(folder) as made:
                how = ("--backend", "ray", "--address", made.address, "--sites-in", made.folder)
                gone = story(made, *how, party="coordinator")
                found = held([folder, Path(str(made._commands["head"][2]["RAY_TEMP"]))], gone)
        after = held([folder], gone)
    print(json.dumps({"gone": sorted(gone), "held_before_purge": before, "held": found, "held_when_ended": after}))


if __name__ == "__main__":
    main()
