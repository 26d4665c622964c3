"""What does planning cost? `discover` on a large lineage against its graph and bare breadth-first search by networkx.

Every model but the roots has two parents and rows of another class; a request asks for the class that only the roots hold.
"recent": parents are drawn from the thousand models before (or as many as there are roots), as in a family that is trained on
and on; "any": from all before, so that heirs differ in which of many roots they descend from; "federation": a hundredth of the
roots are clients that train a global model for a hundred rounds, every model is kept, others are born from recent ones. Both
clocks start at the list of models: ours checks it, finds the heirs and plans evidence for each; networkx builds a `DiGraph` and
walks it from the roots. In turns, each in a process of its own that was forked after the list was made; the best of two. Peak
memory is the process's, the list included.
"""

import gc
import multiprocessing
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import networkx as nx
from common import arguments, finish, origin

from fedunlearn.lineage import Lineage, Model, Request, Shard, discover

SIZES = {  # models, roots, how parents are drawn, repeats
    "test": [(2_000, 1, "recent", 1), (2_000, 16, "any", 1), (2_000, 500, "federation", 1)],
    "cpu": [
        (1_000_000, 1, "recent", 2),
        (1_000_000, 64, "recent", 2),
        (1_000_000, 64, "any", 2),
        (1_000_000, 10_000, "recent", 1),
        (20_000, 10_000, "federation", 2),
    ],
}
HEAD = tuple(map(str, range(10)))
RECENT = 1_000
PLACES = 100
ROUNDS = 100


def lineage(models: int, roots: int, drawn: str) -> tuple[Model, ...]:
    """Roots first, then models of two parents each."""
    draw = random.Random(0)
    entered = _rounds(roots) if drawn == "federation" else [_root(i) for i in range(roots)]
    rest = []
    for i in range(len(entered), models):
        first = 0 if drawn == "any" else max(0, i - max(RECENT, roots))
        parents = {draw.randrange(first, i), draw.randrange(first, i)}
        rest.append(Model(f"m{i}", f"p{i % PLACES}", "incremental", HEAD, tuple(f"m{p}" for p in parents), (_rows(i, "1"),)))
    return (*entered, *rest)


def _rounds(roots: int) -> list[Model]:
    """Every client of a round starts from the global model, the average of those before."""
    clients, found, shared = roots // ROUNDS, list[Model](), tuple[str, ...]()
    for _ in range(ROUNDS):
        trained = [_root(i, shared) for i in range(len(found), len(found) + clients)]
        average = Model(f"m{len(found) + clients}", "server", "federated", HEAD, tuple(m.name for m in trained))
        found, shared = [*found, *trained, average], (average.name,)
    return found


def _root(number: int, parents: tuple[str, ...] = ()) -> Model:
    return Model(f"m{number}", f"p{number % PLACES}", "federated", HEAD, parents, (_rows(number, "0"),))


def _rows(number: int, of: str) -> Shard:
    return Shard(f"p{number % PLACES}", "main", {of: 5})


def ours(models: Sequence[Model], _: Sequence[str]) -> int:
    return len(discover(Lineage(tuple(models)), Request(classes=("0",))).heirs)


def bare(models: Sequence[Model], roots: Sequence[str]) -> int:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(m.name for m in models)
    graph.add_edges_from((p, m.name) for m in models for p in m.parents)
    return sum(map(len, nx.bfs_layers(graph, roots)))


RIVALS: dict[str, Callable[[Sequence[Model], Sequence[str]], int]] = {"fedunlearn": ours, "networkx": bare}


def forked(rival: str, models: Sequence[Model], roots: Sequence[str]) -> dict[str, Any]:
    """Seconds, peak MB and heirs of one run, in a process of its own."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def work() -> None:
        started = time.perf_counter()
        heirs = RIVALS[rival](models, roots)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        there.send({"seconds": seconds, "peak_mb": peak, "heirs": heirs})

    child = context.Process(target=work)
    child.start()
    there.close()
    try:
        found: dict[str, Any] = here.recv()
    except EOFError:
        raise SystemExit(f"{rival}: ended without an answer (out of memory?)") from None
    child.join()
    return found


def measure(number: int, roots: int, drawn: str, repeats: int) -> list[dict[str, Any]]:
    models = lineage(number, roots, drawn)
    edges = sum(len(m.parents) for m in models)
    entered = [m.name for m in models if any("0" in s.rows for s in m.data)]
    gc.collect()
    gc.freeze()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in RIVALS}
    for _ in range(repeats):
        for name in RIVALS:
            runs[name].append(forked(name, models, entered))
            print(f"  {number:,} models, {roots:,} roots, {drawn}: {name} {runs[name][-1]}", file=sys.stderr)
    gc.unfreeze()
    best = {name: min(r["seconds"] for r in of) for name, of in runs.items()}
    peak = {name: min(r["peak_mb"] for r in of) for name, of in runs.items()}
    same = {"models": number, "edges": edges, "roots": roots, "drawn": drawn}
    return [
        {**same, "who": name, "heirs": runs[name][0]["heirs"], "seconds": round(best[name], 3), "peak_mb": round(peak[name], 1),
         "all_seconds": [round(r["seconds"], 3) for r in runs[name]]}
        for name in RIVALS
    ]  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """One line a lineage."""
    columns = ("models", "edges", "roots", "parents", "plan, s", "networkx, s", "ratio", "plan, MB", "networkx, MB", "ratio")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    rows = {(r["models"], r["roots"], r["drawn"], r["who"]): r for r in result["rows"]}
    for models, roots, drawn in dict.fromkeys(k[:3] for k in rows):
        we, they = (rows[models, roots, drawn, who] for who in RIVALS)
        size = f"{models:,} | {we['edges']:,} | {roots:,} | {drawn}"
        clocks = f"{we['seconds']:.1f} | {they['seconds']:.1f} | {we['seconds'] / they['seconds']:.2f}"
        memory = f"{we['peak_mb']:,.0f} | {they['peak_mb']:,.0f} | {we['peak_mb'] / they['peak_mb']:.2f}"
        lines.append(f"| {size} | {clocks} | {memory} |")
    return "\n".join(lines)


def main() -> None:
    args = arguments(__doc__)
    rows = [row for size in SIZES[args.size] for row in measure(*size)]
    result = {"what": __doc__, "size": args.size, **origin("networkx"), "rows": rows}
    finish(args, f"bench_plan_{args.size}", result, lambda: table(result))


if __name__ == "__main__":
    main()
