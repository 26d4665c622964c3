"""What the reproductions of the four papers share: what a paper says, and cells that can be compared with it.

Every number of ours is of held-out rows, unless a request names samples: then it is of those very rows, beside a model that
was trained without them. Seconds are wall clock, on one machine, in one process. Retraining is of the whole family (in these
families all models are affected). Both clocks leave out scoring and evaluation, except for two passes over the test rows in
every edit (the edited and the masked model), which count against unlearning. What is calibrated counts, and so does the time
that evidence is measured in. On one thread (OMP_NUM_THREADS=1, as kept results were made) wall clock is total compute.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import ALL, RESULTS, arguments, finish, within
from grouped import Row
from reproduced import Rows, table

from fedunlearn.cli.console import progress
from fedunlearn.compare import Choice, Subject, compare
from fedunlearn.compare.origin import joined
from fedunlearn.compare.work import Nest, kept
from fedunlearn.errors import unknown
from fedunlearn.lineage import Request, discover
from fedunlearn.runtime import Family, InProcess, score_all
from fedunlearn.scenario import workers

FAMILIES = Path(__file__).parent / "families"
sys.path.append(str(FAMILIES))  # its loaders, as for the topologies that lie there

KEPT = ("cell", "seed", "method", "simulation", "request", "class", "heir", "born", "depth", "target", "holds_class",
        "forgotten_before", "forgotten_after", "retained_before", "retained_after", "mask_retained", "retrained_forgotten",
        "retrained_retained", "rows_forgotten", "rows_retained", "strength", "rule", "status", "why", "unlearn_seconds",
        "retrain_seconds", "measure_seconds", "rows_read", "rows_calibrated", "bytes_up", "rows_again")  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One setting of all factors.

    Args:
        name: says what differs from the centre.
        subject: the topology and requests of a seed.
        choices: the methods.
    """

    name: str
    subject: Callable[[int], Subject]
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Claim:
    """A number or statement of a paper, and what of ours it can be compared with.

    Args:
        says: what it is about.
        value: as published.
        theirs: its data, its net, and on what it was measured.
        metric: one of `METRICS`.
        cell: in which the same is asked, at our scale.
    """

    says: str
    value: str
    theirs: str
    metric: str
    cell: str


@dataclass(frozen=True)
class Paper:
    """What a reproduction is about.

    Args:
        name: of the result.
        claims: what is published.
        switches: what the public code does differently from the paper -> where that is reproduced, or why it is not.
        ours: our data, net and heirs, in words.
        larger: the same, at size gpu.
    """

    name: str
    claims: tuple[Claim, ...]
    switches: Mapping[str, str]
    ours: str
    larger: str = ""


def reproduce(what: str | None, paper: Paper, cells: Mapping[str, Sequence[Cell]]) -> None:
    """The script: read the arguments, run the cells of that size, print, and keep.

    Args:
        what: the script's own text.
        paper: what it is compared with.
        cells: by size.
    """
    args = arguments(what, tuple(cells), parts=True, cells=True)
    if strange := [c for c in args.cells if c not in {cell.name for cell in cells[args.size]}]:
        raise unknown("cell", strange[0], [cell.name for cell in cells[args.size]], where="--cells")
    chosen = [c for c in cells[args.size] if not args.cells or c.name in args.cells]
    seeds = range(1 if args.size == "test" else args.seeds)
    jobs = [(n, cell, seed, cell.subject(seed)) for n, cell in enumerate(chosen, 1) for seed in seeds]
    jobs = args.part.share(jobs, lambda job: (job[3].scenario.name, job[2]))
    work, rows, origins = Path("runs") / paper.name, list[dict[str, Any]](), list[dict[str, Any]]()
    with progress() as say:
        for number, cell, seed, subject in jobs:
            where = f"{cell.name} ({number} of {len(chosen)}): "
            found = compare([subject], cell.choices, [seed], work, progress=within(say, where))
            nest = Nest.of(work, subject.scenario, seed)
            again = {r.id: _rows_again(nest, r) for r in subject.requests}
            made = [r | {"rows_again": again[r["request"]]} for r in clocked(found["rows"], cell.name, subject, nest)]
            rows += [{k: r[k] for k in KEPT} for r in made]
            origins.append({k: found[k] for k in ("versions", "commit", "host")})
    if args.part != ALL:
        return
    name = paper.name + "_gpu" * (args.size == "gpu")
    if args.cells and args.write:
        rows, origins = beside(name, rows, origins, [cell.name for cell in cells[args.size]])
    said = {"published": [asdict(c) for c in paper.claims], "switches": dict(paper.switches)}
    said["ours"] = paper.larger if args.size == "gpu" else paper.ours
    result = {"what": what, "size": args.size, **joined(origins), **said, "rows": rows}
    finish(args, name, result, lambda: table(result))


def beside(name: str, rows: list[Row], origins: list[Row], order: Sequence[str]) -> tuple[list[Row], list[Row]]:
    """Rows of some cells in place of theirs in the result that is kept, in the order of all cells; and where they come from."""
    if not (path := RESULTS / f"{name}.json").exists():
        return rows, origins
    earlier = json.loads(path.read_text())
    fresh = {r["cell"] for r in rows}
    both = [*rows, *(r for r in earlier["rows"] if r["cell"] not in fresh and r["cell"] in order)]
    said = {k: earlier[k] for k in ("versions", "commit", "host")}
    return sorted(both, key=lambda r: order.index(r["cell"])), [*origins, said]


def clocked(rows: Rows, cell: str, subject: Subject, nest: Nest) -> list[dict[str, Any]]:
    """Rows of one cell and seed, with scoring taken out of both clocks (all heirs: once of one, twice of the other)."""
    scoring = {r.id: _scoring(nest, r) for r in subject.requests}
    return [
        {
            **r,
            "cell": cell,
            "unlearn_seconds": _less(r["seconds"], (r["evaluation_seconds"] or 0) + scoring[r["request"]]),
            "retrain_seconds": _less(r["retrain_seconds"], 2 * scoring[r["request"]]),
        }
        for r in rows
    ]


def _less(seconds: float | None, other: float) -> float | None:
    """Seconds without others that were timed by themselves; None where these, under another load, took longer than all."""
    return None if seconds is None or seconds <= other else seconds - other


def _scoring(nest: Nest, request: Request) -> float:
    """Seconds to score every heir once."""

    def once() -> dict[str, Any]:
        family = Family.open(nest.family)
        plan, backend = discover(family.lineage, request), InProcess(workers(nest.scenario, family))
        started = time.perf_counter()
        score_all(family, plan, backend)
        return {"seconds": time.perf_counter() - started}

    return float(kept(nest.folder / "scoring" / nest.before(request, True).name, once)["seconds"])


def _rows_again(nest: Nest, request: Request) -> int:
    """Rows that retraining reads: each model's own but those that are asked for, in every epoch."""
    read = 0
    for model in Family.open(nest.family).lineage.models:
        epochs, _ = nest.scenario.models[model.name.split("/")[0]].settings
        for shard in model.data:
            asked = len(request.shards.get(shard.key, ())) or sum(shard.rows[c] for c in request.touches(shard))
            read += epochs * (sum(shard.rows.values()) - asked)
    return read
