"""How do plans, memory, throughput, store, ledger and reports grow with the number of models?

Families of small nets with trained weights: a federation of ten sites, then increments of one or two parents among the fifty
models before, each at a site. A request for one class reaches every model. What tells of it, its sources, is the root alone in
one kind of family (`root`: increments are at ten sites that lack classes 0 to 4), and every other model in the other (`half`:
classes 0 to 4 are each held at five of the ten sites where all are trained). Requests for one class after another overlap in
all heirs; each goes the whole way (measure, merge, calibrate and edit with FIUn, or `steer` where a line says so, quick
metrics, gate, ledger, homes) in one process, on one thread. Every size has a process of its own. Numbers are of one request,
the mean of all; "grows as" is the exponent between one size and the next: 1 where ten times the models need ten times as much.
Seconds are the processor's, which other work on the host disturbs least; waiting for the disk is not in them. `peak_mb` is what
a process took beyond what it had before its family.

Plans alone, of a million models: `bench_plan.py`.

Would heirs of one net be run better at once? `together`: their forward passes by `torch.vmap` over stacked weights, against one
net after another, in turns, best of some; stacking is part of it, as weights come one by one. The ratio says how many times as
fast all at once are.
"""

import json
import math
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from common import arguments, finish, origin
from torch import Tensor, nn

from fedunlearn import InProcess, Request, unlearn
from fedunlearn.lineage import discover
from fedunlearn.nets import build
from fedunlearn.report import document, page
from fedunlearn.runtime.books.records import FOLDER as RECORDS
from fedunlearn.runtime.tasks import Answer, Apply, Task
from fedunlearn.scenario import train, workers
from fedunlearn.scenario.files import parse

ROOT, HALF, STEER = "root", "half", "root, steer"
SIZES = {  # kinds of families, how many models, requests
    "test": ({ROOT: (5, 10), HALF: (5, 10), STEER: (5,)}, 1),
    "cpu": ({ROOT: (100, 1000, 10_000), HALF: (100, 1000), STEER: (100, 1000)}, 3),
}
KNOWN = 0.5  # of a class; a model that knew less of it says nothing
SITES = [f"site-{i}" for i in range(10)]
BARE = [f"bare-{i}" for i in range(10)]
RECENT = 50
NETS: dict[str, tuple[dict[str, Any], tuple[int, ...], int]] = {  # the net, one input, rows
    "mlp": ({"name": "mlp"}, (8, 8), 200),
    "cnn": ({"name": "cnn"}, (8, 8), 200),
}
TOGETHER = {"test": (("mlp",), 4, 2), "cpu": (tuple(NETS), 30, 5)}  # nets, heirs, runs
WORK = Path("runs/scale")
GROWS = {  # what a size's row has: in words, and how it is written
    "accepted": ("edits accepted, %", "{:.1f}"),
    "left": ("left at the worst heir, %", "{:.1f}"),
    "lost": ("lost at the worst heir, points", "{:.1f}"),
    "plan_s": ("plan, s", "{:.3f}"),
    "seconds": ("whole request, s", "{:.1f}"),
    "away_s": ("of that outside workers, s", "{:.2f}"),
    "apply_per_s": ("edits a second and worker", "{:.1f}"),
    "peak_mb": ("peak memory, MB", "{:.0f}"),
    "trained_bytes": ("store after training, bytes", "{:,.0f}"),
    "store_bytes": ("store, bytes more", "{:,.0f}"),
    "ledger_bytes": ("ledger, bytes more", "{:,.0f}"),
    "record_bytes": ("record, bytes", "{:,.0f}"),
    "report_bytes": ("report, bytes", "{:,.0f}"),
    "report_s": ("report, s", "{:.2f}"),
}


MEASURES = ("accepted", "left", "lost")  # which do not grow


class Clocked(InProcess):
    """All places in this process; how long they were at tasks of each kind, and how many."""

    seconds: dict[type, float]
    tasks: Counter[type]

    def carry(self, tasks: Sequence[Task]) -> list[Answer]:
        """As in this process; a call carries tasks of one kind."""
        began = time.process_time()
        answers = super().carry(tasks)
        for kind in {type(task) for task in tasks}:
            self.seconds[kind] = self.seconds.get(kind, 0.0) + time.process_time() - began
            self.tasks[kind] += len(tasks)
        return answers


def topology(sources: str, models: int) -> dict[str, Any]:
    """The family, as in a YAML."""
    draw, sites = random.Random(0), SITES if sources == HALF else BARE
    born: dict[str, Any] = {
        "m0": {"born": "federated", "clients": SITES, "rounds": 4, "epochs": 5, "lr": 0.2, "home": "server"}
    }
    for i in range(1, models):
        parents = sorted({draw.randrange(max(0, i - RECENT), i) for _ in range(2)})
        site = sites[i % len(sites)]
        born[f"m{i}"] = {"born": "incremental", "from": [f"m{p}" for p in parents], "site": site, "epochs": 1}
    half = {site: [c for c in range(5) if (i + c) % 2] for i, site in enumerate(SITES)}
    without = half if sources == HALF else {"bare-*": list(range(5))}
    data = {"set": "digits", "shards": "iid", "seed": 0, "without": without}
    return {"name": "scale", "seed": 0, "data": data, "net": {"name": "mlp", "hidden": 32}, "models": born}


def family(sources: str, models: int, requests: int) -> dict[str, Any]:
    """One kind and size, from the topology to the last report."""
    torch.set_num_threads(1)
    before, runs = _peak(), list[dict[str, float]]()

    def say(text: str) -> None:
        print(f"  {sources}, {models:,} models: {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        scenario, began = parse(topology(sources, models), "scale"), time.process_time()
        made = train(scenario, Path(folder) / "family")
        trained = {"train_s": time.process_time() - began, "trained_bytes": _bytes(made.folder / "homes")}
        say(f"trained, {trained['train_s']:.0f} s")
        backend = Clocked(workers(scenario, made))
        for number in range(requests):
            runs.append(one(made, Request(classes=(str(number),)), "steer" if sources == STEER else "fiun", backend, say))
    means = {what: sum(run[what] for run in runs) / requests for what in runs[0]}
    return {"sources": sources, "models": models, "requests": requests, **trained, **means, "peak_mb": _peak() - before}


def one(made: Any, request: Request, method: str, backend: Clocked, say: Callable[[str], None]) -> dict[str, float]:
    """One request and its report."""
    backend.seconds, backend.tasks = {}, Counter()
    stored, told, began = _bytes(made.folder / "homes"), made.ledger.path.stat().st_size, time.process_time()
    recorded = _bytes(made.folder / RECORDS)
    plan = discover(made.lineage, request)
    marks = [time.process_time()]
    record = unlearn(made, request, method, backend, progress=say)
    marks.append(time.process_time())
    text = page(document(made, made.ledger.lines[-1], {}))
    marks.append(time.process_time())
    models = record.facts["models"]
    known = [m for m in models if (m["forgotten_before"] or 0) >= KNOWN]
    return {
        "heirs": len(plan.heirs),
        "points": len(plan.points),
        "accepted": 100 * sum(m["status"] == "committed" for m in models) / len(models),
        "left": 100 * max((m["forgotten_after"] for m in known), default=math.nan),
        "lost": 100 * max((m["retained_before"] - m["retained_after"] for m in known), default=math.nan),
        "plan_s": marks[0] - began,
        "seconds": marks[1] - marks[0],
        "away_s": marks[1] - marks[0] - sum(backend.seconds.values()),
        "apply_per_s": backend.tasks[Apply] / backend.seconds[Apply],
        **{f"{kind.__name__.lower()}_s": seconds for kind, seconds in backend.seconds.items()},
        "store_bytes": _bytes(made.folder / "homes") - stored,
        "ledger_bytes": made.ledger.path.stat().st_size - told,
        "record_bytes": _bytes(made.folder / RECORDS) - recorded,
        "report_bytes": len(text.encode()),
        "report_s": marks[2] - marks[1],
    }


def together(name: str, heirs: int, runs: int) -> dict[str, Any]:
    """One net after another against all at once."""
    torch.set_num_threads(1)
    spec, shape, number = NETS[name]
    nets = [build(spec, shape, 10, seed=i).eval() for i in range(heirs)]
    x, base = torch.randn(number, *shape, generator=torch.Generator().manual_seed(0)), nets[0]

    def called(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        out: Tensor = torch.func.functional_call(base, (parameters, buffers), (x,))
        return out

    def after_another() -> Tensor:
        return torch.stack([net(x) for net in nets])

    def at_once() -> Tensor:
        parameters, buffers = torch.func.stack_module_state(list[nn.Module](nets))
        out: Tensor = torch.vmap(called)(parameters, buffers)
        return out

    best = {after_another: math.inf, at_once: math.inf}
    with torch.inference_mode():
        if not torch.allclose(after_another(), at_once(), rtol=1e-3, atol=1e-4):
            raise RuntimeError(f"{name}: stacked nets give other outputs")
        for _ in range(runs):
            for way in best:
                began = time.process_time()
                way()
                best[way] = min(best[way], time.process_time() - began)
    one_s, all_s = best.values()
    return {"net": name, "heirs": heirs, "rows": number, "one_s": one_s, "all_s": all_s, "ratio": one_s / all_s}


def _bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def apart(work: Callable[..., dict[str, Any]], *asked: Any) -> dict[str, Any]:
    """Do it in a process of its own, or take what an earlier run of the same commit did."""
    start = origin()
    kept = WORK / f"{work.__name__}-{'-'.join(map(str, asked))}-{start['commit']}.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    load = os.getloadavg()[0]
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        done = pool.submit(work, *asked).result()
    found = {k: round(v, 4) if isinstance(v, float) else v for k, v in done.items()}
    found["load"] = [round(load, 2), round(os.getloadavg()[0], 2)]
    print(found, file=sys.stderr, flush=True)
    WORK.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found))
    return found


def table(result: dict[str, Any]) -> str:
    """A line for each kind of family and quantity, a column for each size; then what running heirs at once gains."""
    rows = {(row["sources"], row["models"]): row for row in result["rows"]}
    kinds, sizes = (list(dict.fromkeys(key[i] for key in rows)) for i in (0, 1))
    head = ["sources", "a request"]
    for i, size in enumerate(sizes):
        head += [f"{size:,} models"] + [f"to {size:,}: grows as"] * (i > 0)
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for kind in kinds:
        for what, (words, form) in GROWS.items():
            cells = [kind, words]
            for i, size in enumerate(sizes):
                row, smaller = rows.get((kind, size)), rows.get((kind, sizes[i - 1]))
                # At one size no heir knew a class well enough.
                cells.append("-" if row is None or math.isnan(row[what]) else form.format(row[what]))
                if i:
                    grew = f"{_exponent(smaller, row, what):.2f}" if row and smaller and what not in MEASURES else "-"
                    cells.append(grew)
            lines.append(f"| {' | '.join(cells)} |")
    said = "; ".join(f"{t['net']} ({t['heirs']} heirs, {t['rows']} rows) {t['ratio']:.2f}" for t in result["together"])
    loads = ", ".join(f"{kind} {size:,}: {' and '.join(f'{x:.1f}' for x in row['load'])}" for (kind, size), row in rows.items())
    return "\n".join(lines) + f"\n\nHeirs at once, times as fast: {said}. Load of the host before and after each: {loads}."


def _exponent(small: dict[str, Any], large: dict[str, Any], what: str) -> float:
    if min(small[what], large[what]) <= 0:
        return math.nan
    return math.log(large[what] / small[what]) / math.log(large["models"] / small["models"])


def main() -> None:
    args = arguments(__doc__)
    (kinds, requests), (nets, heirs, runs) = SIZES[args.size], TOGETHER[args.size]
    beside = [apart(together, net, heirs, runs) for net in nets]
    rows = [apart(family, kind, models, requests) for kind, sizes in kinds.items() for models in sizes]
    result = {"what": __doc__, "size": args.size, "seed": 0, **origin("networkx"), "rows": rows, "together": beside}
    finish(args, f"scale_{args.size}", result, lambda: table(result))


if __name__ == "__main__":
    main()
