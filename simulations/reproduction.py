"""What the reproductions of the four papers share: what a paper says, cells that can be compared with it, and their tables.

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

from common import ALL, RESULTS, arguments, finish

from fedunlearn.cli.console import progress
from fedunlearn.compare import Choice, Subject, compare, pooled
from fedunlearn.compare.cells import KNOWN
from fedunlearn.compare.origin import joined
from fedunlearn.compare.run import FAILED
from fedunlearn.compare.work import Nest, kept
from fedunlearn.errors import unknown
from fedunlearn.lineage import Request, discover
from fedunlearn.lineage.plan import NOT_EXPRESSIBLE
from fedunlearn.runtime import Family, InProcess, score_all
from fedunlearn.runtime.record import COMMITTED
from fedunlearn.scenario import workers

Rows = Sequence[Mapping[str, Any]]
FAMILIES = Path(__file__).parent / "families"
sys.path.append(str(FAMILIES))  # its loaders, as for the topologies that lie there

KEPT = ("cell", "seed", "method", "simulation", "request", "class", "heir", "born", "depth", "target", "holds_class",
        "forgotten_before", "forgotten_after", "retained_before", "retained_after", "mask_retained", "retrained_forgotten",
        "retrained_retained", "rows_forgotten", "rows_retained", "strength", "rule", "status", "why", "unlearn_seconds",
        "retrain_seconds", "measure_seconds", "rows_read", "bytes_up", "rows_again")  # fmt: skip
RETRAINED = "retrained"
NOTE = (
    "In %, lost in points; seeds and heirs pooled, the worst heir and class (its seeds pooled) apart. tested: rows of heirs "
    "that knew at least half of what they were to forget; the others are left out. Seconds are of one request, all its heirs, "
    "on one thread, so that they are compute as well; ratio: unlearning over retraining. Rows read: by measuring and editing, "
    "and by retraining in all its epochs. kB: evidence that is sent."
)


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
    work, rows, origins = Path("runs") / paper.name, [], []
    with progress() as say:
        for number, cell, seed, subject in jobs:
            at = f"{cell.name} ({number} of {len(chosen)}): "
            found = compare([subject], cell.choices, [seed], work, progress=lambda text, at=at: say(at + text))
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


def beside(name: str, rows: Rows, origins: Sequence[Mapping[str, Any]], order: Sequence[str]) -> tuple[Rows, Rows]:
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
    return None if seconds is None else seconds - other


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


def counted(rows: Rows) -> list[Mapping[str, Any]]:
    """Rows of heirs that knew at least half of what they are to forget."""
    return [r for r in rows if r["target"] != NOT_EXPRESSIBLE and (r["forgotten_before"] or 0) >= KNOWN]


def left(rows: Rows) -> float | None:
    """What is still recognised, in %."""
    return _percent(pooled(rows, "forgotten_after", "rows_forgotten"))


def rest(rows: Rows) -> float | None:
    """Accuracy on the rest, in %."""
    return _percent(pooled(rows, "retained_after", "rows_retained"))


def lost(rows: Rows) -> float | None:
    """What that cost, in points."""
    before, after = _percent(pooled(rows, "retained_before", "rows_retained")), rest(rows)
    return None if before is None or after is None else before - after


def saved(rows: Rows) -> float | None:
    """How much less time it takes than retraining, in %."""
    ratio = _ratio(rows)
    return None if ratio is None else 100 * (1 - ratio)


def spread(rows: Rows) -> float | None:
    """Between the seed after which most is left and the one after which least is, in points."""
    each = [left([r for r in rows if r["seed"] == s]) for s in dict.fromkeys(r["seed"] for r in rows)]
    known = [v for v in each if v is not None]
    return max(known) - min(known) if len(known) > 1 else None


def worst(rows: Rows) -> float | None:
    """What is left, in %, of the heir and class of which most is; its seeds are pooled."""
    keys = dict.fromkeys((r["heir"], r["request"], r["class"]) for r in rows)
    each = [left([r for r in rows if (r["heir"], r["request"], r["class"]) == key]) for key in keys]
    return max((v for v in each if v is not None), default=None)


def worst_lost(rows: Rows) -> float | None:
    """What that costs, in points, at the heir and for the request that cost most; their seeds are pooled."""
    keys = dict.fromkeys((r["heir"], r["request"]) for r in rows)
    each = [lost([r for r in rows if (r["heir"], r["request"]) == key]) for key in keys]
    return max((v for v in each if v is not None), default=None)


METRICS = {f.__name__: f for f in (left, worst, rest, lost, worst_lost, saved, spread)}


def table(result: Mapping[str, Any], asked: Sequence[str] = ()) -> str:
    """What is published beside ours, then every cell.

    Args:
        result: of a script.
        asked: names of all its cells; those without a row are said not to have been run.
    """
    switches = "\n".join(f"- {what}: {where}" for what, where in result["switches"].items())
    said = f"Ours: {result['ours']}", f"What the public code does otherwise than the paper or than we do:\n\n{switches}"
    return "\n\n".join([claims(result), *said, details(result["rows"], asked), NOTE])


def claims(result: Mapping[str, Any]) -> str:
    """A line for each published number: theirs, and ours by method."""
    lines = [_line(("published", "value", "measured on", "our cell", "ours, on held-out rows")), "|---" * 5 + "|"]
    for claim in result["published"]:
        of = [r for r in result["rows"] if r["cell"] == claim["cell"]]
        found = {m: METRICS[claim["metric"]](counted(_of(of, m))) for m in _methods(of)}
        ours = "; ".join(f"{m}: {_text(v)}" for m, v in found.items()) or "not run"
        lines.append(_line((claim["says"], claim["value"], claim["theirs"], claim["cell"], f"{claim['metric']}: {ours}")))
    return "\n".join(lines)


def details(rows: Rows, asked: Sequence[str] = ()) -> str:
    """A line for each cell and method, seeds and heirs pooled; the worst is that of an heir and class with its seeds pooled."""
    columns = ("cell", "method", "tested", "before", "left", "worst: left", "rest before", "lost", "mask: lost", "accepted",
               "unlearning, s", "of it evidence", "retraining, s", "ratio", "rows read", "by retraining", "kB")  # fmt: skip
    lines = [_line(columns), "|---" * len(columns) + "|"]
    for cell in dict.fromkeys(r["cell"] for r in rows):
        of = [r for r in rows if r["cell"] == cell]
        for method in _methods(of):
            lines.append(_line((cell, method, *_cells(_of(of, method), method))))
    missing = [cell for cell in asked if cell not in {r["cell"] for r in rows}]
    lines += [_line((cell, "not run", *("-" for _ in columns[2:]))) for cell in missing]
    return "\n".join(lines)


def _cells(rows: Rows, method: str) -> tuple[str, ...]:
    some = counted(rows)
    before = _percent(pooled(some, "forgotten_before", "rows_forgotten"))
    known = _percent(pooled(some, "retained_before", "rows_retained"))
    mask = _percent(pooled(some, "mask_retained", "rows_retained"))
    tried = {(r["seed"], r["request"], r["heir"]): r["status"] for r in rows}
    failed = sum(s == FAILED for s in tried.values())
    accepted = f"{sum(s == COMMITTED for s in tried.values())} of {len(tried)}" + f", {failed} failed" * bool(failed)
    spent = [_spent(rows, k) for k in ("unlearn_seconds", "measure_seconds", "retrain_seconds")]
    read, again, sent = (_spent(rows, k) for k in ("rows_read", "rows_again", "bytes_up"))
    return (
        f"{len(some)} of {len(rows)}",
        *map(_text, (before, left(some), worst(some), known, lost(some))),
        _text(None if mask is None or known is None else known - mask),
        "-" if method == RETRAINED else accepted,
        *("-" if s is None else f"{s:.2f}" for s in spent),
        "-" if (ratio := _ratio(rows)) is None else f"{ratio:.3f}",
        *("-" if n is None else f"{n:.0f}" for n in (read, again)),
        "-" if sent is None else f"{sent / 1000:.1f}",
    )


def _methods(rows: Rows) -> list[str]:
    return [*dict.fromkeys(r["method"] for r in rows), *([RETRAINED] if rows else [])]


def _of(rows: Rows, method: str) -> Rows:
    """A method's rows; retraining is read off those of any, as if it were one."""
    if method != RETRAINED:
        return [r for r in rows if r["method"] == method]
    again = dict.fromkeys(("unlearn_seconds", "measure_seconds", "rows_read", "bytes_up", "mask_retained"))
    return [
        {**r, **again, "forgotten_after": r["retrained_forgotten"], "retained_after": r["retrained_retained"]}
        for r in rows
        if r["method"] == rows[0]["method"]
    ]


def _spent(rows: Rows, clock: str) -> float | None:
    """Mean of a request of a seed, all its heirs; of rows from before a clock was read, none."""
    each = {(r["seed"], r["request"]): r[clock] for r in rows if r.get(clock) is not None}
    return sum(each.values()) / len(each) if each else None


def _ratio(rows: Rows) -> float | None:
    ours, again = (_spent(rows, k) for k in ("unlearn_seconds", "retrain_seconds"))
    return ours / again if ours is not None and again else None


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _text(number: float | None) -> str:
    return "-" if number is None else f"{number:.1f}"


def _line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"
