"""What the store costs: bytes of a star of heirs with one frozen backbone, and writing and reading against plain safetensors.

`bytes_ratio`: all files of the store over the bytes of its distinct tensors, for heirs that differ in the last layer alone;
taken for the smaller head.
`write`: throughput of `Store.write`, which hashes each tensor, over that of `save_file` with the same policy (temporary file,
fsync, rename, fsync of the folder). `read`: of `Store.read`, which checks each hash, over that of `load_file` with every page
touched, both warm. In turn, in one process; the store hashes on up to eight threads, as it always does. Medians of the ratios,
and ratios of the fastest of each (`..._best`), which other work on the machine disturbs least. A result is kept for each
number of cores.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import keep, on_disk, origin
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedunlearn.nets import build, weights_of
from fedunlearn.store import Store
from fedunlearn.store.files import sync_folder
from fedunlearn.tensors import Head

NETS: dict[str, tuple[dict[str, Any], tuple[int, ...], str]] = {
    "resnet18": ({"name": "torchvision", "model": "resnet18"}, (3, 224, 224), "fc"),
    "mlp": ({"name": "mlp", "hidden": 256}, (3, 16, 16), "head"),
}
SIZES = {"test": ("mlp", (10,), 5, 3), "cpu": ("resnet18", (1000, 10), 1000, 31)}  # net, outputs, heirs, repeats


def weights(net: str, outputs: int) -> tuple[dict[str, Tensor], Head]:
    spec, shape, layer = NETS[net]
    torch.manual_seed(0)
    return dict(weights_of(build(spec, shape, outputs))), Head(layer, tuple(map(str, range(outputs))))


def star(net: str, outputs: int, heirs: int, folder: Path) -> dict[str, Any]:
    """One store with a parent and its heirs."""
    base, head = weights(net, outputs)
    store, last = Store(folder), [n for n in base if n.startswith(f"{head.layer}.")]
    chance = torch.Generator().manual_seed(1)
    distinct = size(base)
    store.write(base, head)
    for number in range(heirs):
        own = {n: torch.randn(base[n].shape, generator=chance) for n in last}
        store.write({**base, **own}, head)
        distinct += size(own)
        if number % 100 == 99:
            print(f"{net} {outputs}: {number + 1} heirs", file=sys.stderr, flush=True)
    held = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    manifests = sum(p.stat().st_size for p in (folder / "versions").iterdir())
    return {
        "heirs": heirs,
        "distinct": distinct,
        "bytes": held,
        "manifests": manifests,
        "bytes_ratio": round(held / distinct, 4),
    }


def size(tensors: dict[str, Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors.values())


def plainly(tensors: dict[str, Tensor], path: Path) -> None:
    """`save_file` with the store's policy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".writing")
    save_file(tensors, temporary)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def touched(path: Path) -> int:
    """`load_file`, and a byte of every page."""
    return sum(int(t.reshape(-1).view(torch.uint8)[::4096].sum()) for t in load_file(path).values())


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def speed(net: str, outputs: int, repeats: int, folder: Path) -> dict[str, Any]:
    held, head = weights(net, outputs)
    writes: list[tuple[float, float]] = []
    reads: list[tuple[float, float]] = []
    store, path = Store(folder / "read"), folder / "read.safetensors"
    version = store.write(held, head)
    plainly(held, path)
    for number in range(repeats + 1):
        a, b = folder / f"plain-{number}", folder / f"store-{number}"
        writes.append((seconds(partial(plainly, held, a / "all.safetensors")), seconds(partial(Store(b).write, held, head))))
        reads.append((seconds(partial(touched, path)), seconds(partial(store.read, version))))
        shutil.rmtree(a)
        shutil.rmtree(b)
    found: dict[str, Any] = {"bytes": size(held)}
    for what, pairs in (("write", writes[1:]), ("read", reads[1:])):  # the first of each warms up
        ratios = sorted(round(plain / ours, 3) for plain, ours in pairs)
        found |= {what: statistics.median(ratios), f"{what}_ratios": ratios}
        found[f"{what}_best"] = round(min(plain for plain, _ in pairs) / min(ours for _, ours in pairs), 3)
        found[f"{what}_mb_s"] = round(size(held) / statistics.median(ours for _, ours in pairs) / 1e6, 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(SIZES), default="cpu", help="test: a small net, five heirs")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write", action="store_true", help="keep the result under results/")
    parser.add_argument("--heirs", type=int, help="of the star")
    parser.add_argument("--repeats", type=int)
    args = parser.parse_args()
    torch.set_num_threads(1)
    net, heads, heirs, repeats = SIZES[args.size]
    heirs, repeats = args.heirs or heirs, args.repeats or repeats
    rows = []
    for outputs in heads:
        with on_disk() as folder:
            rows.append({"net": net, "outputs": outputs, **speed(net, outputs, repeats, Path(folder))})
    with on_disk() as folder:
        rows[-1]["star"] = star(net, heads[-1], heirs, Path(folder) / "star")
    load = round(os.getloadavg()[1], 1)
    result = {"what": __doc__, "size": args.size, "repeats": repeats, "load": load, **origin("torchvision"), "rows": rows}
    if args.write:
        keep(f"bench_store_{args.size}_{os.cpu_count()}_cores", result)  # how fast hashes are taken hangs on it
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print(table(result))


def table(result: dict[str, Any]) -> str:
    """One line a net."""
    lines = [
        "| net, outputs | bytes over distinct tensors | write | fastest | read | fastest | MB/s written | MB/s read |",
        "|---" * 8 + "|",
    ]
    for r in result["rows"]:
        star = f"{r['star']['bytes_ratio']:.3f} ({r['star']['heirs']} heirs)" if "star" in r else "-"
        lines.append(
            f"| {r['net']}, {r['outputs']} | {star} | {r['write']:.2f} | {r['write_best']:.2f} | {r['read']:.2f} "
            f"| {r['read_best']:.2f} | {r['write_mb_s']} | {r['read_mb_s']} |"
        )
    return "\n".join(lines) + f"\n\nLoad of the machine meanwhile: {result['load']}."


if __name__ == "__main__":
    main()
