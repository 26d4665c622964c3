"""What does one site in five that poisons its evidence do to FIUn and to `steer`, and which merges bear it?

Digits; seven sites, five of which hold the class and two lack it. Two heirs of all five: `global` is one federated model of
theirs, so that the paper's way pools the sites before it merges anything; `joined` is the average of five models, one of each
site, trained on without the class, so that it merges their evidence. `child` inherits from `global`. Site a lies about what is
to be forgotten, and to `steer` about how far to go; what refuses such evidence is put aside after it has been asked, as if the
lie had passed. Test rows, seeds pooled.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from common import arguments, finish, origin
from reproduced import pooled_percent

from fedunlearn.data import Selection
from fedunlearn.errors import SiteError
from fedunlearn.importance import Importance
from fedunlearn.lineage import Request
from fedunlearn.methods import FIUn, Method, Steer
from fedunlearn.runtime import Family, InProcess, rounds, unlearn
from fedunlearn.runtime.tasks import Answer, Measure, Measured, Task
from fedunlearn.scenario import Scenario, train, workers
from fedunlearn.scenario.files import parse

FORGET, ANOTHER = "0", "1"
HOLDERS, OTHERS = tuple("abcde"), tuple("fg")
LIAR, TIMES, FARTHEST = HOLDERS[0], 1000.0, "as far as is believed"
NEAR = 2.0  # points: a merge bears a poison that makes it no worse than that
ROBUST = ("median", "trimmed", "clipped")
CHOICES: dict[str, tuple[type[FIUn] | type[Steer], tuple[str, ...]]] = {
    "fiun": (FIUn, ("max", *ROBUST)),
    "steer": (Steer, ("apart", *ROBUST)),
}
HEIRS = ("global", "child", "joined")
KEPT = ("name", "forgotten_before", "forgotten_after", "retained_before", "retained_after", "rows_forgotten", "rows_retained",
        "strength", "status")  # fmt: skip
Poison = Callable[[Measured], Measured]


def changed(how: Callable[[torch.Tensor], torch.Tensor]) -> Poison:
    """The same change to every tensor of the evidence."""

    def poison(told: Measured) -> Measured:
        sums = {s: {n: how(t) for n, t in ts.items()} for s, ts in told.importance.sums.items()}
        return replace(told, importance=Importance(sums, told.importance.count))

    return poison


def noise(tensor: torch.Tensor) -> torch.Tensor:
    """As large as what it stands for: Exp(1) times its mean for squares, which are not negative, normal for gradients."""
    generator = torch.Generator().manual_seed(tensor.numel())
    if bool((tensor < 0).any()):
        return torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator) * tensor.square().mean().sqrt()
    return -torch.rand(tensor.shape, dtype=tensor.dtype, generator=generator).clamp(min=1e-12).log() * tensor.mean()


def farthest(told: Measured) -> Measured:
    """As much as is believed to have been enough at the root."""
    return replace(told, enough=None if told.enough is None else Steer.farthest)


POISONS: dict[str, Poison] = {
    "none": lambda told: told,
    f"x {TIMES:.0f}": changed(lambda t: t * TIMES),
    "zeros": changed(torch.zeros_like),
    "the opposite": changed(torch.neg),
    "noise": changed(noise),
    f"noise x {TIMES:.0f}": changed(lambda t: noise(t) * TIMES),
    "another class": lambda told: told,
    f"another class x {TIMES:.0f}": changed(lambda t: t * TIMES),
    FARTHEST: farthest,
}
NOT_FIUN = ("the opposite", FARTHEST)  # squares have no sign, and do not say how far


class Poisoned(InProcess):
    """All sites in this process, one of which lies."""

    def __init__(self, scenario: Scenario, family: Family, poison: str) -> None:
        super().__init__(workers(scenario, family))
        self.poison = poison

    def carry(self, tasks: Sequence[Task]) -> list[Answer]:
        """The liar's evidence, poisoned; all else in earnest."""
        lies = [isinstance(t, Measure) and t.selection is not None and t.place == LIAR for t in tasks]
        if self.poison.startswith("another class"):
            about = Selection((ANOTHER,))
            tasks = [
                replace(t, selection=about) if lie and isinstance(t, Measure) else t for t, lie in zip(tasks, lies, strict=True)
            ]
        return [
            POISONS[self.poison](a) if lie and isinstance(a, Measured) else a
            for a, lie in zip(super().carry(tasks), lies, strict=True)
        ]


def plain(seed: int) -> dict[str, Any]:
    """The family."""
    held = {f"own-{s}": {"born": "incremental", "from": ["global"], "site": s} for s in HOLDERS}
    return {
        "name": "poisoned",
        "seed": seed,
        "data": {"set": "digits", "shards": "iid", "seed": seed, "without": {s: [int(FORGET)] for s in OTHERS}},
        "net": {"name": "mlp", "hidden": 64},
        "models": {
            "global": {"born": "federated", "clients": list(HOLDERS), "rounds": 5, "home": "server"},
            "child": {"born": "incremental", "from": ["global"], "site": OTHERS[0]},
            **held,
            "joined": {"born": "federated", "from": list(held), "clients": list(OTHERS), "rounds": 1, "home": "server"},
        },
    }


@contextmanager
def unguarded() -> Iterator[None]:
    """Take importances as they come."""
    with patch.multiple(rounds, checked=lambda answer, *_: answer.importance, within=lambda *_: None):
        yield


def one(seed: int, poisons: Sequence[str], merges: int | None) -> list[dict[str, Any]]:
    """One family; every poison and so many merges of each method (None: all) on a copy."""
    scenario, rows = parse(plain(seed), "poisoned"), []
    with tempfile.TemporaryDirectory() as folder:
        train(scenario, Path(folder) / "trained")
        for poison, (name, (make, known)) in product(poisons, CHOICES.items()):
            for merging in () if name == "fiun" and poison in NOT_FIUN else known[:merges]:
                family = Family.open(Path(shutil.copytree(Path(folder) / "trained", Path(folder) / "copy")))
                method: Method = make(layers="last", merging=merging)
                backend, refused = Poisoned(scenario, family, poison), ""
                try:
                    record = unlearn(family, Request(classes=(FORGET,)), method, backend)
                except SiteError as error:
                    refused = str(error)
                    with unguarded():
                        record = unlearn(family, Request(classes=(FORGET,)), method, backend)
                about = {"seed": seed, "method": name, "poison": poison, "merging": merging, "refused": refused}
                rows += [about | {k: m[k] for k in KEPT} for m in record.facts["models"] if m["name"] in HEIRS]
                shutil.rmtree(family.folder)
    return rows


def table(rows: list[dict[str, Any]], method: str) -> str:
    """A line a heir and poison: for each merge what is left (%), what is lost on the rest (points), how many were accepted."""
    rows = [r for r in rows if r["method"] == method]
    merges = list(dict.fromkeys(r["merging"] for r in rows))
    lines = [
        f"| heir | poison | refused | {' | '.join(f'{m}: left, lost' for m in merges)} |",
        "|---" * (3 + len(merges)) + "|",
    ]
    for heir in HEIRS:
        for poison in dict.fromkeys(r["poison"] for r in rows):
            of = [r for r in rows if (r["name"], r["poison"]) == (heir, poison)]
            cells = [_cell([r for r in rows if (r["name"], r["merging"]) == (heir, m)], poison) for m in merges]
            refused = f"{sum(bool(r['refused']) for r in of)} of {len(of)}"
            lines.append(f"| {heir} | {poison} | {refused} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(rows: list[dict[str, Any]], poison: str) -> str:
    """One heir and merge; bold where it is more than `NEAR` points worse than without poison."""
    of = [r for r in rows if r["poison"] == poison]
    left, lost = _numbers(of)
    least, cost = _numbers([r for r in rows if r["poison"] == "none"])
    text = f"{left:.1f}, {lost:.1f} ({sum(r['status'] == 'committed' for r in of)} of {len(of)})"
    return f"**{text}**" if max(left - least, lost - cost) > NEAR else text


def _numbers(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """What is left in %, and points lost on the rest."""
    return pooled_percent(rows, "forgotten_after"), pooled_percent(rows, "retained_before") - pooled_percent(
        rows, "retained_after"
    )


def main() -> None:
    args = arguments(__doc__)
    whole = args.size == "cpu"
    seeds, merges = ((0, 1, 2), None) if whole else ((0,), 2)
    poisons = list(POISONS) if whole else ["none", "another class"]
    start, rows = origin(), []
    for seed in seeds:
        print(f"seed {seed}", file=sys.stderr)
        rows += one(seed, poisons, merges)
    result = {"what": __doc__, "size": args.size, **start, "rows": rows}
    finish(args, "poisoned_evidence", result, lambda: "\n\n".join(table(rows, method) for method in CHOICES))


if __name__ == "__main__":
    main()
