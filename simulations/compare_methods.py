"""What does every method of the menu leave, and what does it cost, on families of many kinds?

One configuration for everything, strengths found by the methods themselves, three seeds, the retrained family beside them:

hospitals     the topology of the demo as it is, each class of digits in a request of its own
mlp, cnn      a federation of two sites, an increment, a federation of it, an increment of that, and a head on it, on 28x28
              digits: each class (which only the first two sites hold), sets of two and four, 1 % and 10 % of one of the two
              sites' rows, and all of them
questions     text: three of six kinds of questions, a small recurrent net
letters       a table: eight of 26 letters
subclasses    CIFAR-100 in five of its 20 classes: one of the five kinds of things that make a class, a ResNet-8
cifar10       a ResNet-20 and the same four heirs: cars
cifar10_cat   the same: cats
cifar10_four  the same with a set of four classes
published     the same heirs of a published ResNet-20, which was trained on images that are not here: each class, without the
              retrained family

All but the first read the folder of data sets that FEDUNLEARN_DATA names. The same comparison of a topology is made by
`fedunlearn compare`.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import ALL, Part, splits, trained_on, within
from kept import beside, summed, write

from fedunlearn.cli.console import progress
from fedunlearn.compare import Subject, choices_of, compare, overview, requests_of
from fedunlearn.compare.origin import joined
from fedunlearn.errors import InputError, unknown
from fedunlearn.lineage import Request
from fedunlearn.scenario import Scenario, find_topology, load
from fedunlearn.scenario.files import parse
from fedunlearn.scenario.trainer import as_yaml

FAMILIES = Path(__file__).parent / "families"
sys.path.append(str(FAMILIES))  # its loaders, as for the topologies that lie there
WORK = Path("runs/compare_methods")
ONE = {"forgotten_at_most": 0.01, "retained_drop_at_most": 0.01}  # what a single class may leave and cost
SET = {"forgotten_at_most": 0.0107, "retained_drop_at_most": 0.02}  # four classes, FIUn's own best
MNIST = {"set": "shared_sets:mnist"}
DIGITS = tuple("0123456789")
OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
COLOURED = {"batch": 64, "schedule": "cosine", "precision": "bf16"}  # half the hours where the processor has it
SETS = (("0", "1"), ("8", "9"), ("0", "1", "2", "3"), ("3", "5", "8", "9"))
SHARES = (0.01, 0.1)


Subjects = Iterator[Subject]  # of one seed


def hospitals(seed: int) -> Subjects:
    """The demo's."""
    del seed
    yield Subject.of(load(find_topology("hospitals")), requests_of(",".join(DIGITS)))


def lineage(net: dict[str, Any], epochs: int = 2, lr: float = 0.1) -> Callable[[int], Subjects]:
    """A federation and four heirs, at sites without what is asked."""
    root = {"born": "federated", "clients": ["north", "south"], "rounds": 4, "epochs": epochs, "lr": lr}

    def scenario(name: str, forget: Sequence[str], gate: dict[str, Any]) -> Scenario:
        return _heirs(name, DIGITS, MNIST, net, {"root": root}, {"lr": 0.01}, forget, gate)

    def subjects(seed: int) -> Subjects:
        name = f"mnist-{net['name']}"
        for classes in (*((c,) for c in DIGITS), *SETS):
            of = scenario(name, classes, ONE) if len(classes) == 1 else scenario(f"{name}-sets", classes, SET)
            yield Subject(of, (_classes(classes),))
        whole = scenario(f"{name}-rows", (), ONE | {"score_at_roots": True})  # no home but north's has those rows
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
        "root": {"born": "incremental", "site": "depot", "epochs": 20, "lr": 0.1, **COLOURED},
        "increment": {"born": "incremental", "from": "root", "site": "ward", "epochs": 1, "lr": 0.01, **COLOURED},
    }
    data = {"set": "shared_sets:cifar100_five", "test": "shared_sets:cifar100_five", "share": {"depot": 3}, "limit": 1000}
    net, gate = {"name": "resnet_cifar", "depth": 8}, ONE | {"score_at_roots": True}  # no home but the depot has those rows
    scenario = _parsed("cifar100-subclasses", data, net, models, gate)
    rows = trained_on(scenario, seed, "depot")
    for kind in ("rocket", "baby", "lamp"):
        found = tuple(r for r in rows if r.rpartition("/")[2].rpartition("-")[0] == kind)
        yield Subject(scenario, (Request(samples=found, id=kind),))


def cifar10(*classes: str) -> Callable[[int], Subjects]:
    """A class, or a set of them, on coloured images."""
    root = {"born": "federated", "clients": ["north", "south"], "rounds": 6, "epochs": 3, "lr": 0.1, **COLOURED}

    def subjects(seed: int) -> Subjects:
        del seed
        yield _coloured("cifar10" if len(classes) == 1 else "cifar10-sets", root, classes)

    return subjects


def published(seed: int) -> Subjects:
    """Each class, at heirs of a checkpoint; the first site holds images that it was trained on."""
    del seed
    root = {"file": str(_data_folder() / "models/resnet20-cifar10.safetensors"), "site": "north", "head": list(OBJECTS)}
    for c in OBJECTS:
        yield _coloured("published", root, (c,))


STUDIES = {
    "hospitals": hospitals,
    "mlp": lineage({"name": "mlp", "hidden": 64}),
    "cnn": lineage({"name": "cnn", "channels": 8}, epochs=6, lr=0.05),  # as for the MLP, some retrained ones stay at chance
    "questions": questions,
    "letters": letters,
    "subclasses": subclasses,
    "cifar10": cifar10("automobile"),
    "cifar10_cat": cifar10("cat"),
    "cifar10_four": cifar10("airplane", "automobile", "bird", "cat"),
    "published": published,
}
WITHOUT_RETRAINED = {"published"}


def _each(family: str, classes: Sequence[str]) -> Subjects:
    """A topology of `families/`, trained once for each class, which sites called `bare-` lack."""
    file = FAMILIES / f"{family}.yaml"
    plain = load(file).model_dump(by_alias=True, mode="json", exclude={"folder"})
    for c in classes:
        data = plain["data"] | {"without": {"bare-*": [c]}, "calibration": 0.15, "held_out": 0.35}  # of the test set here
        yield Subject(
            parse(plain | {"folder": str(FAMILIES), "data": data, "requests": {}, "gate": ONE}, family), (_classes((c,)),)
        )


def _coloured(name: str, root: dict[str, Any], forget: Sequence[str]) -> Subject:
    first = root.get("clients", [root.get("site")])
    data = {"set": "shared_sets:cifar10", "test": "shared_sets:cifar10", "share": dict.fromkeys(first, 4)}
    net, tuned = {"name": "resnet_cifar", "depth": 20}, {"lr": 0.001, **COLOURED}
    gate = ONE if len(forget) == 1 else SET
    return Subject(_heirs(name, OBJECTS, data, net, {"root": root}, tuned, forget, gate), (_classes(forget),))


def _heirs(
    name: str, classes: Sequence[str], data: dict[str, Any], net: dict[str, Any], root: dict[str, Any], tuned: dict[str, Any],
    forget: Sequence[str], gate: dict[str, Any],
) -> Scenario:  # fmt: skip
    """A root, an increment, a federation of it, an increment of that, and a head, at sites without what is asked.

    Args:
        name: of the topology.
        classes: of the set.
        data: the set.
        net: the net.
        root: the first model, under its name.
        tuned: how heirs are trained on.
        forget: what those sites lack.
        gate: the limits.
    """
    once = {"epochs": 1, **tuned}
    models = {
        **root,
        "increment": {"born": "incremental", "from": "root", "site": "ward", **once},
        "joined": {"born": "federated", "from": "increment", "clients": ["ward", "clinic"], "rounds": 1, **tuned},
        "later": {"born": "incremental", "from": "joined", "site": "clinic", **once},
        "head": {"born": "transfer", "from": "joined", "site": "clinic", "head": [c for c in classes if c not in forget][:4]},
    }
    bare = {site: list(forget) for site in ("ward", "clinic")} if forget else {}
    return _parsed(name, data | {"without": bare}, net, models, gate)


def _data_folder() -> Path:
    if not (folder := os.environ.get("FEDUNLEARN_DATA")):
        raise InputError("published: the checkpoint lies in the folder that FEDUNLEARN_DATA names, and it is not set; set it")
    return Path(folder)


def _classes(classes: Sequence[str]) -> Request:
    return Request(classes=tuple(classes), id="+".join(classes))


def _parsed(name: str, data: dict[str, Any], net: dict[str, Any], models: dict[str, Any], gate: dict[str, Any]) -> Scenario:
    return parse({"name": name, "folder": str(FAMILIES), "data": data, "net": net, "models": models, "gate": gate}, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", choices=[*STUDIES, []], help="by default hospitals")
    parser.add_argument("--size", choices=("test", "cpu"), default="cpu", help="test: one class, one seed, steer and the mask")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    parser.add_argument("--first", type=int, default=0, help="not the seeds below it, whose results are kept")
    parser.add_argument("--methods", default="", help="names, with commas, others' results are kept; the whole menu by default")
    parser.add_argument("--set", action="append", default=[], metavar="METHOD.KEY=VALUE", help="as of `fedunlearn compare`")
    parser.add_argument("--only", default="", help="names of topologies, with commas, others' results are kept; all by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--write", action="store_true", help="keep each study's result under results/")
    splits(parser)
    args = parser.parse_args()
    ends = args.seeds if args.size == "cpu" else 1
    if not 0 <= args.first < ends:
        parser.error(f"--first is {args.first}, expected a seed from 0 up, below {ends}: raise --seeds, or leave it out")
    names, methods = args.studies or ["hospitals"], "steer,logit_mask" if args.size == "test" else args.methods
    for name in names:
        found = study(name, args.size, methods, range(args.first, ends), args.part, args.only, args.set)
        if args.part != ALL:
            continue
        result = told(name, args.size, found)
        if args.write:
            write(f"compare_{name}", beside(f"compare_{name}", result) if args.methods or args.first or args.only else result)
        print(json.dumps(result, indent=1) if args.json else overview(result).markdown())


def study(
    name: str, size: str, methods: str, seeds: Sequence[int], part: Part = ALL, only: str = "", settings: Sequence[str] = ()
) -> list[tuple[Subject, dict[str, Any]]]:
    """One study, or a part of it: what came of its subjects, one by one."""
    found = []
    jobs = [(seed, subject) for seed in seeds for subject in STUDIES[name](seed)]
    known = dict.fromkeys(subject.scenario.name for _, subject in jobs)
    for topology in only.split(",") if only else ():
        if topology not in known:
            raise unknown("topology", topology, known, where=f"--only, of {name}")
    jobs = [job for job in jobs if not only or job[1].scenario.name in only.split(",")]
    if size == "test":
        jobs = [(seed, Subject(subject.scenario, subject.requests[:1])) for seed, subject in jobs[:1]]
    jobs = part.share(jobs, lambda job: (job[0], as_yaml(job[1].scenario)))
    reference = name not in WITHOUT_RETRAINED
    choices = choices_of(methods, settings)[: len(methods.split(",")) if methods else None]  # the mask only if it is named
    for number, (seed, subject) in enumerate(jobs, 1):
        with progress() as say:
            made = compare([subject], choices, [seed], WORK, reference, progress=within(say, f"{number} of {len(jobs)}, "))
        found.append((subject, made))
    return found


def told(name: str, size: str, found: Sequence[tuple[Subject, dict[str, Any]]]) -> dict[str, Any]:
    """A whole study as one result: its rows together."""
    rows = [row for _, made in found for row in made["rows"]]
    limits = {subject.scenario.name: subject.scenario.gate.gate for subject, _ in found}
    asked: dict[str, dict[str, Any]] = {}  # of samples, which every seed draws anew, the name is enough
    for topology, requests in (pair for _, made in found for pair in made["topologies"].items()):
        asked.setdefault(topology, {}).update({r["id"]: r | {"samples": len(r["samples"])} for r in requests})
    first, seeds = found[0][1], dict.fromkeys(seed for _, made in found for seed in made["seeds"])
    return summed({
        "what": __doc__, "size": size, "seeds": list(seeds),
        "topologies": {t: list(of.values()) for t, of in asked.items()}, "limits": {n: vars(g) for n, g in limits.items()},
        "methods": first["methods"], "reference": name not in WITHOUT_RETRAINED, "tier": "", **joined(m for _, m in found),
        "rows": rows,
    })  # fmt: skip


if __name__ == "__main__":
    main()
