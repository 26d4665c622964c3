"""The only code that sees a place's data and weights. One `match` shows all that can be asked of it.

Long for the same reason: whoever wants to know what is done with a place's rows reads one file.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial

import torch
from blake3 import blake3
from torch import nn

from fedunlearn.data import Exclusions, Rows, Selection, SiteData
from fedunlearn.data.rows import joined
from fedunlearn.evaluation import Scores, score
from fedunlearn.evaluation.outputs import loss_gap
from fedunlearn.importance import Importance, by_class, measure, pool
from fedunlearn.methods import Case, Method, calibrate, make
from fedunlearn.methods.base import Evidence, Strength
from fedunlearn.nets import MakeNet, load
from fedunlearn.runtime.place.births import survey, train
from fedunlearn.runtime.place.examine import examine, masked
from fedunlearn.runtime.place.guard import OPEN, Guard
from fedunlearn.runtime.place.homes import home_of
from fedunlearn.runtime.place.mirror import erase, excluded_by_others, follow, part, path
from fedunlearn.runtime.place.trials import Trials
from fedunlearn.runtime.tasks import (
    Answer,
    Applied,
    Apply,
    Commit,
    Deposit,
    Deposited,
    Evaluate,
    Fetch,
    Fetched,
    Measure,
    Measured,
    Question,
    Score,
    Scored,
    Seal,
    Survey,
    Task,
    Train,
)
from fedunlearn.runtime.watched import Watched
from fedunlearn.store import Bank, Banked, Store, Version
from fedunlearn.tensors import Head, Tensors, names_in, rounded

BANKED = "squares"  # the statistic that is banked, of the loss that reads labels


@dataclass(frozen=True)
class Worker:
    """Answers tasks for one place.

    Args:
        place: its name.
        store: where its models' weights are.
        data: its shards and held-out rows; a place that only holds models has no shards.
        make_net: makes nets of the families' architectures.
        device: where to compute.
        lent: data of other places, by place: none but in a simulation that grants methods what no deployment does.
        methods: beyond the menu, that a task out of a message may name here; each "their.module:Class".
        others: what requests on other families have excluded here: nobody trains on it, but it is no less to be preserved.
        guard: what is done to sums before they are sent.
    """

    place: str
    store: Store
    data: SiteData
    make_net: MakeNet
    device: str = "cpu"
    lent: Mapping[str, SiteData] = field(default_factory=dict)
    methods: tuple[str, ...] = ()
    others: Callable[[], Exclusions] = lambda: Exclusions({})
    guard: Guard = OPEN
    _families: dict[str, "Worker"] = field(default_factory=dict, compare=False, repr=False)
    _whole: Store | None = field(
        default=None, compare=False, repr=False
    )  # of a worker for one of several families: the place's

    def handle(self, task: Task) -> Answer:
        """Do one task, out of the part of the store that is its family's.

        Raises:
            FedUnlearnError: it cannot be done; says why.
        """
        if task.family:
            return self._of(task.family).handle(replace(task, family=""))
        if isinstance(task, Train):  # with all threads: it is long, and training in one process has them too
            trained = train(task, self._to_train_on(), self.store, self.make_net, self.device)
            if task.give:  # weights are evidence, too
                self.guard.admit(sum(trained.rows.values()))
            return trained
        with _one_thread():
            match task:
                case Survey():
                    return survey(task, self.data, self.others())
                case Fetch():
                    version = self.store.read(task.version)
                    return Fetched(version.weights, version.head, version.net)
                case Measure():
                    return self._measure(task, self.guard)
                case Deposit():
                    return self._deposit(task)
                case Score():
                    scored = self._weights(task)
                    net = self._net(scored)
                    shapes = {n: tuple(p.shape) for n, p in net.named_parameters()}
                    calibration, test = (self._score(net, task.question, scored.head, s) for s in ("calibration", "test"))
                    own = sum(self._count(scored.head, *part) for part in task.own_shards)
                    return Scored(task.version, scored.head, shapes, calibration, test, own)
                case Apply():
                    return self._apply(task)
                case Evaluate():
                    return examine(task, self.data, self.store, self.make_net, self.device)
                case Commit():
                    return follow(task, self.store)
                case Seal():
                    return erase(task, self.store)

    def _of(self, family: str) -> "Worker":
        """The same place for one of several families: nothing that it keeps for one is another's."""
        if family not in self._families:
            store = part(self.store, family)
            data = replace(self.data, excluded=partial(Exclusions.read, path(store)))
            others = partial(excluded_by_others, self.store, family)
            self._families[family] = replace(self, store=store, data=data, others=others, _families={}, _whole=self.store)
        return self._families[family]

    def _to_train_on(self) -> SiteData:
        excluded = self.data.exclusions.beside("other", self.others().by_request)
        return replace(self.data, excluded=lambda: excluded)

    def _measure(self, task: Measure, guard: Guard = OPEN) -> Measured:
        """By default as it is, for use here."""
        banked = None if guard.clip else self._banked(task)  # rows in a sum cannot be clipped any more
        if banked is not None and not task.method:
            guard.admit(banked.count)
            return Measured(task.version, _rounded(banked, task), 0)
        found = self._weights(task)
        if task.selection is not None:
            rows = self.data.selected(task.shard, task.selection).for_head(found.head.classes)
        else:
            rows = self.data.training(task.shard, task.classes).for_head(found.head.classes)
        rows = rows.but(set(task.left_out))
        if task.most:
            rows = rows.spread(task.most)
        net, x, y = self._net(found), rows.x.to(self.device), rows.y.to(self.device)

        def of(part: slice) -> Importance:
            return measure(
                net, x[part], y[part], head=found.head, layers=task.layers, statistic=task.statistic, loss=task.loss,
                masked=task.masked, seed=part.start or 0,  # of labels that are drawn: one row at a time, each has its own
            )  # fmt: skip

        secret = (self._whole or self.store).folder  # one a place: under another family's name the same has the same noise
        importance = guard.measured(task, found, rows, of, secret)
        enough = self._enough(task, found, net, rows, importance) if task.method and len(rows) else None
        return Measured(task.version, _rounded(importance, task), len(rows), enough, guard.clip, guard.noise)

    def _enough(self, task: Measure, found: Fetched | Version, net: nn.Module, rows: Rows, of: Importance) -> float | None:
        """The method's number for this evidence: on calibration rows of the class; on the measured ones if there are none."""
        method, head = make(task.method, task.settings), found.head
        held = self.data.held_out.get("calibration", Rows.empty(head.classes)).for_head(head.classes)
        like = held.of(rows.counts())  # calibration rows of the classes that were measured
        asked = like if task.masked and len(like) else rows
        gap = loss_gap(net, like, rows)
        own = Evidence()
        if method.own is not None:
            every = self.data.all(task.shard).for_head(head.classes)  # to measure, what is excluded by now included
            rest = tuple(c for c in every.counts() if c not in task.masked) or tuple(every.counts())
            without = rows.keys if method.retained and not task.masked and len(rows) < len(every) else ()
            ask = Measure.of(
                method.own, self.place, task.version, task.shard, method.layers, Selection(rest), (), task.sent, without
            )
            own = _evidence(self._measure(ask).importance, method.own.statistic)
        about = ", ".join(rows.counts()) if task.masked else ""
        trials = Trials(lambda: net, found.weights, head, (asked, Rows.empty(head.classes)), (), method.layers, self.device)
        case = Case((_evidence(of, task.statistic, about),), own, head, task.masked)
        return Watched(method, found.weights, case).enough(lambda edited: trials(edited).forgotten or 0.0, gap)

    def _banked(self, task: Measure) -> Importance | None:
        """Out of the bank, where the sums of whole classes of this very version, on these very rows, are in it."""
        held = Bank(self.store.folder).read(self._what(task.version, task.shard, task.statistic, task.loss))
        if held is None or task.left_out or (task.selection is not None and task.selection.samples):
            return None
        excluded = self.data.exclusions.by_request.values()
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

    def _count(self, head: Head, shard: str, classes: tuple[str, ...], left_out: tuple[str, ...]) -> int:
        """How many rows `_measure` would find; no input is copied for it."""
        every = self.data.all(shard)
        usable = self.data.exclusions.keep(shard, replace(every, x=every.y))
        return len(usable.of(classes).for_head(head.classes).but(set(left_out)))

    def _deposit(self, task: Deposit) -> Deposited:
        bank, what = Bank(self.store.folder), self._what(task.version, task.shard, BANKED)
        if bank.read(what) is not None:
            return Deposited(task.version, 0)
        measured = self._weights(task)
        rows = self.data.all(task.shard).for_head(measured.head.classes)
        x, y, net = rows.x.to(self.device), rows.y.to(self.device), self._net(measured)
        found = by_class(net, x, y, head=measured.head, statistic=BANKED)
        bank.write(what, {c: Banked(i.sums[BANKED], i.count) for c, i in found.items()})
        return Deposited(task.version, len(rows))

    def _what(self, version: str, shard: str, statistic: str, loss: str = "labels") -> dict[str, str]:
        names = "\n".join(self.data.all(shard).keys)
        rows = blake3(names.encode()).hexdigest()
        return {"version": version, "shard": shard, "rows": rows, "statistic": statistic, "loss": loss, "layers": "all"}

    def _weights(self, task: Measure | Deposit | Score) -> Fetched | Version:
        return task.sent or self.store.read(task.version)

    def _apply(self, task: Apply) -> Applied:
        version = self.store.read(task.version)
        method = make(task.method, task.settings)
        net = cache(lambda: self._net(version))  # where a row is there for it to see: to make one takes longer than an edit
        parameters = frozenset[str]()
        if method.ordered:
            version = replace(version, weights={name: version.weights[name] for name in net().state_dict()})
            parameters = frozenset(name for name, _ in net().named_parameters())
        own, read = (task.own, 0) if task.own or method.own is None else self._own(task, method)
        there = {**self.lent, self.place: self.data}
        home = home_of(task, there, net(), version.head) if task.forgotten or task.retained else None
        case = Case(task.evidence, own or Evidence(), version.head, task.question.classes, home, parameters)
        forgotten, rest, named = self._asked(task.question, version.head, "calibration")
        trials = Trials(net, version.weights, version.head, (forgotten, rest), named, method.layers, self.device)
        watched = Watched(method, version.weights, case)

        def tried(strength: Strength) -> tuple[Scores, float]:
            edited = watched.edit(strength)
            return trials(edited), _distance(version.weights, edited)

        strengths, sent = watched.strengths(), watched.sent()
        choice = calibrate(strengths, tried, task.before, task.aim, task.limits, sent=sent, most=trials.most)
        edited = version.weights if choice.strength is None else watched.edit(choice.strength)
        candidate = self.store.write(edited, version.head, version.net, version)
        plain = masked(version.weights, version.head, case.classes)
        forgotten, rest, named = self._asked(task.question, version.head, "test")
        if len(forgotten) or len(rest):
            final = Trials(net, version.weights, version.head, (forgotten, rest), named, method.layers, self.device)
            mask, test = None if plain is None else final(plain), final(edited)
        else:
            test = Scores(None, None, 0, 0, dict.fromkeys(named))
            mask = None if plain is None else test
        return Applied(
            task.version, candidate, choice.strength, choice.rule, choice.curve, test, mask, read,
            trials.passes if choice.curve else 0,
        )  # fmt: skip

    def _own(self, task: Apply, method: Method) -> tuple[Evidence, int]:
        """What the heir's own data here says of it, and how many rows were read."""
        want = method.own
        assert want is not None
        asked = [
            Measure.of(want, self.place, task.version, shard, method.layers, None, classes, left_out=left_out)
            for shard, classes, left_out in task.own_shards
        ]
        answers = [self._measure(one) for one in asked]
        own = _evidence(pool([a.importance for a in answers if a.importance.count]), want.statistic)
        return own, sum(a.read for a in answers)

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


def _rounded(of: Importance, task: Measure) -> Importance:
    if task.precision == "float64":
        return of
    return Importance({s: rounded(tensors, task.precision) for s, tensors in of.sums.items()}, of.count)


def _evidence(of: Importance, statistic: str, about: str = "") -> Evidence:
    return Evidence(of.mean(statistic), of.count, about)


def _distance(before: Tensors, after: Tensors) -> float:
    """How far an edit moves the weights: the Euclidean distance, whatever the order of the elements in memory.

    Evidence that came in a message lies in rows, the same evidence measured in this process may not, and a sum follows memory.
    """
    moves = (after[n].double() - t.double() for n, t in before.items() if t.is_floating_point())
    return float(sum(float(move.contiguous().square().sum()) for move in moves) ** 0.5)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums depend on how they are split among threads; with one, every backend gives the same bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
