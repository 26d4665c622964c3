"""The only code that sees a place's data and weights. One `match` shows all that can be asked of it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from fedunlearn.data import MIRROR, Exclusions, Rows, SiteData
from fedunlearn.data.rows import joined
from fedunlearn.errors import InputError
from fedunlearn.evaluation import Scores, score
from fedunlearn.importance import Importance, measure, pool
from fedunlearn.methods import Case, LogitMask, calibrate, make
from fedunlearn.methods.base import Strength
from fedunlearn.nets import load
from fedunlearn.runtime.tasks import (
    Answer,
    Applied,
    Apply,
    Commit,
    Committed,
    Fetch,
    Fetched,
    Measure,
    Measured,
    Question,
    Score,
    Scored,
    Task,
)
from fedunlearn.store import Store, Version, write_atomically
from fedunlearn.tensors import Head, Tensors


@dataclass(frozen=True)
class Worker:
    """Answers tasks for one place.

    Args:
        place: its name.
        store: where its models' weights are.
        data: its shards and held-out rows; a place that only holds models has no shards.
        make_net: a net for so many outputs, of the family's architecture.
        device: where to compute.
    """

    place: str
    store: Store
    data: SiteData
    make_net: Callable[[int], nn.Module]
    device: str = "cpu"

    def handle(self, task: Task) -> Answer:
        """Do one task.

        Raises:
            FedUnlearnError: it cannot be done; says why.
        """
        with _one_thread():
            match task:
                case Fetch():
                    version = self.store.read(task.version)
                    return Fetched(version.weights, version.head)
                case Measure():
                    return self._measure(task)
                case Score():
                    version = self.store.read(task.version)
                    net = self._net(version.weights, version.head)
                    shapes = {n: tuple(p.shape) for n, p in net.named_parameters()}
                    calibration, test = (self._score(net, task.question, version.head, s) for s in ("calibration", "test"))
                    own = sum(len(self.data.training(shard, classes)) for shard, classes in task.own_shards)
                    return Scored(task.version, version.head, shapes, calibration, test, own)
                case Apply():
                    return self._apply(task)
                case Commit():
                    return self._commit(task)

    def _measure(self, task: Measure) -> Measured:
        if task.weights is not None and task.head is not None:
            weights, head = task.weights, task.head
        else:
            version = self.store.read(task.version)
            weights, head = version.weights, version.head
        if task.selection is not None:
            rows = self.data.selected(task.shard, task.selection)
        else:
            rows = self.data.training(task.shard, task.classes)
        net = self._net(weights, head)
        return Measured(task.version, self._importance(net, rows, head, task.layers, task.statistic))

    def _importance(self, net: nn.Module, rows: Rows, head: Head, layers: str, statistic: str) -> Importance:
        named = rows.for_head(head.classes)
        return measure(net, named.x.to(self.device), named.y.to(self.device), head=head, layers=layers, statistic=statistic)

    def _apply(self, task: Apply) -> Applied:
        version = self.store.read(task.version)
        method = make(task.method, task.settings)
        net = self._net(version.weights, version.head)
        own = task.own
        if own is None and method.statistic is not None:
            parts = [
                self._importance(net, self.data.training(shard, classes), version.head, method.layers, method.statistic)
                for shard, classes in task.own_shards
            ]
            own = pool(parts).mean(method.statistic)
        case = Case(task.evidence, own or {}, version.head, task.question.classes)

        def scored(weights: Tensors, split: str) -> Scores:
            return self._score(load(net, weights), task.question, version.head, split)

        def tried(strength: Strength) -> tuple[float | None, float | None, float]:
            edited = method.edit(version.weights, case, strength)
            found = scored(edited, "calibration")
            return found.forgotten, found.retained, _distance(version.weights, edited)

        before = (task.before.forgotten, task.before.retained)
        choice = calibrate(method.strengths(case), tried, before, task.aim, task.limits)
        candidate = self.store.write(method.edit(version.weights, case, choice.strength), version.head)
        mask = scored(LogitMask().edit(version.weights, case, {}), "test") if _maskable(version, case) else None
        test = scored(self.store.read(candidate).weights, "test")
        return Applied(task.version, candidate, choice.strength, choice.rule, choice.curve, test, mask)

    def _commit(self, task: Commit) -> Committed:
        plain = {
            "line": task.line,
            "heads": dict(sorted(task.heads.items())),
            "exclusions": Exclusions(task.exclusions).to_json(),
        }
        data, path = json.dumps(plain, indent=1).encode(), self.store.folder / MIRROR
        if not path.exists() or path.read_bytes() != data:
            write_atomically(path, data)  # one file: what is acknowledged and what is excluded cannot disagree
        return Committed(task.line)

    def _net(self, weights: Tensors, head: Head) -> nn.Module:
        return load(self.make_net(len(head.classes)), weights).to(self.device).eval()

    def _score(self, net: nn.Module, question: Question, head: Head, split: str) -> Scores:
        held = self.data.held_out.get(split)
        rows = Rows.empty(head.classes) if held is None else held.for_head(head.classes)
        rest = rows.without({*question.classes, *question.gone})
        if question.classes:
            named = [c for c in question.classes if c in head.classes]
            return score(net, rows.of(named), rest, named)
        parts = [self.data.selected(shard, chosen).for_head(head.classes) for shard, chosen in question.selections.items()]
        return score(net, joined(parts) if parts else Rows.empty(head.classes), rest)


def acknowledged(store: Store) -> str | None:
    """Hash of the ledger line that a place last acknowledged; None if it never did, or if its mirror is damaged."""
    try:
        return str(json.loads((store.folder / MIRROR).read_text())["line"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # as good as never: settling writes it anew


def _maskable(version: Version, case: Case) -> bool:
    try:
        LogitMask().edit(version.weights, case, {})
    except InputError:  # all outputs, or no bias to mask with
        return False
    return bool(case.classes)


def _distance(before: Tensors, after: Tensors) -> float:
    """How far an edit moves the weights: the Euclidean distance."""
    moved = sum(float((after[n].double() - t.double()).square().sum()) for n, t in before.items() if t.is_floating_point())
    return float(moved**0.5)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums depend on how they are split among threads; with one, every backend gives the same bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
