"""What of `steer` does the work? Its direction, its yardstick, its margin, or a mask before the step; beside `rewrite`.

Families like `hospitals` (digits), three seeds; two of four sites lack what is forgotten. Every setting acts on a copy of the
same trained family and nothing is calibrated at any heir: a factor is given, and times what was enough at the root. All on the
last layer, on test rows that nobody trained on, seeds and heirs pooled; the worst is that of a heir with its seeds pooled.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from common import arguments, finish, origin

from fedunlearn.lineage import Request
from fedunlearn.methods import Method, make
from fedunlearn.methods.steer import MARGIN
from fedunlearn.runtime import Family, InProcess, unlearn
from fedunlearn.scenario import find_topology, train, workers
from fedunlearn.scenario.files import parse

ASKED = (("5",), ("8",), ("3", "5", "8", "9"))  # those that dampening finds hardest in `hospitals_classes`
FACTORS = (1.0, 1.15, MARGIN, 1.6, 2.0)
SHARES = (0.3, 0.1, 0.03)
CHOICES: dict[str, Method] = {
    **{f"factor {f}": make("steer", {"factor": f}) for f in FACTORS},
    **{f"mask, {s:.0%} move": make("steer", {"factor": MARGIN, "share": s}) for s in SHARES},
    "P: diagonal Fisher": make("steer", {"factor": MARGIN, "weigh": "fisher"}),
    "P: diagonal Fisher; mask, 10% move": make("steer", {"factor": MARGIN, "weigh": "fisher", "share": 0.1}),
    "P: none": make("steer", {"factor": MARGIN, "weigh": "none"}),
    "rewrite": make("rewrite"),
}
KEPT = ("name", "forgotten_before", "forgotten_after", "retained_before", "retained_after", "mask_retained",
        "rows_forgotten", "rows_retained", "strength", "status")  # fmt: skip


def one(seed: int, forget: tuple[str, ...], choices: dict[str, Method]) -> list[dict[str, Any]]:
    """One family, one request; every setting on a copy."""
    plain = yaml.safe_load(find_topology("hospitals").read_text())
    plain["seed"] = plain["data"]["seed"] = seed
    plain["data"]["without"] = {site: [int(c) for c in forget] for site in ("east", "west")}
    del plain["models"]["triage"]  # its head knows none of it
    plain["requests"] = {}
    scenario, rows = parse(plain, "hospitals"), []
    with tempfile.TemporaryDirectory() as folder:
        train(scenario, Path(folder) / "trained")
        for choice, method in choices.items():
            family = Family.open(Path(shutil.copytree(Path(folder) / "trained", Path(folder) / "copy")))
            record = unlearn(family, Request(classes=forget), method, InProcess(workers(scenario, family)), scenario.gate.gate)
            found = ({**m, "seed": seed, "classes": ", ".join(forget), "setting": choice} for m in record.facts["models"])
            rows += [{k: m[k] for k in ("seed", "classes", "setting", *KEPT)} for m in found]
            shutil.rmtree(family.folder)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """A line a request and setting: in % and points, seeds and heirs pooled, and the worst heir."""
    columns = ("classes", "setting", "before", "left", "worst heir: left", "lost on the rest", "worst heir: lost", "mask: lost")
    lines = [f"| {' | '.join((*columns, 'accepted'))} |", "|---" * (len(columns) + 1) + "|"]
    for classes, setting in dict.fromkeys((r["classes"], r["setting"]) for r in rows):
        of = [r for r in rows if (r["classes"], r["setting"]) == (classes, setting)]
        heirs = [[r for r in of if r["name"] == n] for n in dict.fromkeys(r["name"] for r in of)]
        left = max(_pooled(h, "forgotten_after", "rows_forgotten") for h in heirs)
        numbers = [_pooled(of, w, "rows_forgotten") for w in ("forgotten_before", "forgotten_after")]
        numbers += [
            left,
            _lost(of, "retained_after"),
            max(_lost(h, "retained_after") for h in heirs),
            _lost(of, "mask_retained"),
        ]
        accepted = sum(r["status"] == "committed" for r in of)
        lines.append(f"| {classes} | {setting} | {' | '.join(f'{n:.1f}' for n in numbers)} | {accepted} of {len(of)} |")
    return "\n".join(lines)


def _lost(rows: list[dict[str, Any]], after: str) -> float:
    return _pooled(rows, "retained_before", "rows_retained") - _pooled(rows, after, "rows_retained")


def _pooled(rows: list[dict[str, Any]], what: str, weight: str) -> float:
    return float(100 * sum(r[what] * r[weight] for r in rows) / sum(r[weight] for r in rows))


def main() -> None:
    args = arguments(__doc__)
    seeds, requests = ((0, 1, 2), ASKED) if args.size == "cpu" else ((0,), ASKED[:1])
    choices = CHOICES if args.size == "cpu" else {n: CHOICES[n] for n in (f"factor {MARGIN}", "mask, 10% move", "rewrite")}
    start, rows = origin(), []
    for forget in requests:
        for seed in seeds:
            print(f"classes {', '.join(forget)}, seed {seed}", file=sys.stderr)
            rows += one(seed, forget, choices)
    result = {"what": __doc__, "size": args.size, **start, "rows": rows}
    finish(args, "steer_ablation", result, lambda: table(rows))


if __name__ == "__main__":
    main()
