"""Rows, or all that a site gave: can an edited model be told from one that was retrained without them?

A table of letters; two sites train one federated model, and 1 % of one's rows, 10 % of them, or all are to be
forgotten. Each method's model stands beside five retrained ones of different seeds, on the accuracy on what is forgotten and
on test rows, and under U-LiRA, whose shadow models forget by the same method: on rows that are forgotten against rows that
nobody trained on (0.5: they cannot be told apart), and in its own game, a model that forgot them against those that never saw
them.
Strengths are chosen towards the first of the retrained models.
A measure is "close" within two standard deviations of the retrained models' mean. The same is asked of the model as it was, and
of each retrained model against the other four, which says how much of that is chance. The attack needs the rows at the
model's home, so heirs elsewhere are not attacked. Test size: digits, one method.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from common import ALL, arguments, finish, origin, trained_on
from reproduction import FAMILIES

from fedunlearn.errors import FedUnlearnError
from fedunlearn.lineage import Request
from fedunlearn.methods import make
from fedunlearn.runtime import Family, InProcess, rollback, unlearn
from fedunlearn.scenario import Scenario, assess, retrained, train, workers
from fedunlearn.scenario.files import parse

RUNS = Path("runs/rows_and_sites")
HOME, OTHER = "north", "south"
METHODS = (
    "steer", "fiun", "ssd", "lfssd", "fisher_mask", "random_mask", "fisher_noise", "fine_tune", "gradient_ascent", "distil",
)  # fmt: skip
SHARES = {"1 % of a site's rows": 0.01, "10 % of a site's rows": 0.1}
SITE = "a whole site"
AGAIN = 5  # retrained models
CLOSE = 2.0  # standard deviations of theirs
MEASURES = {  # name -> tier, metric, keys below a net's
    "forgotten": ("quick", "accuracy", ("forgotten", "value")),
    "test": ("quick", "accuracy", ("test", "value")),
    "U-LiRA": ("audit", "ulira", ("auc", "value")),
    "own game": ("audit", "ulira_from_retrained", ("auc", "value")),
}


def family_of(size: str) -> Scenario:
    """Two sites and one model of theirs, which is at home at the first."""
    epochs = {"rounds": 4, "epochs": 10} if size == "cpu" else {"rounds": 2, "epochs": 3}
    files = dict.fromkeys(("set", "test"), "tabular/letter-{part}.npz")
    models = {"root": {"born": "federated", "clients": [HOME, OTHER], "home": HOME, "lr": 0.1, **epochs}}
    data, net = (files | {"scale": 15, "limit": 160, "test_limit": 80}, 128) if size == "cpu" else ({"set": "digits"}, 32)
    plain = {"name": "rows", "folder": str(FAMILIES), "data": data, "net": {"name": "mlp", "hidden": net}, "models": models}
    return parse(plain, "rows")


def requests(scenario: Scenario, seed: int, size: str) -> Iterator[Request]:
    """What is to be forgotten, drawn by the seed."""
    rows = trained_on(scenario, seed, HOME)
    for name, share in SHARES.items():
        some = np.random.default_rng([seed, 2]).choice(len(rows), round(share * len(rows)), replace=False)
        yield Request(samples=tuple(rows[i] for i in sorted(some)), id=name)
        if size == "test":
            return
    yield Request(sites=(HOME,), id=SITE)


def one(seed: int, size: str, methods: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One family: a row for every request, method and measure."""
    scenario = family_of(size).seeded(seed)
    with tempfile.TemporaryDirectory() as folder:
        train(scenario, Path(folder) / "trained")
        for request in requests(scenario, seed, size):
            shutil.copytree(Path(folder) / "trained", Path(folder) / "copy")
            start = Family.open(Path(folder) / "copy").heads
            for name in methods:
                print(f"seed {seed}, {request.id}: {name}", file=sys.stderr)
                family = Family.open(Path(folder) / "copy")  # shadow and retrained models stay there for the next method
                backend, method = InProcess(workers(scenario, family), simulation=True), make(name)
                about = {"seed": seed, "request": request.id, "method": name}
                try:
                    twin = retrained(family, scenario, request, backend)
                    record = unlearn(family, request, method, backend, scenario.gate.gate, retrained=twin)
                    found = assess(family, family.ledger.lines[-1], "audit", backend, seeds=AGAIN)
                except FedUnlearnError as error:
                    yield about | {"failed": str(error)}
                    continue
                (heir,) = record.facts["models"]
                if "root" not in found:  # no strength could be chosen
                    yield about | {"failed": "; ".join(o["text"] for o in record.facts["objections"])}
                    continue
                yield from (about | row for row in measured(found["root"], heir))
                if family.heads != start:
                    rollback(family, backend, lift_exclusion=True)
            shutil.rmtree(Path(folder) / "copy")


def kept(seed: int, size: str, methods: Sequence[str], commit: str) -> list[dict[str, Any]]:
    """The same, kept in `runs/` for a later run of the same commit."""
    path = RUNS / f"{size}-{seed}-{commit}.json"
    if not path.exists():
        rows = list(one(seed, size, methods))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows))
    return list(json.loads(path.read_text()))


def measured(found: dict[str, Any], heir: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row a measure, as far as it could be taken."""
    for name, (tier, metric, keys) in MEASURES.items():
        nets = found[tier]["metrics"].get(metric)
        row = {"measure": name, "status": heir["status"], "strength": heir["strength"]}
        if nets is None:
            yield row | {"failed": found[tier]["not_measurable"].get(metric, "not measured")}
            continue
        again = [_value(nets[net], keys) for net in nets if net.startswith("retrained")]
        before = _value(nets["before"], keys) if "before" in nets else None
        yield row | {"before": before, "after": _value(nets["after"], keys), "retrained": again}


def _value(net: dict[str, Any], keys: Sequence[str]) -> float:
    for key in keys:
        net = net[key]
    return float(net)  # type: ignore[arg-type]


def close(value: float, to: Sequence[float]) -> bool:
    """Whether a value is within so many standard deviations of the others' mean."""
    return abs(value - mean(to)) <= CLOSE * stdev(to)


def by_chance(rows: Sequence[dict[str, Any]]) -> list[bool]:
    """Of every retrained model, whether it is close to its others; methods may share them."""
    sets = dict.fromkeys(tuple(r["retrained"]) for r in rows)
    return [close(v, [*again[:i], *again[i + 1 :]]) for again in sets for i, v in enumerate(again)]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line a request and method: each measure before, after and as retrained, and at how many seeds it is close."""
    names = list(MEASURES)
    head = ["request", "method", *(f"{n}: before, after, retrained" for n in names), *(f"{n}: close" for n in names), "failed"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for request in dict.fromkeys(r["request"] for r in rows):
        of = [r for r in rows if r["request"] == request]
        for method in dict.fromkeys(r["method"] for r in of):
            own = [r for r in of if r["method"] == method]
            parts = _parts(own)
            failed = "; ".join(sorted({r["failed"] for r in own if "failed" in r}))
            told = [_told(part) for part in parts]
            near = [_share([close(r["after"], r["retrained"]) for r in part]) for part in parts]
            lines.append(f"| {' | '.join([request, method, *told, *near, failed])} |")
        first = of[0]["method"]  # before the edit, all methods' models are the same
        before = [[r for r in part if r["method"] == first and r["before"] is not None] for part in _parts(of)]
        near = [_share([close(r["before"], r["retrained"]) for r in part]) for part in before]
        lines.append(f"| {' | '.join([request, 'untouched', *['-'] * len(names), *near, ''])} |")
        near = [_share(by_chance(part)) for part in _parts(of)]
        lines.append(f"| {' | '.join([request, 'retrained', *['-'] * len(names), *near, ''])} |")
    return "\n".join(lines)


def _parts(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Of each measure, the rows in which it was taken."""
    return [[r for r in rows if r.get("measure") == name and "failed" not in r] for name in MEASURES]


def _share(each: Sequence[bool]) -> str:
    return f"{sum(each)} of {len(each)}" if each else "-"


def _told(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return "-"
    before = "-" if rows[0]["before"] is None else f"{100 * mean(r['before'] for r in rows):.1f}"
    again = [v for r in rows for v in r["retrained"]]
    spread = mean(stdev(r["retrained"]) for r in rows)
    return f"{before}, {100 * mean(r['after'] for r in rows):.1f}, {100 * mean(again):.1f} ± {100 * spread:.1f}"


def main() -> None:
    args = arguments(__doc__, parts=True)
    methods, start = METHODS if args.size == "cpu" else ("steer",), origin()
    seeds = args.part.share(range(args.seeds if args.size == "cpu" else 1), lambda seed: seed)
    rows = [row for seed in seeds for row in kept(seed, args.size, methods, start["commit"])]
    if args.part != ALL:
        return
    finish(args, "rows_and_sites", {"what": __doc__, "size": args.size, **start, "rows": rows}, lambda: table(rows))


if __name__ == "__main__":
    main()
