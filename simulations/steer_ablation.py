"""What of `steer` does the work? Its step, the drop of the class's own output, its yardstick, or a mask before the step.

Families like `hospitals` (digits), three seeds; two of four sites lack what is forgotten. Every setting acts on a copy of the
same trained family and nothing is calibrated at any heir: a factor is given, and times what was enough at the root. All on the
last layer, on test rows that nobody trained on, seeds and heirs pooled; the worst is that of a heir with its seeds pooled.

What is `raised` is how much of a class comes back by one number: its output is raised on all rows alike, as far as costs one
point on the rest of the calibration rows, and test rows of the class are scored. `rewrite` and the logit mask are beside them.
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from common import arguments, finish, origin

from fedunlearn.evaluation.outputs import logits
from fedunlearn.lineage import Request
from fedunlearn.methods import Case, Method, Steer, make
from fedunlearn.methods.base import Strength
from fedunlearn.methods.steer import MARGIN
from fedunlearn.nets import load
from fedunlearn.runtime import Family, InProcess, Worker, unlearn
from fedunlearn.scenario import find_topology, train, workers
from fedunlearn.scenario.files import parse
from fedunlearn.tensors import Tensors

ASKED = (("5",), ("8",), ("3", "5", "8", "9"))  # those that dampening finds hardest in `hospitals_classes`
FACTORS = (1.0, 1.15, 1.3, 1.6, MARGIN)
SHARES = (0.3, 0.1, 0.03)
COST = 0.01  # accuracy on the rest that raising an output may cost


@dataclass(frozen=True)
class DropAlone(Steer):
    """What a step and a drop change, less what the step alone does."""

    name = "steer, the drop alone"

    def enough(self, *measured: Any) -> float | None:
        """Of the step."""
        return Steer().enough(*measured)

    def edit(self, weights: Tensors, case: Case, strength: Strength) -> dict[str, torch.Tensor]:
        """Lower the class's own output."""
        both, step = (Steer(drop=d).edit(weights, case, strength) for d in (self.drop, 0.0))
        return {n: t + (both[n] - step[n]) for n, t in weights.items()}


def _step(**settings: Any) -> Method:
    return make("steer", {"factor": MARGIN, "drop": 0} | settings)


CHOICES: dict[str, Method] = {
    **{f"factor {f}": _step(factor=f) for f in FACTORS},
    **{f"factor {f}, and the drop": make("steer", {"factor": f}) for f in (1.3, MARGIN)},
    "the drop alone": DropAlone(factor=MARGIN),
    **{f"mask, {s:.0%} move": _step(share=s) for s in SHARES},
    "P: diagonal Fisher": _step(weigh="fisher"),
    "P: diagonal Fisher; mask, 10% move": _step(weigh="fisher", share=0.1),
    "P: none": _step(weigh="none"),
    "rewrite": make("rewrite"),
    "logit mask": make("logit_mask"),
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
            places = workers(scenario, family)
            record = unlearn(family, Request(classes=forget), method, InProcess(places), scenario.gate.gate)
            for m in record.facts["models"]:
                said = {"seed": seed, "classes": ", ".join(forget), "setting": choice}
                rows.append(
                    {**said, **{k: m[k] for k in KEPT}, "raised": raised(places[m["home"]], m["version_after"], forget)}
                )
            shutil.rmtree(family.folder)
    return rows


def raised(place: Worker, version: str, forget: Sequence[str]) -> float:
    """Share of the classes' test rows that one number brings back, each class by its own."""
    found = place.store.read(version)
    classes = found.head.classes
    net = load(place.make_net(len(classes), found.net), found.weights).eval()
    gone = [classes.index(c) for c in forget]
    rest = place.data.held_out["calibration"].without(forget).for_head(classes)
    test = place.data.held_out["test"].of(forget).for_head(classes)
    kept, asked = logits(net, rest), logits(net, test)
    (others, answers), (rivals, _) = (out.index_fill(1, torch.tensor(gone), -torch.inf).max(1) for out in (kept, asked))
    back = 0
    for i in gone:
        lost_at = (others - kept[:, i])[answers == rest.y].sort().values  # raised by so much, it takes the row over
        back += int(((rivals - asked[:, i])[test.y == i] < lost_at[int(COST * len(rest))]).sum())
    return back / len(test)


def table(rows: list[dict[str, Any]]) -> str:
    """A line a request and setting: in % and points, seeds and heirs pooled, and the worst heir."""
    columns = ("classes", "setting", "before", "left", "worst heir: left", "lost on the rest", "worst heir: lost", "raised",
               "mask: lost")  # fmt: skip
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
            _pooled(of, "raised", "rows_forgotten"),
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
    few = (f"factor {MARGIN}", f"factor {MARGIN}, and the drop", "the drop alone", "rewrite")
    choices = CHOICES if args.size == "cpu" else {n: CHOICES[n] for n in few}
    start, rows = origin(), []
    for forget in requests:
        for seed in seeds:
            print(f"classes {', '.join(forget)}, seed {seed}", file=sys.stderr)
            rows += one(seed, forget, choices)
    result = {"what": __doc__, "size": args.size, **start, "rows": rows}
    finish(args, "steer_ablation", result, lambda: table(rows))


if __name__ == "__main__":
    main()
