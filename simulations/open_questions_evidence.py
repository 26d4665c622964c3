"""Open questions about evidence: of data unlike what was trained on; of a root that its heirs have left behind."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import SHARD
from open_questions_family import (
    BARE,
    FISHER_MASK,
    FIUN,
    FULL,
    IMAGES,
    LFSSD_,
    MASK,
    SMALL,
    SSD_,
    STEER,
    Made,
    Rows,
    classes,
    compared,
    family,
)
from poisoned_evidence import unguarded
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import avg_pool2d

from fedunlearn.compare import Choice, Subject
from fedunlearn.compare.work import Nest, kept
from fedunlearn.data import Rows as Data, open_rows
from fedunlearn.errors import SiteError
from fedunlearn.importance import measure
from fedunlearn.methods import FIUn
from fedunlearn.nets import load
from fedunlearn.runtime import Family, InProcess, Worker, unlearn
from fedunlearn.runtime.backend import Progress
from fedunlearn.runtime.tasks import Answer, Fetched, Measure, Task
from fedunlearn.scenario import Scenario, retrained, workers
from fedunlearn.scenario.files import parse
from fedunlearn.tensors import Tensors

FORGET = "3"
BY_HAND = Choice("fiun, alpha 1", FIUn(alpha=1.0, lam=1.0))
HANDED = ("forgotten_before", "forgotten_after", "retained_before", "retained_after", "mask_retained",
          "retrained_forgotten", "retrained_retained", "rows_forgotten", "rows_retained", "status", "target")  # fmt: skip
TOP = 0.01  # of the weights
DEPTH = 10
STRANGER = "a stranger"


def _mnist(rows: Data) -> Data:
    """As many digits of the same class, written by others, scanned and scaled otherwise."""
    other = open_rows("ci/mnist-{part}.npz", "train")
    small = avg_pool2d(other.x[:, None, 2:26, 2:26], 3)[:, 0]
    at = {c: other.positions([c]).tolist() for c in other.classes}
    chosen = [at[c][i % len(at[c])] for i, c in enumerate(rows.labels)]
    return replace(rows, x=small[chosen])


def _noisy(rows: Data) -> Data:
    return replace(rows, x=rows.x + 0.5 * torch.from_numpy(np.random.default_rng(5).normal(size=rows.x.shape)).float())


def _blurred(rows: Data) -> Data:
    return replace(rows, x=avg_pool2d(rows.x[:, None], 3, 1, 1)[:, 0])


SHIFTS: dict[str, Callable[[Data], Data]] = {
    "as trained": lambda rows: rows,
    "blurred": _blurred,
    "noisy": _noisy,
    "turned by 90 degrees": lambda rows: replace(rows, x=rows.x.rot90(1, (-2, -1))),
    "negative": lambda rows: replace(rows, x=1 - rows.x),
    "MNIST": _mnist,
}


class Elsewhere(InProcess):
    """All places in this process; what is to be forgotten is measured on other rows than were trained on, or another model."""

    def __init__(
        self, places: Mapping[str, Worker], change: Callable[[Data], Data] = lambda rows: rows, stranger: Fetched | None = None
    ) -> None:
        super().__init__(places, simulation=True)
        changed = {p: replace(w.data, shards={s: change(r) for s, r in w.data.shards.items()}) for p, w in places.items()}
        self.told = InProcess({p: replace(w, data=changed[p]) for p, w in places.items()}, simulation=True)
        self.stranger = stranger

    def carry(self, tasks: Sequence[Task]) -> list[Answer]:
        """Evidence there, all else here."""
        answers = []
        for task in tasks:
            if isinstance(task, Measure) and task.selection is not None:
                answers += self.told.carry([replace(task, sent=self.stranger) if self.stranger else task])
            else:
                answers += super().carry([task])
        return answers


def shifted(size: str, work: Path, say: Progress) -> Made:
    """Evidence of the same class on blurred, noisy, turned, negative and others' digits; strengths as ever."""
    cpu = size == "cpu"
    shifts = SHIFTS if cpu else {n: SHIFTS[n] for n in ("as trained", "negative")}
    choices = (FIUN, BY_HAND, SSD_, LFSSD_, FISHER_MASK, STEER) if cpu else (FIUN,)
    rows: Rows = []
    origins = []
    for seed in range(3 if cpu else 1):
        nest = Nest.of(work, family("open-shift", IMAGES, (FORGET,)), seed)
        with nest.alone():
            origins.append(kept(nest.trained, partial(nest.train, say))["origin"])
            for at, (shift, change) in enumerate(shifts.items()):
                for choice in choices:
                    say(f"{shift}, seed {seed}: {choice.label}")
                    path = nest.folder / "shifted" / f"{shift}-{choice.label}.json"
                    found = kept(path, partial(handed, nest, choice, partial(Elsewhere, change=change)))
                    origins.append(found["origin"])
                    rows += [{"cell": shift, "at": at, "seed": seed, "method": choice.label, **row} for row in found["rows"]]
    return rows, origins


def handed(nest: Nest, choice: Choice, backend: Callable[[Mapping[str, Worker]], InProcess]) -> dict[str, Any]:
    """One edit with a backend of its own; what bounds on evidence refuse is then taken all the same."""
    with nest.copy() as copy:
        here = workers(nest.scenario, copy)
        again = retrained(Family.open(nest.family), nest.scenario, classes((FORGET,)), InProcess(here))
        refused = ""
        for guard in (nullcontext, unguarded):
            try:
                with guard():
                    record = unlearn(
                        copy, classes((FORGET,)), choice.method, backend(here), nest.scenario.gate.gate, retrained=again
                    )
                break
            except SiteError as error:
                if refused:
                    raise
                refused = str(error)
        models = [{"heir": m["name"], **{k: m[k] for k in HANDED}} for m in record.facts["models"]]
    return {"rows": [{"refused": refused, **m} for m in models]}


def chain(name: str, lr: float, depth: int) -> Scenario:
    """A root, and heirs one of another, at two sites that lack the class."""
    models: dict[str, Any] = {"root": {"born": "incremental", "site": FULL, "epochs": 12}}
    last = "root"
    for number in range(1, depth + 1):
        site = f"{BARE}-{1 + number % 2}"
        models[f"heir-{number}"] = {"born": "incremental", "from": [last], "site": site, "epochs": 2, "lr": lr}
        last = f"heir-{number}"
    data = {**SMALL["data"], "without": {f"{BARE}-*": [FORGET]}, "share": {FULL: 2}}
    return parse({"name": name, **SMALL, "data": data, "models": models}, name)


def drift(size: str, work: Path, say: Progress) -> Made:
    """Depth 0 to 10, trained gently and roughly: evidence of the root, of the heir itself, and of a stranger to it."""
    cpu = size == "cpu"
    depth, seeds = (DEPTH, 3) if cpu else (2, 1)
    rows: Rows = []
    origins: list[Any] = []
    for cell, lr in (("gentle: learning rate 0.02", 0.02), ("rough: learning rate 0.1", 0.1))[: 2 if cpu else 1]:
        scenario = chain(f"open-drift-{lr:g}".replace(".", "-"), lr, depth)
        subject = Subject(scenario, (classes((FORGET,)),))
        choices = (FIUN, SSD_, STEER, MASK) if cpu else (FIUN, SSD_)
        found, where = compared(cell, 0, subject, choices, seeds, work, say)
        rows += [{**r, "at": r["depth"]} for r in found]
        origins += where
        for seed in range(seeds):
            nest, other = Nest.of(work, scenario, seed), Nest.of(work, family("open-stranger", SMALL, heir=False), seed + 100)
            with nest.alone(), other.alone():
                origins.append(kept(other.trained, partial(other.train, say))["origin"])
                say(f"{cell}, seed {seed}: comparing evidence")
                alike = kept(nest.folder / "drift" / "alike.json", partial(likeness, nest, other))
                strange = kept(nest.folder / "drift" / "strange.json", partial(strangers, nest, other))
            rows += [{"cell": cell, "seed": seed, **row} for row in alike["rows"]]
            about = {"cell": cell, "seed": seed, "method": f"fiun, evidence of {STRANGER}"}
            rows += [about | row | {"at": _depth(row["heir"])} for row in strange["rows"]]
    return rows, origins


def _depth(heir: str) -> int:
    return 0 if heir == "root" else int(heir.removeprefix("heir-"))


def strangers(nest: Nest, other: Nest) -> dict[str, Any]:
    """FIUn with the evidence of another family's root, which has the same net and classes and nothing else in common."""
    of = Family.open(other.family)
    found = of.store(FULL).read(of.heads["root"])
    sent = Fetched(found.weights, found.head, found.net)
    return handed(nest, FIUN, partial(Elsewhere, stranger=sent))


def likeness(nest: Nest, other: Nest) -> dict[str, Any]:
    """How alike the evidence of root, or stranger, is to a model's own, all on the rows that the root was trained on."""
    of, far = Family.open(nest.family), Family.open(other.family)
    here, there = workers(nest.scenario, of), workers(other.scenario, far)
    forgotten = here[FULL].data.all(SHARD).of([FORGET])
    root = _squares(of, here, "root", forgotten)
    others = {"root": root, STRANGER: _squares(far, there, "root", forgotten)}
    rows = []
    for name in of.heads:
        own = _squares(of, here, name, forgotten)
        shards = [here[s.site].data.all(s.name) for s in of.lineage.own(name)]
        usual = _squares(of, here, name, shards[0])
        last = [n for n in own if n.startswith("head")]
        for part, names in (("last layer", last), ("below", [n for n in own if n not in last])):
            ours, mine = (_flat(t, names) for t in (own, usual))
            for whose, told in others.items():
                theirs = _flat(told, names)
                rows.append({
                    "at": _depth(name), "heir": name, "part": part, "evidence": whose,
                    "cosine": float(torch.dot(theirs, ours) / (theirs.norm() * ours.norm())),
                    "spearman": float(spearmanr(theirs.numpy(), ours.numpy()).statistic),
                    "overlap": _overlap(theirs / mine, ours / mine),
                })  # fmt: skip
    return {"rows": rows}


def _squares(of: Family, here: Mapping[str, Worker], name: str, rows: Data) -> Tensors:
    home = of.lineage[name].home
    found = of.store(home).read(of.heads[name])
    net = load(here[home].make_net(len(found.head.classes), found.net), found.weights).eval()
    return measure(net, rows.x, rows.y, head=found.head).mean("squares")


def _flat(tensors: Tensors, names: Sequence[str]) -> Tensor:
    return torch.cat([tensors[n].flatten() for n in names])


def _overlap(theirs: Tensor, ours: Tensor) -> float:
    """Share of the `TOP` weights by one that are so by the other."""
    number = max(1, round(TOP * len(ours)))
    first, second = (set(t.nan_to_num(0.0).argsort(descending=True)[:number].tolist()) for t in (theirs, ours))
    return len(first & second) / number
