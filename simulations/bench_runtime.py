"""What carrying tasks costs beyond doing them: in this process, over a Flower grid in this process, over Ray on this machine.

A star of heirs (one root's body, a head of each heir's own) is scored and steered, as `unlearn` does it: one call for all
scores, one for all edits. `extra_ms` is the wall time of both calls in which no worker was at a task, per heir; `own_ms` that
in which one was. Medians of three, or once where that takes more than five seconds, after one heir a place that does not count.
What a worker notes of its times (microseconds a task) is part of the extra. `start_s` is what it takes to make the backend (for
Ray, a cluster), `first_s` the first call at every place, which opens it (for Ray, starts its process and imports torch); both
are in no other number. Every backend must give the same versions.

Two workers against one: the same tasks at two places and at one, over Ray on two cores, one thread each; the best of five,
in turns. Whatever else runs takes from that ratio first: the host should be idle, and `load` says whether it was. `at_work` is
how many workers were at a task, on average over the wall time: that they do run at once shows there on a busy host, too.

Ray listens on every interface; run this where there is none but loopback:

    unshare --map-root-user --net sh -c "ip link set lo up && python simulations/bench_runtime.py"

Long because the three ways of carrying stand side by side, and what Ray's workers are sent must stand in the script itself.
"""

import json
import os
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from common import arguments, keep, origin

from fedunlearn.data import Rows, Selection, SiteData
from fedunlearn.methods import Steer
from fedunlearn.methods.base import Evidence
from fedunlearn.methods.calibration import NOTHING_LEFT
from fedunlearn.methods.steer import MARGIN
from fedunlearn.nets import build, head_of, weights_of
from fedunlearn.runtime import InProcess, Worker
from fedunlearn.runtime.backend import Backend, ask
from fedunlearn.runtime.tasks import Answer, Applied, Apply, Measure, Measured, Question, Score, Scored, Survey, Surveyed, Task
from fedunlearn.store import Store

CLASSES = tuple(map(str, range(10)))
FORGET, REST = CLASSES[:1], CLASSES[1:]
SETTINGS = {"factor": MARGIN}  # as it was sent: no choosing of strengths, so that little work hides little cost
NETS: dict[str, tuple[dict[str, Any], tuple[int, ...], int]] = {  # the net, one input, rows of each kind at a place
    "mlp": ({"name": "mlp"}, (64,), 50),
    "resnet20": ({"name": "resnet_cifar"}, (3, 32, 32), 60),
    "resnet18": ({"name": "torchvision", "model": "resnet18"}, (3, 32, 32), 10),
}
STARS = {  # net, heirs, places
    "test": [("mlp", 1, 1), ("mlp", 6, 2)],
    "cpu": [*(("mlp", heirs, 1) for heirs in (1, 10, 100, 1000)), ("mlp", 100, 4), ("resnet18", 20, 1)],
}
REPEATS, LONG = 3, 5.0  # runs of one star, and seconds after which there is no other
BEST_OF = 5
BOUND = ("resnet20", 6)  # compute-bound: small weights, many operations
SPAN = "dd"  # began, ended


class Timed:
    """A worker that notes when it was at a task, in a file, by the clock that all processes of a machine share."""

    def __init__(self, worker: Worker, log: Path) -> None:
        self.worker, self.place, self.methods = worker, worker.place, worker.methods
        self.log = log.open("ab", buffering=0)

    def handle(self, task: Task) -> Answer:
        began = time.monotonic()
        try:
            return self.worker.handle(task)
        finally:
            self.log.write(struct.pack(SPAN, began, time.monotonic()))


def open_place(folder: Path, net: str, place: str) -> Timed:
    """The same random rows at every place, in every process."""
    spec, shape, rows = NETS[net]

    def drawn(seed: int) -> Rows:
        x = torch.randn(rows, *shape, generator=torch.Generator().manual_seed(seed))
        return Rows(x, torch.arange(rows) % len(CLASSES), tuple(map(str, range(rows))), CLASSES)

    data = SiteData(place, {"own": drawn(0)}, {"calibration": drawn(1), "test": drawn(2)})
    folder.mkdir(exist_ok=True)
    worker = Worker(place, Store(folder / place), data, lambda outputs, *_: build(spec, shape, outputs))
    return Timed(worker, folder / f"{place}.spans")


@dataclass(frozen=True)
class Star:
    """Heirs of one root, spread over places, and what is asked about each, in turn."""

    folder: Path
    net: str
    places: tuple[str, ...]
    scores: tuple[Score, ...]
    applies: tuple[Apply, ...]

    @property
    def sites(self) -> dict[str, Callable[[], Timed]]:
        return {place: partial(open_place, self.folder, self.net, place) for place in self.places}

    @property
    def first(self) -> "Star":
        """One heir a place."""
        return replace(self, scores=self.scores[: len(self.places)], applies=self.applies[: len(self.places)])


def star(folder: Path, net: str, heirs: int, places: Sequence[str]) -> Star:
    """Nets that were never trained: they cost as much to score and to edit as others.

    The scores before are the root's: with one strength, nothing is chosen by them.
    """
    spec, shape, _ = NETS[net]
    root = build(spec, shape, len(CLASSES), seed=0)
    head, weights, question = head_of(root, CLASSES), weights_of(root), Question(FORGET)
    workers = {place: open_place(folder, net, place).worker for place in places}
    first = workers[places[0]]
    version = first.store.write(weights, head)
    asked = Measure(
        first.place, version, "own", "sum", "last", Selection(FORGET), (),
        loss="masked", masked=FORGET, method=Steer.name, settings=SETTINGS,
    )  # fmt: skip
    measured, before = first.handle(asked), first.handle(Score(first.place, version, question))
    assert isinstance(measured, Measured)
    assert isinstance(before, Scored)
    scores, applies = list[Score](), list[Apply]()
    for i in range(heirs):
        home, own = workers[places[i % len(places)]], ("own", REST, ())
        noise = torch.randn(weights[head.names[0]].shape, generator=torch.Generator().manual_seed(i))
        version = home.store.write({**weights, head.names[0]: weights[head.names[0]] + 0.01 * noise}, head)
        scores.append(Score(home.place, version, question, (own,)))
        found = measured.importance  # its mean is made anew: an heir's evidence is its own once it is aligned, and sent apart
        evidence = (Evidence(found.mean("sum"), found.count, FORGET[0], measured.enough),)
        edit = Apply(
            home.place, version, Steer.name, SETTINGS, evidence, None, (own,), question, before.calibration,
            aim=NOTHING_LEFT, limits=(0.05, 0.05),
        )  # fmt: skip
        applies.append(edit)
    return Star(folder, net, tuple(places), tuple(scores), tuple(applies))


@contextmanager
def in_process(of: Star) -> Iterator[Backend]:
    yield InProcess({place: make() for place, make in of.sites.items()})


@contextmanager
def flower(of: Star) -> Iterator[Backend]:
    from fedunlearn.runtime.flower import Flower, client_app
    from fedunlearn.training.flower import LocalGrid

    held = {place: make() for place, make in of.sites.items()}
    app = client_app(lambda context: held[str(context.node_config["site"])])
    yield Flower(LocalGrid(app, {1 + i: {"site": place} for i, place in enumerate(held)}), join=0)


@contextmanager
def ray(*of: Star) -> Iterator[Backend]:
    from fedunlearn.runtime.ray import Ray

    sites = {place: make for one in of for place, make in one.sites.items()}
    with Ray(sites, num_cpus=2) as backend:
        yield backend


BACKENDS: dict[str, tuple[Callable[[Star], Any], str]] = {  # and the package that it needs
    "in-process": (in_process, "torch"), "flower": (flower, "flwr"), "ray": (ray, "ray"),
}  # fmt: skip


def absent(name: str, size: str) -> str | None:
    """Why a backend is left out."""
    package = BACKENDS[name][1]
    if name == "ray" and size == "test":
        return "takes longer than a test may"
    return None if find_spec(package) else f"{package} is not installed"


def carried(backend: Backend, of: Star) -> tuple[float, tuple[str, ...]]:
    """Seconds of both calls, and the versions that they made."""
    began = time.monotonic()
    ask(backend, of.scores, Scored)
    applied = ask(backend, of.applies, Applied)
    return time.monotonic() - began, tuple(a.version for a in applied)


def spans(of: Star, since: float) -> list[tuple[float, float]]:
    """When workers began and ended tasks."""
    found = [span for place in of.places for span in struct.iter_unpack(SPAN, (of.folder / f"{place}.spans").read_bytes())]
    return sorted((began, ended) for began, ended in found if began >= since)


def busy(of: Star, since: float) -> float:
    """Seconds in which at least one worker was at a task."""
    total, until = 0.0, since
    for began, ended in spans(of, since):
        total += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return total


def bench(of: Star, name: str, made: set[tuple[str, ...]]) -> dict[str, Any]:
    """One backend on one star; `made` gets the versions of every run."""
    heirs, marks = len(of.scores), [time.monotonic()]
    with BACKENDS[name][0](of) as backend:
        marks.append(time.monotonic())
        ask(backend, [Survey(place) for place in of.places], Surveyed)
        marks.append(time.monotonic())
        carried(backend, of.first)
        walls, own = list[float](), list[float]()
        while len(walls) < REPEATS and sum(walls) < LONG:
            since = time.monotonic()
            took, versions = carried(backend, of)
            walls.append(took)
            own.append(busy(of, since))
            made.add(versions)
    extra = [1000 * (w - o) / heirs for w, o in zip(walls, own, strict=True)]
    return {
        "backend": name, "net": of.net, "heirs": heirs, "places": len(of.places),
        "extra_ms": round(statistics.median(extra), 4), "extras_ms": [round(e, 4) for e in sorted(extra)],
        "own_ms": round(1000 * statistics.median(own) / heirs, 3), "wall_s": round(statistics.median(walls), 4),
        "start_s": round(marks[1] - marks[0], 3), "first_s": round(marks[2] - marks[1], 3),
    }  # fmt: skip


def two_against_one(folder: Path) -> dict[str, Any]:
    """Wall times of the same tasks at one place and at two, in turns."""
    net, heirs = BOUND
    stars = {"one": star(folder, net, heirs, ["one"]), "two": star(folder, net, heirs, ["left", "right"])}
    walls: dict[str, list[float]] = {what: [] for what in stars}
    at_work: dict[str, list[float]] = {what: [] for what in stars}
    with ray(*stars.values()) as backend:
        for of in stars.values():
            carried(backend, of.first)
        for _ in range(BEST_OF):
            for what, of in stars.items():
                since = time.monotonic()
                took, _ = carried(backend, of)
                walls[what].append(round(took, 3))
                at_work[what].append(round(sum(ended - began for began, ended in spans(of, since)) / took, 3))
    ratio = round(min(walls["one"]) / min(walls["two"]), 3)
    return {"net": net, "heirs": heirs, "wall_s": walls, "at_work": at_work, "ratio": ratio}


def table(result: dict[str, Any]) -> str:
    """One line a star; milliseconds a heir, seconds for what happens once."""
    lines = [
        "| net | heirs | places | own work, ms a heir | extra, ms a heir: in-process | Flower | Ray "
        "| start and first call, s: in-process | Flower | Ray |",
        "|---" * 10 + "|",
    ]
    rows = {(r["net"], r["heirs"], r["places"], r["backend"]): r for r in result["rows"]}
    for net, heirs, places in dict.fromkeys(key[:3] for key in rows):
        cells = [rows[net, heirs, places, name] for name in BACKENDS]
        extra = ["-" if "skipped" in c else f"{c['extra_ms']:.2f}" for c in cells]
        start = ["-" if "skipped" in c else f"{c['start_s']:.2f} + {c['first_s']:.2f}" for c in cells]
        lines.append(f"| {net} | {heirs:,} | {places} | {cells[0]['own_ms']:.1f} | {' | '.join(extra)} | {' | '.join(start)} |")
    two = result["two_against_one"]
    if "skipped" in two:
        said = f"left out ({two['skipped']})"
    else:
        one_s, two_s = (two["wall_s"][what] for what in ("one", "two"))
        said = (
            f"{two['ratio']:.2f} times as fast ({two['heirs']} heirs, {two['net']}; best of {len(one_s)}: {min(one_s):.2f} s "
            f"against {min(two_s):.2f} s); on average {statistics.median(two['at_work']['two']):.2f} of the two were at a task"
        )
    load = " and ".join(f"{one:.1f}" for one in result["load"])
    return "\n".join(lines) + f"\n\nTwo workers against one: {said}. Load of the host before and after: {load}."


def main() -> None:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    load, rows = [os.getloadavg()[0]], list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        for i, (net, heirs, places) in enumerate(STARS[args.size]):
            of = star(Path(folder) / str(i), net, heirs, [f"place-{k}" for k in range(places)])
            made = set[tuple[str, ...]]()
            for name in BACKENDS:
                if (why := absent(name, args.size)) is None:
                    rows.append(bench(of, name, made))
                else:
                    rows.append({"backend": name, "net": net, "heirs": heirs, "places": places, "skipped": why})
                print(rows[-1], file=sys.stderr, flush=True)
            if len(made) > 1:
                raise RuntimeError(f"{net}, {heirs} heirs: the backends made different versions")
        why = absent("ray", args.size)
        two = {"skipped": why} if why else two_against_one(Path(folder) / "two")
    load.append(os.getloadavg()[0])
    result = {
        "what": __doc__, "size": args.size, "seed": 0, **origin("flwr", "ray", "torchvision"),
        "load": [round(one, 2) for one in load], "two_against_one": two, "rows": rows,
    }  # fmt: skip
    if args.write:
        keep(f"bench_runtime_{args.size}", result)
    print(json.dumps(result, indent=1) if args.json else table(result))


if __name__ == "__main__":
    main()
