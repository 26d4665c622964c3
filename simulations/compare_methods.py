"""What does every method of the menu leave, and what does it cost, on families of many kinds?

One configuration for everything, strengths found by the methods themselves, three seeds, the retrained family beside them:

hospitals     the topology of the demo as it is, each class of digits in a request of its own
mlp, cnn      a federation of two sites, an increment, a federation of it, an increment of that, and a head on it, on 28x28
              digits: each class (which only the first two sites hold), sets of two and four, 1 % and 10 % of one of the two
              sites' rows, and all of them
questions     text: three of six kinds of questions, a small recurrent net
letters       a table: eight of 26 letters
subclasses    CIFAR-100 in its 20 classes: one of the five kinds of things that make a class, a small CNN

All but the first read the folder of data sets that FEDUNLEARN_DATA names. The same comparison of a topology is made by
`fedunlearn compare`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, keep, trained_on

from fedunlearn.cli.console import progress
from fedunlearn.compare import Subject, as_csv, choices_of, compare, overview, requests_of
from fedunlearn.compare.cells import cells_of, summary_of
from fedunlearn.compare.origin import joined
from fedunlearn.lineage import Request
from fedunlearn.scenario import Scenario, find_topology, load
from fedunlearn.scenario.files import parse

FAMILIES = Path(__file__).parent / "families"
sys.path.append(str(FAMILIES))  # its loaders, as for the topologies that lie there
WORK = Path("runs/compare_methods")
ONE = {"forgotten_at_most": 0.01, "retained_drop_at_most": 0.01}  # what a single class may leave and cost
SET = {"forgotten_at_most": 0.0107, "retained_drop_at_most": 0.02}  # four classes, FIUn's own best
MNIST = {"set": "shared_sets:mnist"}
DIGITS = tuple("0123456789")
SETS = (("0", "1"), ("8", "9"), ("0", "1", "2", "3"), ("3", "5", "8", "9"))
SHARES = (0.01, 0.1)

Subjects = Iterator[Subject]  # of one seed


def hospitals(seed: int) -> Subjects:
    """The demo's."""
    del seed
    yield Subject.of(load(find_topology("hospitals")), requests_of(",".join(DIGITS)))


def lineage(net: dict[str, Any]) -> Callable[[int], Subjects]:
    """A federation and four heirs, at sites without what is asked."""

    def scenario(name: str, forget: Sequence[str], gate: dict[str, float]) -> Scenario:
        head = [c for c in DIGITS if c not in forget][:4]
        models = {
            "root": {"born": "federated", "clients": ["north", "south"], "rounds": 4, "epochs": 2, "lr": 0.1},
            "increment": {"born": "incremental", "from": "root", "site": "ward", "epochs": 1, "lr": 0.01},
            "joined": {"born": "federated", "from": "increment", "clients": ["ward", "clinic"], "rounds": 1, "lr": 0.01},
            "later": {"born": "incremental", "from": "joined", "site": "clinic", "epochs": 1, "lr": 0.01},
            "head": {"born": "transfer", "from": "joined", "site": "clinic", "head": head},
        }
        bare = {site: list(forget) for site in ("ward", "clinic")} if forget else {}
        return _parsed(name, MNIST | {"without": bare}, net, models, gate)

    def subjects(seed: int) -> Subjects:
        name = f"mnist-{net['name']}"
        for classes in (*((c,) for c in DIGITS), *SETS):
            of = scenario(name, classes, ONE) if len(classes) == 1 else scenario(f"{name}-sets", classes, SET)
            yield Subject(of, (_classes(classes),))
        whole = scenario(f"{name}-rows", (), ONE)
        rows = trained_on(whole, seed, "north")
        drawn = [
            np.random.default_rng([seed, 2]).choice(len(rows), round(share * len(rows)), replace=False) for share in SHARES
        ]
        samples = [
            Request(samples=tuple(rows[i] for i in sorted(of)), id=f"{share:.0%} of north")
            for share, of in zip(SHARES, drawn, strict=True)
        ]
        yield Subject(whole, (*samples, Request(sites=("north",), id="north")))

    return subjects


def questions(seed: int) -> Subjects:
    """Text."""
    del seed
    yield from _each("questions", ("HUM", "LOC", "NUM"))


def letters(seed: int) -> Subjects:
    """A table."""
    del seed
    yield from _each("letters", tuple("ABEMOSWX"))


def subclasses(seed: int) -> Subjects:
    """Rows of one fine class, at the site that trained the root and at the heir's."""
    models = {
        "root": {"born": "incremental", "site": "depot", "epochs": 10, "lr": 0.1, "batch": 64},
        "increment": {"born": "incremental", "from": "root", "site": "ward", "epochs": 1, "lr": 0.01},
    }
    data = {"set": "shared_sets:cifar100_coarse", "share": {"depot": 3}, "limit": 400}
    scenario = _parsed("cifar100-subclasses", data, {"name": "cnn", "channels": 16}, models, ONE)
    rows = trained_on(scenario, seed, "depot")
    for kind in ("rocket", "baby", "lamp"):
        found = tuple(r for r in rows if r.rpartition("/")[2].rpartition("-")[0] == kind)
        yield Subject(scenario, (Request(samples=found, id=kind),))


STUDIES = {
    "hospitals": hospitals,
    "mlp": lineage({"name": "mlp", "hidden": 64}),
    "cnn": lineage({"name": "cnn", "channels": 8}),
    "questions": questions,
    "letters": letters,
    "subclasses": subclasses,
}


def _each(family: str, classes: Sequence[str]) -> Subjects:
    """A topology of `families/`, trained once for each class, which sites called `bare-` lack."""
    file = FAMILIES / f"{family}.yaml"
    plain = load(file).model_dump(by_alias=True, mode="json", exclude={"folder"})
    for c in classes:
        data = plain["data"] | {"without": {"bare-*": [c]}, "calibration": 0.15, "held_out": 0.35}  # of the test set here
        yield Subject(
            parse(plain | {"folder": str(FAMILIES), "data": data, "requests": {}, "gate": ONE}, family), (_classes((c,)),)
        )


def _classes(classes: Sequence[str]) -> Request:
    return Request(classes=tuple(classes), id="+".join(classes))


def _parsed(name: str, data: dict[str, Any], net: dict[str, Any], models: dict[str, Any], gate: dict[str, float]) -> Scenario:
    return parse({"name": name, "folder": str(FAMILIES), "data": data, "net": net, "models": models, "gate": gate}, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", choices=[*STUDIES, []], help="by default hospitals")
    parser.add_argument("--size", choices=("test", "cpu"), default="cpu", help="test: one class, one seed, steer and the mask")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default="", help="names, with commas; the whole menu by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--write", action="store_true", help="keep each study's result under results/")
    args = parser.parse_args()
    names, methods = args.studies or ["hospitals"], "steer" if args.size == "test" else args.methods
    for name in names:
        result = study(name, args.size, methods, range(args.seeds if args.size == "cpu" else 1))
        if args.write:
            (RESULTS / f"compare_{name}.csv").write_text(as_csv(result))
            keep(f"compare_{name}", {k: v for k, v in result.items() if k not in ("rows", "cells")})  # they are in the CSV
        print(json.dumps(result, indent=1) if args.json else overview(result).markdown())


def study(name: str, size: str, methods: str, seeds: Sequence[int]) -> dict[str, Any]:
    """One study: its subjects one by one, their rows together."""
    rows: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    limits = {}
    for seed in seeds:
        subjects = list(STUDIES[name](seed))
        if size == "test":
            subjects = [Subject(subjects[0].scenario, subjects[0].requests[:1])]
        for number, subject in enumerate(subjects, 1):
            at = f"{number} of {len(subjects)}, "
            with progress() as say:
                made = compare([subject], choices_of(methods), [seed], WORK, progress=lambda text, at=at: say(at + text))
            found.append(made)
            limits.setdefault(subject.scenario.name, subject.scenario.gate.gate)
            rows += made["rows"]
    asked: dict[str, dict[str, Any]] = {}  # of samples, which every seed draws anew, the name is enough
    for topology, requests in (pair for f in found for pair in f["topologies"].items()):
        asked.setdefault(topology, {}).update({r["id"]: r | {"samples": len(r["samples"])} for r in requests})
    told = {"topologies": {t: list(of.values()) for t, of in asked.items()}, "limits": {n: vars(g) for n, g in limits.items()}}
    made_of = {"methods": found[0]["methods"], "reference": True, "tier": "", **joined(found)}
    tables = {"summary": summary_of(rows, limits), "cells": cells_of(rows, limits), "rows": rows}
    return {"what": __doc__, "size": size, "seeds": list(seeds), **told, **made_of, **tables}


if __name__ == "__main__":
    main()
