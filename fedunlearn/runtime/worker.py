"""The only code that sees a place's data and weights. One `match` shows all that can be asked of it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from blake3 import blake3
from torch import nn

from fedunlearn.data import MIRROR, Exclusions, Rows, SiteData
from fedunlearn.data.rows import joined
from fedunlearn.errors import InputError
from fedunlearn.evaluation import Scores, score
from fedunlearn.importance import Importance, by_class, measure, pool
from fedunlearn.methods import Case, LogitMask, calibrate, make
from fedunlearn.methods.base import Strength
from fedunlearn.nets import load
from fedunlearn.runtime.births import survey, train
from fedunlearn.runtime.features import features, last_layer
from fedunlearn.runtime.tasks import (
    Answer,
    Applied,
    Apply,
    Commit,
    Committed,
    Deposit,
    Deposited,
    Fetch,
    Fetched,
    Measure,
    Measured,
    Question,
    Score,
    Scored,
    Survey,
    Task,
    Train,
)
from fedunlearn.store import Bank, Banked, Store, Version, write_atomically
from fedunlearn.tensors import Head, Tensors, names_in


@dataclass(frozen=True)
class Worker:
    """Answers tasks for one place.

    Args:
        place: its name.
        store: where its models' weights are.
        data: its shards and held-out rows; a place that only holds models has no shards.
        make_net: a net for so many outputs, of the family's architecture of that name (empty for its own).
        device: where to compute.
        methods: beyond the menu, that a task out of a message may name here; each "their.module:Class".
    """

    place: str
    store: Store
    data: SiteData
    make_net: Callable[[int, str], nn.Module]
    device: str = "cpu"
    methods: tuple[str, ...] = ()

    def handle(self, task: Task) -> Answer:
        """Do one task.

        Raises:
            FedUnlearnError: it cannot be done; says why.
        """
        if isinstance(task, Train):  # with all threads: it is long, and training in one process has them too
            return train(task, self.data, self.store, self.make_net, self.device)
        with _one_thread():
            match task:
                case Survey():
                    return survey(task, self.data)
                case Fetch():
                    version = self.store.read(task.version)
                    return Fetched(version.weights, version.head, version.net)
                case Measure():
                    return self._measure(task)
                case Deposit():
                    return self._deposit(task)
                case Score():
                    version = self.store.read(task.version)
                    net = self._net(version)
                    shapes = {n: tuple(p.shape) for n, p in net.named_parameters()}
                    calibration, test = (self._score(net, task.question, version.head, s) for s in ("calibration", "test"))
                    own = sum(self._own_rows(task.version, shard, classes) for shard, classes in task.own_shards)
                    return Scored(task.version, version.head, shapes, calibration, test, own)
                case Apply():
                    return self._apply(task)
                case Commit():
                    return self._commit(task)

    def _measure(self, task: Measure) -> Measured:
        banked = self._banked(task)
        if banked is not None:
            return Measured(task.version, banked, 0)
        found = self._weights(task)
        head = found.head
        if task.selection is not None:
            rows = self.data.selected(task.shard, task.selection)
        else:
            rows = self.data.training(task.shard, task.classes)
        importance = self._importance(self._net(found), rows, head, task.layers, task.statistic)
        return Measured(task.version, importance, len(rows))

    def _banked(self, task: Measure) -> Importance | None:
        """Out of the bank, where the sums of whole classes of this very version, on these very rows, are in it."""
        held = Bank(self.store.folder).read(self._what(task.version, task.shard, task.statistic))
        excluded = self.data.exclusions.by_request.values()
        if held is None or (task.selection is not None and task.selection.samples):
            return None
        if task.selection is not None:
            wanted = set(task.selection.classes or held)
        elif any(s.samples or not s.classes for s in excluded):
            return None  # part of a class is excluded: only a fresh measurement leaves it out
        else:
            wanted = set(task.classes) - {c for s in excluded for c in s.classes}
        parts = [Importance({task.statistic: held[c].sums}, held[c].count) for c in sorted(wanted & held.keys())]
        if not parts:
            return None
        pooled = pool(parts)
        head = self._weights(task).head if task.layers != "all" else None
        chosen = names_in(task.layers, pooled.sums[task.statistic], head) if head else pooled.sums[task.statistic]
        return Importance({task.statistic: {n: pooled.sums[task.statistic][n] for n in chosen}}, pooled.count)

    def _own_rows(self, version: str, shard: str, classes: tuple[str, ...]) -> int:
        found = self._banked(Measure(self.place, version, shard, "squares", "all", None, classes))
        return len(self.data.training(shard, classes)) if found is None else found.count

    def _deposit(self, task: Deposit) -> Deposited:
        bank, what = Bank(self.store.folder), self._what(task.version, task.shard, task.statistic)
        if bank.read(what) is not None:
            return Deposited(task.version, 0)
        measured = self._weights(task)
        rows = self.data.all(task.shard).for_head(measured.head.classes)
        x, y, net = rows.x.to(self.device), rows.y.to(self.device), self._net(measured)
        found = by_class(net, x, y, head=measured.head, statistic=task.statistic)
        bank.write(what, {c: Banked(i.sums[task.statistic], i.count) for c, i in found.items()})
        return Deposited(task.version, len(rows))

    def _what(self, version: str, shard: str, statistic: str) -> dict[str, str]:
        names = "\n".join(self.data.all(shard).keys)
        rows = blake3(names.encode()).hexdigest()
        return {"version": version, "shard": shard, "rows": rows, "statistic": statistic, "loss": "labels", "layers": "all"}

    def _weights(self, task: Measure | Deposit) -> Fetched | Version:
        return task.sent or self.store.read(task.version)

    def _importance(self, net: nn.Module, rows: Rows, head: Head, layers: str, statistic: str) -> Importance:
        named = rows.for_head(head.classes)
        return measure(net, named.x.to(self.device), named.y.to(self.device), head=head, layers=layers, statistic=statistic)

    def _apply(self, task: Apply) -> Applied:
        version = self.store.read(task.version)
        method = make(task.method, task.settings)
        net = self._net(version)
        own, read = task.own, 0
        if own is None and method.statistic is not None:
            asks = (
                Measure(self.place, task.version, shard, method.statistic, method.layers, None, classes)
                for shard, classes in task.own_shards
            )
            answers = [self._measure(ask) for ask in asks]
            own, read = pool([a.importance for a in answers]).mean(method.statistic), sum(a.read for a in answers)
        case = Case(task.evidence, own or {}, version.head, task.question.classes)

        def scored(weights: Tensors, split: str) -> Scores:
            return self._score(load(net, weights), task.question, version.head, split)

        forgotten, rest, named = self._asked(task.question, version.head, "calibration")
        inside = method.layers == "last" and [features(net, version.head, rows) for rows in (forgotten, rest)]

        def tried(strength: Strength) -> tuple[float | None, float | None, float]:
            edited = method.edit(version.weights, case, strength)
            if inside and inside[0] is not None and inside[1] is not None and _only_head(version, edited):
                found = score(last_layer(edited, version.head, self.device), inside[0], inside[1], named)
            else:
                found = score(load(net, edited), forgotten, rest, named)
            return found.forgotten, found.retained, _distance(version.weights, edited)

        before = (task.before.forgotten, task.before.retained)
        choice = calibrate(method.strengths(case), tried, before, task.aim, task.limits)
        edited = method.edit(version.weights, case, choice.strength)
        candidate, masked = self.store.write(edited, version.head, version.net), _masked(version.weights, case)
        mask = scored(masked, "test") if masked is not None else None
        test = scored(edited, "test")
        return Applied(task.version, candidate, choice.strength, choice.rule, choice.curve, test, mask, read)

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

    def _net(self, found: Fetched | Version) -> nn.Module:
        return load(self.make_net(len(found.head.classes), found.net), found.weights).to(self.device).eval()

    def _score(self, net: nn.Module, question: Question, head: Head, split: str) -> Scores:
        forgotten, rest, named = self._asked(question, head, split)
        return score(net, forgotten, rest, named)

    def _asked(self, question: Question, head: Head, split: str) -> tuple[Rows, Rows, list[str]]:
        """Rows of what is forgotten, the rest, and the classes that are judged one by one."""
        held = self.data.held_out.get(split)
        rows = Rows.empty(head.classes) if held is None else held.for_head(head.classes)
        rest = rows.without({*question.classes, *question.gone})
        if question.classes:
            named = [c for c in question.classes if c in head.classes]
            return rows.of(named), rest, named
        parts = [self.data.selected(shard, chosen).for_head(head.classes) for shard, chosen in question.selections.items()]
        return joined(parts) if parts else Rows.empty(head.classes), rest, []


def acknowledged(store: Store) -> str | None:
    """Hash of the ledger line that a place last acknowledged; None if it never did, or if its mirror is damaged."""
    try:
        return str(json.loads((store.folder / MIRROR).read_text())["line"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # as good as never: settling writes it anew


def _masked(weights: Tensors, case: Case) -> Tensors | None:
    """The logit mask's weights; None where there is no class to mask, or no way to."""
    try:
        return LogitMask().edit(weights, case, {}) if case.classes else None
    except InputError:  # all outputs, or no bias to mask with
        return None


def _only_head(version: Version, edited: Tensors) -> bool:
    """Whether an edit left everything below the last layer as it was."""
    return all(torch.equal(t, edited[n]) for n, t in version.weights.items() if n not in version.head.names)


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
