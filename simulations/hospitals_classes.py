"""What methods do to the `hospitals` family: every class of digits, three seeds; FIUn and Steer, beside the logit mask.

For each class c, two of four sites lack c, so that three of the heirs know it only by inheritance. Each model is tested on
rows that nobody trained on (seeds pooled), beside the logit mask and the family retrained without the class.
"""

from pathlib import Path
from typing import Any

import yaml
from common import arguments, finish
from reproduced import pooled_percent

from fedunlearn.cli.console import progress
from fedunlearn.compare import Choice, Subject, compare
from fedunlearn.lineage import Request
from fedunlearn.methods import FIUn, Steer
from fedunlearn.scenario import find_topology
from fedunlearn.scenario.files import parse

CHOICES = (Choice("fiun all", FIUn()), Choice("fiun last", FIUn(layers="last")), Choice("steer", Steer()))
WORK = Path("runs/hospitals_classes")
KEPT = ("seed", "method", "target", "holds_class", "forgotten_before", "forgotten_after", "retained_before", "retained_after",
        "mask_retained", "retrained_forgotten", "retrained_retained", "rows_forgotten", "rows_retained", "strength", "rule",
        "passes", "status")  # fmt: skip


def lacking(forget: int) -> Subject:
    """The topology, where two sites lack a class, and the request to forget it."""
    plain = yaml.safe_load(find_topology("hospitals").read_text())
    plain["name"] = f"hospitals-{forget}"
    plain["data"]["without"] = {"east": [forget], "west": [forget]}
    plain["models"]["triage"]["head"] = [str(c) for c in (2, 4, 6, 8) if c != forget][:3]
    return Subject(parse(plain, "hospitals"), (Request(classes=(str(forget),)),))


def table(rows: list[dict[str, Any]]) -> str:
    """Seeds pooled, in %, one line a class, heir and method."""
    columns = ("class", "method", "heir", "before", "left", "rest before", "lost", "mask: lost", "retrained: rest", "accepted")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    keys = dict.fromkeys((r["class"], r["method"], r["name"]) for r in rows if r["target"] == "absent")
    for key in keys:
        cell = [r for r in rows if (r["class"], r["method"], r["name"]) == key]
        before, left = pooled_percent(cell, "forgotten_before"), pooled_percent(cell, "forgotten_after")
        rest, after, mask, again = (
            pooled_percent(cell, w) for w in ("retained_before", "retained_after", "mask_retained", "retrained_retained")
        )
        accepted = sum(r["status"] == "committed" for r in cell)
        lines.append(f"| {key[0]} | {key[1]} | {key[2]} | {before:.1f} | {left:.1f} | {rest:.1f} | {rest - after:.1f} "
                     f"| {rest - mask:.1f} | {again:.1f} | {accepted} of {len(cell)} |")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    args = arguments(__doc__)
    seeds, classes = ((0, 1, 2), range(10)) if args.size == "cpu" else ((0,), range(1))
    with progress() as say:
        found = compare([lacking(c) for c in classes], CHOICES, seeds, WORK, progress=say)
    rows = [{k: r[k] for k in KEPT} | {"class": int(r["class"]), "name": r["heir"]} for r in found["rows"]]
    where = {k: found[k] for k in ("versions", "commit", "host")}
    result = {"what": __doc__, "size": args.size, **where, "rows": rows}
    finish(args, "hospitals_classes", result, lambda: table(rows))


if __name__ == "__main__":
    main()
