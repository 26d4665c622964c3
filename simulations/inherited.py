"""How far does what a model inherits reach, and what makes every heir forget it?

Families of `families/*.yaml`, seed by seed: every kept model before and after unlearning and as retrained without the class,
on held-out rows. A model counts as a test of inheritance when it was trained directly on no row of the class and recognised at
least half of it before; deeper heirs that had lost it are shown, but not counted. Seconds are wall clock, with scoring and
evaluation taken out of both clocks, as in `reproduction.py`; measuring evidence counts.
"""

import argparse
import json
import os
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import ALL, keep, splits
from reproduced import Rows
from reproduction import clocked

from fedunlearn.cli.console import progress
from fedunlearn.compare import Choice, Subject, compare, pooled
from fedunlearn.compare.origin import joined
from fedunlearn.compare.work import Nest
from fedunlearn.methods import make
from fedunlearn.scenario import load
from fedunlearn.scores import KNOWN

FAMILIES = Path(__file__).parent / "families"
TOPOLOGIES = Path(__file__).parent.parent / "topologies"
KEPT = ("seed", "method", "born", "target", "forgotten_before", "forgotten_after", "retained_before", "retained_after",
        "mask_retained", "retrained_forgotten", "retrained_retained", "rows_forgotten", "rows_retained", "strength", "status",
        "depth", "train_seconds", "retrain_seconds", "unlearn_seconds")  # fmt: skip


def as_kept(row: dict[str, Any], family: str, layers: str) -> dict[str, Any]:
    """A row of a comparison, as results keep it."""
    counted = row["depth"] > 0 and row["target"] == "absent" and (row["forgotten_before"] or 0) >= KNOWN
    named = {"family": family, "layers": layers, "name": row["heir"], "counted": counted}
    return {k: row[k] for k in KEPT} | named


def table(rows: Rows) -> str:
    """Seeds pooled, in %, a line an heir; models that cannot name the class share a line, a last line tells of the family."""
    columns = ("family", "method", "model", "depth", "before", "left", "retrained", "rest before", "lost", "mask: lost",
               "retrained: rest", "accepted", "counted")  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for family, method in dict.fromkeys((r["family"], _method(r)) for r in rows):
        of = [r for r in rows if (r["family"], _method(r)) == (family, method)]
        for key in dict.fromkeys(_group(r) for r in of):
            lines.append(f"| {family} | {method} | {' | '.join(_cells(key, [r for r in of if _group(r) == key]))} |")
        lines.append(f"| {family} | {method} | *{_summary(of)}* |" + " |" * (len(columns) - 3))
    return "\n".join(lines)


def clocks(rows: Rows) -> str:
    """What unlearning takes of the time that retraining takes, a line a family: medians of its seeds, of ratios, too."""
    methods = list(dict.fromkeys(_method(r) for r in rows))
    columns = ("family", "models", "seeds", "training, s", "retraining, s", *(f"{m}, s" for m in methods),
               *(f"{m}: ratio" for m in methods))  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for family in dict.fromkeys(r["family"] for r in rows):
        of = [r for r in rows if r["family"] == family]
        train, again = (_seconds(of, f"{what}_seconds") for what in ("train", "retrain"))
        spent = [_seconds([r for r in of if _method(r) == m], "unlearn_seconds") for m in methods]
        models, seeds = (len({r[k] for r in of}) for k in ("name", "seed"))
        ratios = [[s / again[seed] for seed, s in each.items() if seed in again] for each in spent]
        seconds = (_middle(each.values(), ".1f") for each in (train, again, *spent))
        shown = (family, models, seeds, *seconds, *(_middle(each, ".3f") for each in ratios))
        lines.append(f"| {' | '.join(map(str, shown))} |")
    return "\n".join(lines)


def _seconds(rows: Rows, clock: str) -> dict[int, float]:
    """Of each seed that has any: where scoring, timed by itself, took longer than all with it, there are none."""
    return {r["seed"]: r[clock] for r in rows if r[clock] is not None and r[clock] > 0}


def _middle(values: Iterable[float], form: str) -> str:
    found = list(values)
    return format(median(found), form) if found else "-"


def _summary(rows: Rows) -> str:
    """Seeds, and how deep the class is known."""
    known = {}
    for depth in sorted({r["depth"] for r in rows if r["target"] == "absent"} - {0}):
        known[depth] = _pooled(
            [r for r in rows if r["depth"] == depth and r["target"] == "absent"], "forgotten_before", "rows_forgotten"
        )
    lost = [d for d, share in known.items() if share is not None and share < 100 * KNOWN]
    where = f"from depth {lost[0]} on less than half of it is known" if lost else "more than half of it is known at every depth"
    seeds = {r["seed"] for r in rows}
    return f"{len(seeds)} seed{'s' * (len(seeds) > 1)}; {where if known else 'nobody inherits it'}"


def _method(row: dict[str, Any]) -> str:
    return str(row.get("method", "fiun"))  # results from before there was another name none


def _group(row: dict[str, Any]) -> str:
    return row["name"] if row["target"] == "absent" else f"{row['name'].rsplit('-', 1)[0]} (no output for it)"


def _cells(key: str, cell: Rows) -> list[str]:
    def lost(what: str) -> str:
        before, after = (_pooled(cell, w, "rows_retained") for w in ("retained_before", what))
        return "-" if before is None or after is None else f"{before - after:.1f}"

    found = [_pooled(cell, w, "rows_forgotten") for w in ("forgotten_before", "forgotten_after", "retrained_forgotten")]
    rest = [_pooled(cell, w, "rows_retained") for w in ("retained_before", "retrained_retained")]
    text = ["-" if v is None else f"{v:.1f}" for v in (*found, *rest)]
    accepted = f"{sum(r['status'] == 'committed' for r in cell)} of {len(cell)}"
    counted = f"{sum(r['counted'] for r in cell)} of {len(cell)}"
    return [key, str(cell[0]["depth"]), *text[:4], lost("retained_after"), lost("mask_retained"), text[4], accepted, counted]


def _pooled(rows: Rows, what: str, weight: str) -> float | None:
    found = pooled(rows, what, weight)
    return None if found is None else 100 * found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "families", nargs="*", help="names of files in families/ (or topologies/); by default all that the data allows"
    )
    parser.add_argument("--size", choices=("test", "cpu"), default="cpu", help="test: topologies/mixed.yaml, one seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default="fiun,steer", help="names of methods, with commas")
    parser.add_argument("--layers", default="last", help="which layers they edit")
    parser.add_argument("--data", help="folder of data sets; FEDUNLEARN_DATA by default")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/inherited"), help="where families are kept; a second run goes on there"
    )
    parser.add_argument("--no-retrained", action="store_true", help="do not retrain families without the class")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--write", action="store_true", help="keep each family's result under results/")
    splits(parser)
    args = parser.parse_args()
    if args.data:
        os.environ["FEDUNLEARN_DATA"] = str(Path(args.data).resolve())
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    names = args.families or (["mixed"] if args.size == "test" else sorted(p.stem for p in FAMILIES.glob("*.yaml")))
    choices = [Choice(name, make(name, {"layers": args.layers})) for name in args.methods.split(",")]
    seeds = range(1 if args.size == "test" else args.seeds)
    rows, origins = [], []
    topologies = {name: load((TOPOLOGIES if args.size == "test" else FAMILIES) / f"{name}.yaml") for name in names}
    if args.part != ALL:
        for name, seed in args.part.share([(name, seed) for name in names for seed in seeds], lambda job: job):
            with progress() as say:
                compare([Subject.of(topologies[name])], choices, [seed], args.work, not args.no_retrained, progress=say)
        return
    for name, scenario in topologies.items():
        subject = Subject.of(scenario)
        with progress() as say:
            found = compare([subject], choices, seeds, args.work, not args.no_retrained, progress=say)
        of = {seed: [row for row in found["rows"] if row["seed"] == seed] for seed in seeds}
        timed = [row for seed, some in of.items() for row in clocked(some, name, subject, Nest.of(args.work, scenario, seed))]
        made = [as_kept(row, name, args.layers) for row in timed]
        origins.append({k: found[k] for k in ("versions", "commit", "host")})
        if args.write:
            keep(f"inherited_{name}", {"what": __doc__, "size": args.size, **origins[-1], "rows": made})
        rows += made
    result = {"what": __doc__, "size": args.size, **joined(origins), "rows": rows}
    print(json.dumps(result, indent=1) if args.json else f"{table(rows)}\n\n{clocks(rows)}")


if __name__ == "__main__":
    main()
