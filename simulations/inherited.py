"""How far does what a model inherits reach, and what makes every heir forget it?

Families of `families/*.yaml`, seed by seed: every kept model before and after unlearning and as retrained without the class,
on held-out rows. A model counts as a test of inheritance when it was trained directly on no row of the class and recognised at
least half of it before; deeper heirs that had lost it are shown, but not counted. Seconds are wall clock.
"""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common import keep, origin

from fedunlearn.lineage import Lineage, Request, discover
from fedunlearn.methods import make
from fedunlearn.runtime import Family, InProcess, Reference, unlearn
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


def bring_up(scenario: Scenario, home: Path, retrain: bool) -> dict[str, Any]:
    """Train one family at one seed, and again without the class; what that took, and where the numbers come from."""
    start, started = origin(), time.perf_counter()
    family = train(scenario, home, progress=lambda text: print(f"  {text}", file=sys.stderr))
    trained = time.perf_counter()
    if retrain:
        reference(family, scenario, _request(scenario), lambda text: print(f"  {text}", file=sys.stderr))
    again = time.perf_counter()
    return {**start, "folder": home.name, "train_seconds": round(trained - started, 1),
            "retrain_seconds": round(again - trained, 1) if retrain else None}  # fmt: skip


def one(scenario: Scenario, home: Path, method: str, layers: str, retrained: bool) -> list[dict[str, Any]]:
    """What one method does to every heir of a copy of a family."""
    request, twin = _request(scenario), Reference()
    if retrained:
        whole = Family.open(home)
        again = reference(whole, scenario, request)  # trained before
        twin = Reference.of(again, discover(whole.lineage, request), InProcess(workers(scenario, again)))
    with TemporaryDirectory() as there:
        copied = shutil.copytree(home, Path(there) / "family", ignore=shutil.ignore_patterns("reference"))
        family = Family.open(copied)
        backend = InProcess(workers(scenario, family))
        record = unlearn(family, request, make(method, {"layers": layers}), backend, scenario.gate.gate, retrained=twin)
        depth = depths(family.lineage, request.classes)
    rows = []
    for m in record.facts["models"]:
        counted = depth[m["name"]] > 0 and m["target"] == "absent" and m["forgotten_before"] >= KNOWN
        kept = {k: m[k] for k in KEPT}
        rows.append({**kept, "depth": depth[m["name"]], "counted": counted, "unlearn_seconds": record.cost["seconds"]})
    return rows


def _request(scenario: Scenario) -> Request:
    (name, asked), *_ = scenario.requests.items()
    return asked.request(name)


def table(rows: list[dict[str, Any]]) -> str:
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


def _method(row: dict[str, Any]) -> str:
    return str(row.get("method", "fiun"))  # results from before there was another name none


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
    parser.add_argument("--methods", default="fiun,steer", help="names of methods, with commas")
    parser.add_argument("--layers", default="last", help="which layers they edit")
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
            plain = load(folder / f"{name}.yaml")
            scenario = plain.model_copy(update={"seed": seed, "data": plain.data.model_copy(update={"seed": seed})})
            brought = args.work / f"{name}-{seed}.json"
            for method in args.methods.split(","):
                kept = args.work / f"{name}-{seed}-{method}-{args.layers}.json"
                if not kept.exists():
                    print(f"{name}, seed {seed}, {method}", file=sys.stderr)
                    if not brought.exists():
                        home = _fresh(args.work / f"{name}-{seed}")
                        brought.write_text(json.dumps(bring_up(scenario, home, not args.no_retrained)))
                    before = json.loads(brought.read_text())
                    start, home = origin(), args.work / before["folder"]
                    made = one(scenario, home, method, args.layers, not args.no_retrained)
                    clocks = {k: before[k] for k in ("train_seconds", "retrain_seconds")}
                    named = {"family": name, "seed": seed, "method": method, "layers": args.layers}
                    commit = " + ".join(dict.fromkeys((before["commit"], start["commit"])))  # of training, of the method
                    kept.write_text(json.dumps({**start, "commit": commit, "rows": [{**named, **r, **clocks} for r in made]}))
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
