"""Request after request to one family: until what breaks?"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from open_questions_family import (
    FIUN,
    LETTERS,
    MASK,
    SMALL,
    SSD_,
    STEER,
    TABLE,
    Lenient,
    Made,
    Rows,
    family,
    samples,
)
from torch import nn

from fedunlearn.compare import Choice
from fedunlearn.compare.work import Nest, kept
from fedunlearn.data import Rows as Data
from fedunlearn.errors import FedUnlearnError
from fedunlearn.evaluation.accuracy import accuracy
from fedunlearn.lineage import Request, discover
from fedunlearn.nets import load
from fedunlearn.runtime import Family, InProcess, Reference, Worker, unlearn
from fedunlearn.runtime.backend import Progress
from fedunlearn.scenario import Scenario, reference, workers

CLASSES, BATCHES = "classes, one by one", "1 % of the rows, again and again"
MODELS = ("root", "heir")


def repeated(size: str, work: Path, say: Progress) -> Made:
    """25 of 26 letters one after another; 50 times 1 % of one model's rows, where SSD is FIUn; each method on its own copy."""
    cpu = size == "cpu"
    rows: Rows = []
    origins = []
    for seed in range(3 if cpu else 1):
        for cell, scenario, requests, choices in cells(cpu, seed):
            nest = Nest.of(work, scenario, seed)
            with nest.alone():
                origins.append(kept(nest.trained, partial(nest.train, say))["origin"])
                for choice in choices:
                    say(f"{cell}, seed {seed}: {choice.label}")
                    path = nest.folder / "repeated" / f"{choice.label}-{len(requests)}.json"
                    found = kept(path, partial(sequence, nest, choice, requests, say))
                    origins.append(found["origin"])
                    rows += [{"cell": cell, "seed": seed, "method": choice.label, **step} for step in found["steps"]]
    return rows, origins


def cells(cpu: bool, seed: int) -> list[tuple[str, Scenario, list[Request], tuple[Choice, ...]]]:
    """What is asked of which family, and who answers."""
    order = np.random.default_rng([seed, 4]).permutation(26)
    base, names = (TABLE, LETTERS) if cpu else (SMALL, tuple("0123456789"))
    asked = [names[i] for i in order if i < len(names)][: len(names) - 1 if cpu else 2]
    one_by_one = family("open-repeated", base, lacks=names[::2])
    many = family("open-batches", base, heir=False)
    choices = (FIUN, SSD_, STEER, MASK) if cpu else (FIUN, STEER, MASK)
    return [
        (CLASSES, one_by_one, [Request(classes=(c,), id=c) for c in asked], choices),
        (BATCHES, many, samples(many, seed, 0.01, 50 if cpu else 2), (FIUN, STEER)),
    ]


def sequence(nest: Nest, choice: Choice, requests: Sequence[Request], say: Progress) -> dict[str, Any]:
    """One method, request after request; every model after each: what was asked so far, the latest, and all else.

    Strengths for samples are chosen towards a model that was trained without all of them.
    """
    with nest.copy() as copy:
        here = workers(nest.scenario, copy)
        backend = InProcess(here, simulation=True)
        twin = reference(Family.open(nest.family), nest.scenario, everything(requests), say)
        first = {n: _net(copy, here, n) for n in MODELS if n in copy.heads}
        apart = InProcess(workers(nest.scenario, twin))
        steps = [state(copy, here, twin, first, requests[:0])]
        for number, request in enumerate(requests, 1):
            failed = ""
            again = Reference.of(twin, discover(copy.lineage, request), apart, ())
            try:
                unlearn(copy, request, choice.method, backend, Lenient(), retrained=again)
            except FedUnlearnError as error:
                failed = str(error)
            steps.append(state(copy, here, twin, first, requests[:number], failed))
            say(f"{choice.label}: request {number} of {len(requests)}")
    return {"steps": [row for step in steps for row in step]}


def everything(requests: Sequence[Request]) -> Request:
    """All of them as one."""
    return Request(tuple(c for r in requests for c in r.classes), tuple(s for r in requests for s in r.samples))


def state(
    copy: Family,
    here: dict[str, Worker],
    twin: Family,
    first: Mapping[str, nn.Module],
    done: Sequence[Request],
    failed: str = "",
) -> Rows:
    """Every model as it is, beside what it was first and as retrained without all: a row each."""
    rows = []
    for name, before in first.items():
        home = copy.lineage[name].home
        test = here[home].data.held_out["test"]
        gone = {c for r in done for c in r.classes}
        sets = [test.of([c]) for r in done for c in r.classes] or [_named(here, r.samples) for r in done]
        net, again = (_net(f, here, name) for f in (copy, twin))
        each = [accuracy(net, rows) for rows in sets]
        counts = [len(rows) for rows in sets]
        rows.append({
            "at": len(done),
            "heir": name,
            "rest": accuracy(net, test.without(gone)),
            "rest_before": accuracy(before, test.without(gone)),
            "rest_retrained": accuracy(again, test.without(gone)),
            "forgotten": _mean(each, counts),
            "worst": max((e for e in each if e is not None), default=None),
            "latest": each[-1] if each else None,
            "retrained": _mean([accuracy(again, rows) for rows in sets], counts),
            "failed": failed,
        })  # fmt: skip
    return rows


def _mean(each: Sequence[float | None], counts: Sequence[int]) -> float | None:
    known = [(e, n) for e, n in zip(each, counts, strict=True) if e is not None]
    return sum(e * n for e, n in known) / sum(n for _, n in known) if known else None


def _named(here: dict[str, Worker], samples: Sequence[str]) -> Data:
    """Rows by their names, all of one site and shard."""
    site, shard, _ = samples[0].split("/", 2)
    rows, wanted = here[site].data.all(shard), {s.split("/", 2)[2] for s in samples}
    return rows.take([i for i, key in enumerate(rows.keys) if key in wanted])


def _net(of: Family, here: dict[str, Worker], name: str) -> nn.Module:
    home = of.lineage[name].home
    found = of.store(home).read(of.heads[name])
    return load(here[home].make_net(len(found.head.classes), found.net), found.weights).eval()


def broken(rows: Sequence[Mapping[str, Any]], limit: float = 0.05) -> int | None:
    """The first request after which the rest is below what it was by more than the gate's limit; None where it never is.

    Args:
        rows: of one family or of several averaged, in order.
        limit: a fraction.
    """
    return next((r["at"] for r in rows if r["rest_before"] - r["rest"] > limit), None)
