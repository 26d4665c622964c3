"""How far does what a model inherits reach, and does FIUn make every heir forget it?

Families of `families/*.yaml`, seed by seed: every kept model before and after unlearning and as retrained without the class,
on held-out rows. A model counts as a test of inheritance when it was trained directly on no row of the class and recognised at
least half of it before; deeper heirs that had lost it are shown, but not counted. Seconds are wall clock.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from common import keep, origin

from fedunlearn.lineage import Lineage, discover
from fedunlearn.methods import FIUn
from fedunlearn.runtime import InProcess, score_all, unlearn
from fedunlearn.scenario import Scenario, load, reference, train, workers

FAMILIES = Path(__file__).parent / "families"
TOPOLOGIES = Path(__file__).parent.parent / "topologies"
KNOWN = 0.5  # below this there is little to forget
KEPT = ("name", "born", "target", "forgotten_before", "forgotten_after", "retained_before", "retained_after", "mask_retained",
        "retrained_forgotten", "retrained_retained", "rows_forgotten", "rows_retained", "strength", "status")  # fmt: skip


def depths(lineage: Lineage, classes: tuple[str, ...]) -> dict[str, int]:
    """For every kept model: how many kept models lie between it and one that was trained on the classes; 0 if it was itself."""
    found: dict[str, int] = {}
    for model in (m for m in lineage.models if m.kept):
        direct = any(set(classes) & set(s.rows) for s in lineage.own(model.name))
        above = [found[p] for p in lineage.kept_parents(model.name)]
        found[model.name] = 0 if direct or not above else 1 + max(above)
    return found


def one(scenario: Scenario, folder: Path, layers: str, retrain: bool) -> list[dict[str, Any]]:
    """One family at one seed: train, retrain without, unlearn, and what that did to every heir."""
    (name, asked), *_ = scenario.requests.items()
    request = asked.request(name)
    started = time.perf_counter()
    family = train(scenario, folder, progress=lambda text: print(f"  {text}", file=sys.stderr))
    trained = time.perf_counter()
    retrained = {}
    if retrain:
        twin = reference(family, scenario, request, lambda text: print(f"  {text}", file=sys.stderr))
        again = time.perf_counter()
        retrained = score_all(twin, discover(family.lineage, request), InProcess(workers(scenario, twin)))
    else:
        again = time.perf_counter()
    record = unlearn(family, request, FIUn(layers=layers), InProcess(workers(scenario, family)), scenario.gate.gate,
                     retrained=retrained)  # fmt: skip
    depth = depths(family.lineage, request.classes)
    clocks = {"train_seconds": round(trained - started, 1), "retrain_seconds": round(again - trained, 1) if retrain else None,
              "unlearn_seconds": record.cost["seconds"]}  # fmt: skip
    rows = []
    for m in record.facts["models"]:
        counted = depth[m["name"]] > 0 and m["target"] == "absent" and m["forgotten_before"] >= KNOWN
        rows.append({**{k: m[k] for k in KEPT}, "depth": depth[m["name"]], "counted": counted, **clocks})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Seeds pooled, in %, a line an heir; models that cannot name the class share a line, a last line tells of the family."""
    columns = ("family", "model", "depth", "before", "left", "retrained", "rest before", "lost", "mask: lost",
               "retrained: rest", "accepted", "counted")  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for family in dict.fromkeys(r["family"] for r in rows):
        of = [r for r in rows if r["family"] == family]
        for key in dict.fromkeys(_group(r) for r in of):
            lines.append(f"| {family} | {' | '.join(_cells(key, [r for r in of if _group(r) == key]))} |")
        lines.append(f"| {family} | *{_summary(of)}* |" + " |" * (len(columns) - 2))
    return "\n".join(lines)


def _summary(rows: list[dict[str, Any]]) -> str:
    """Seeds, how deep the class is known, seconds."""
    known = {}
    for depth in sorted({r["depth"] for r in rows if r["target"] == "absent"} - {0}):
        known[depth] = _pooled(
            [r for r in rows if r["depth"] == depth and r["target"] == "absent"], "forgotten_before", "rows_forgotten"
        )
    lost = [d for d, share in known.items() if share is not None and share < 100 * KNOWN]
    where = f"from depth {lost[0]} on less than half of it is known" if lost else "more than half of it is known at every depth"
    seeds = {r["seed"]: r for r in rows}

    def clock(what: str) -> str:
        return f"{sum(r[what] or 0 for r in seeds.values()):.0f} s"

    spent = f"training {clock('train_seconds')}, retraining {clock('retrain_seconds')}, unlearning {clock('unlearn_seconds')}"
    return f"{len(seeds)} seed{'s' * (len(seeds) > 1)}; {where if known else 'nobody inherits it'}; {spent}"


def _group(row: dict[str, Any]) -> str:
    return row["name"] if row["target"] == "absent" else f"{row['name'].rsplit('-', 1)[0]} (no output for it)"


def _cells(key: str, cell: list[dict[str, Any]]) -> list[str]:
    def lost(what: str) -> str:
        before, after = (_pooled(cell, w, "rows_retained") for w in ("retained_before", what))
        return "-" if before is None or after is None else f"{before - after:.1f}"

    found = [_pooled(cell, w, "rows_forgotten") for w in ("forgotten_before", "forgotten_after", "retrained_forgotten")]
    rest = [_pooled(cell, w, "rows_retained") for w in ("retained_before", "retrained_retained")]
    text = ["-" if v is None else f"{v:.1f}" for v in (*found, *rest)]
    accepted = f"{sum(r['status'] == 'committed' for r in cell)} of {len(cell)}"
    counted = f"{sum(r['counted'] for r in cell)} of {len(cell)}"
    return [key, str(cell[0]["depth"]), *text[:4], lost("retained_after"), lost("mask_retained"), text[4], accepted, counted]


def _pooled(rows: list[dict[str, Any]], what: str, weight: str) -> float | None:
    known = [r for r in rows if r[what] is not None and r[weight]]
    return 100 * sum(r[what] * r[weight] for r in known) / sum(r[weight] for r in known) if known else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "families", nargs="*", help="names of files in families/ (or topologies/); by default all that the data allows"
    )
    parser.add_argument("--size", choices=("test", "cpu"), default="cpu", help="test: topologies/mixed.yaml, one seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--layers", default="last", help="which layers FIUn edits")
    parser.add_argument("--data", help="folder of data sets; FEDUNLEARN_DATA by default")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/inherited"), help="where families are kept; a second run goes on there"
    )
    parser.add_argument("--no-retrained", action="store_true", help="do not retrain families without the class")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--write", action="store_true", help="keep each family's result under results/")
    args = parser.parse_args()
    if args.data:
        os.environ["FEDUNLEARN_DATA"] = str(Path(args.data).resolve())
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    names = args.families or (["mixed"] if args.size == "test" else sorted(p.stem for p in FAMILIES.glob("*.yaml")))
    rows = []
    for name in names:
        folder = TOPOLOGIES if args.size == "test" else FAMILIES
        found: list[dict[str, Any]] = []
        origins: list[dict[str, Any]] = []  # of every seed: a run may be finished by a later version
        for seed in range(1 if args.size == "test" else args.seeds):
            kept = args.work / f"{name}-{seed}-{args.layers}.json"
            if not kept.exists():
                print(f"{name}, seed {seed}", file=sys.stderr)
                plain = load(folder / f"{name}.yaml")
                data = plain.data.model_copy(update={"seed": seed})
                scenario = plain.model_copy(update={"seed": seed, "data": data})
                home = _fresh(args.work / f"{name}-{seed}")
                start = origin()
                made = one(scenario, home, args.layers, not args.no_retrained)
                named = [{"family": name, "seed": seed, "layers": args.layers, **r} for r in made]
                kept.write_text(json.dumps({**start, "rows": named}))
            origins.append(json.loads(kept.read_text()))
            found += origins[-1].pop("rows")
        rows += found
        if args.write:
            commits = ", ".join(dict.fromkeys(o["commit"] for o in origins))
            keep(f"inherited_{name}", {"what": __doc__, "size": args.size, **origins[0], "commit": commits, "rows": found})
    result = {"what": __doc__, "size": args.size, **origin(), "rows": rows}
    print(json.dumps(result, indent=1) if args.json else table(rows))


def _fresh(folder: Path) -> Path:
    """A folder for a family of this run; what an earlier, cut-off run left is not built upon."""
    tries = [folder, *(folder.with_name(f"{folder.name}.{i}") for i in range(2, 100))]
    return next(f for f in tries if not f.exists())


if __name__ == "__main__":
    main()
