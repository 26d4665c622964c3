"""What does editing many heirs cost beyond reading, editing and writing their weights?

Heirs of one net, every weight their own, evidence at hand: `Apply` for each by a worker in this process, strength given, no
rows to calibrate or score on, then one `Commit`. Against it a loop that reads each heir's file, applies the same rule and
writes the result with torch and safetensors, one file each, as durably (temporary file, fsync, rename, fsync of the folder).
"all": FIUn on all layers, so that nearly every tensor is new; "last": on the head, where the store keeps the rest once and
the loop writes it again. In turns of some heirs, in one process, on one thread. `ratio`: of all turns and the commit to all of
the loop's; `turns`: its quartiles over turns. Both must give the same weights. `cpu_ratio`: of processor time alone, which
other work on the host disturbs less.

With calibration, on two workers against one: `bench_runtime.py`.
"""

import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bench_store import plainly
from common import arguments, finish, on_disk, origin
from safetensors.torch import load_file
from torch import Tensor

from fedunlearn.data import SiteData
from fedunlearn.evaluation import Scores
from fedunlearn.methods import Evidence
from fedunlearn.nets import build, head_of, weights_of
from fedunlearn.runtime import InProcess, Worker
from fedunlearn.runtime.backend import ask
from fedunlearn.runtime.tasks import Applied, Apply, Commit, Committed, Question
from fedunlearn.store import Store
from fedunlearn.tensors import Tensors, equal, names_in

CLASSES = tuple(map(str, range(10)))
FORGET = CLASSES[:1]
ALPHA, LAM = 1.0, 1.0  # of random evidence, half of the weights are selected
NETS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "mlp": ({"name": "mlp", "hidden": 16}, (64,)),
    "resnet20": ({"name": "resnet_cifar"}, (3, 32, 32)),
}
SIZES = {"test": ("mlp", 6, 2), "cpu": ("resnet20", 1000, 20)}  # net, heirs, heirs a turn
LAYERS = ("all", "last")


@dataclass
class Clock:
    """Wall and processor seconds spent in `with` blocks, summed."""

    wall: float = 0.0
    cpu: float = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]


class Heirs:
    """The same models in a store and as plain files, with evidence about each.

    Args:
        folder: made here: `store/`, `plain/`.
        net: of `NETS`.
        number: how many.
    """

    def __init__(self, folder: Path, net: str, number: int) -> None:
        self.folder, self.net, self.number = folder, net, number
        spec, shape = NETS[net]
        self.worker = Worker("home", Store(folder / "store"), SiteData("home", {}, {}), lambda n, *_: build(spec, shape, n))
        base, chance = build(spec, shape, len(CLASSES), seed=0), torch.Generator().manual_seed(0)
        self.head, weights = head_of(base, CLASSES), weights_of(base)
        self.shapes = {n: p.shape for n, p in base.named_parameters()}
        self.evidence, self.own = (
            {n: torch.rand(s, generator=chance, dtype=torch.float64) for n, s in self.shapes.items()} for _ in range(2)
        )
        self.versions: list[str] = []
        for i in range(number):
            noise = {n: 0.01 * torch.randn(s, generator=chance) for n, s in self.shapes.items()}
            heir = {n: t + noise[n] if n in noise else t for n, t in weights.items()}
            self.versions.append(self.worker.store.write(heir, self.head))
            plainly(heir, self.plain(i))
            if i % 100 == 99:
                print(f"  {net}: {i + 1} heirs made", file=sys.stderr, flush=True)

    def plain(self, heir: int) -> Path:
        return self.folder / "plain" / f"{heir}.safetensors"

    def edited(self, heir: int) -> Path:
        return self.folder / "edited" / f"{heir}.safetensors"

    def ours(self, heirs: Sequence[int], layers: str) -> list[str]:
        """Candidates, by the library."""
        names = names_in(layers, self.shapes, self.head)
        evidence, own = ({n: of[n] for n in names} for of in (self.evidence, self.own))
        settings = {"alpha": ALPHA, "lam": LAM, "layers": layers}
        nothing = Scores(None, None, 0, 0)
        tasks = [
            Apply("home", self.versions[i], "fiun", settings, (Evidence(evidence, 100),), Evidence(own, 1000), (),
                  Question(FORGET), nothing, None, (0.05, 0.05))
            for i in heirs
        ]  # fmt: skip
        return [a.version for a in ask(InProcess({"home": self.worker}), tasks, Applied)]

    def commit(self, made: Sequence[str]) -> None:
        heads = {f"heir-{i}": version for i, version in enumerate(made)}
        ask(InProcess({"home": self.worker}), [Commit("home", heads, {}, ("0" * 64,))], Committed)

    def loop(self, heirs: Sequence[int], layers: str) -> None:
        """The same by a plain loop."""
        names = names_in(layers, self.shapes, self.head)
        for i in heirs:
            plainly(rule(load_file(self.plain(i)), names, self.evidence, self.own), self.edited(i))


def rule(weights: dict[str, Tensor], names: Sequence[str], evidence: Tensors, own: Tensors) -> dict[str, Tensor]:
    """SSD's, in place of what was read."""
    for name in names:
        w, m, f = weights[name], evidence[name], own[name]
        weights[name] = torch.where(m > ALPHA * f, w * (LAM * f / m).clamp(max=1.0), w).to(w.dtype)
    return weights


def measure(heirs: Heirs, layers: str, turn: int) -> dict[str, Any]:
    """All heirs, by both, in turns."""
    made, ours, loop, turns = list[str](), Clock(), Clock(), list[float]()
    for first in range(0, heirs.number, turn):
        some, before = range(first, min(first + turn, heirs.number)), (ours.wall, loop.wall)
        with ours:
            made += heirs.ours(some, layers)
        with loop:
            heirs.loop(some, layers)
        turns.append((ours.wall - before[0]) / (loop.wall - before[1]))
        print(
            f"  {layers}, {some.stop} heirs: {turns[-1]:.2f}, in all {ours.wall / loop.wall:.2f}", file=sys.stderr, flush=True
        )
    with ours:
        heirs.commit(made)
    for i in (0, heirs.number - 1):
        if not equal(heirs.worker.store.read(made[i]).weights, load_file(heirs.edited(i))):
            raise RuntimeError(f"heir {i}, layers {layers}: the library and the loop made different weights")
    found = {
        "ratio": ours.wall / loop.wall, "cpu_ratio": ours.cpu / loop.cpu,
        "ours_ms": 1000 * ours.wall / heirs.number, "loop_ms": 1000 * loop.wall / heirs.number,
    }  # fmt: skip
    rounded = {what: round(number, 3) for what, number in found.items()}
    quartiles = [round(q, 3) for q in statistics.quantiles(turns, n=4)]
    return {"net": heirs.net, "heirs": heirs.number, "layers": layers, **rounded, "turns": quartiles}


def table(result: dict[str, Any]) -> str:
    """One line for what is edited."""
    columns = ("net", "heirs", "layers edited", "ours, ms a heir", "loop, ms a heir", "ratio", "quartiles", "of processor time")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for r in result["rows"]:
        turns = ", ".join(f"{q:.2f}" for q in r["turns"])
        times = f"{r['ours_ms']:.1f} | {r['loop_ms']:.1f} | {r['ratio']:.2f} | {turns} | {r['cpu_ratio']:.2f}"
        lines.append(f"| {r['net']} | {r['heirs']:,} | {r['layers']} | {times} |")
    return "\n".join(lines) + f"\n\nLoad of the host before and after: {' and '.join(f'{one:.1f}' for one in result['load'])}."


def main() -> None:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    load, (net, number, turn) = [os.getloadavg()[0]], SIZES[args.size]
    with on_disk() as folder:
        heirs = Heirs(Path(folder), net, number)
        rows = [measure(heirs, layers, turn) for layers in LAYERS]
    load = [round(one, 2) for one in (*load, os.getloadavg()[0])]
    result = {"what": __doc__, "size": args.size, "seed": 0, **origin("safetensors"), "load": load, "rows": rows}
    finish(args, f"bench_apply_{args.size}", result, lambda: table(result))


if __name__ == "__main__":
    main()
