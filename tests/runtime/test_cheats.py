"""Sites that cheat: what they send is refused by their name, or does no more than is said; honest ones are never accused."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from fedunlearn.data import Selection
from fedunlearn.errors import InputError, SiteError
from fedunlearn.evaluation import Scores
from fedunlearn.importance import Importance, measure
from fedunlearn.lineage import Lineage, Model, Request, Shard, discover
from fedunlearn.methods import FIUn
from fedunlearn.methods.base import Want
from fedunlearn.runtime import Family, InProcess, unlearn
from fedunlearn.runtime.plausible import checked, within
from fedunlearn.runtime.tasks import Answer, Fetched, Measure, Measured, Scored, Task
from fedunlearn.scenario import Scenario, workers
from fedunlearn.tensors import PRECISIONS, Head, rounded
from tests.conftest import LEAVE, snapshot

HEAD = Head("2", ("a", "b", "c", "d"))
LOSSES = ("labels", "own", "sampled", "masked")
Spoil = Callable[[Measured], Measured]


def honest(seed: int, scale: float, rows: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor, Scored]:
    """A net from unsure (scale 0) to so sure that single precision has no loss left, rightly or wrongly."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, len(HEAD.classes)))
    with torch.no_grad():
        for p in net[2].parameters():
            p.mul_(scale)
    x, y = 3 * torch.randn(rows, 3), torch.randint(0, len(HEAD.classes), (rows,))
    y = torch.where(torch.rand(rows) < 0.5, net(x).argmax(1), y)
    shapes = {n: tuple(p.shape) for n, p in net.named_parameters()}
    return net.eval(), x, y, Scored("v", HEAD, shapes, Scores(None, None, 0, 0), Scores(None, None, 0, 0), 1)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31), scale=st.sampled_from([0.0, 1.0, 10.0, 30.0, 1e4]), rows=st.integers(1, 30),
    classes=st.sets(st.sampled_from(HEAD.classes), min_size=1), precision=st.sampled_from(sorted(PRECISIONS)),
)  # fmt: skip
def test_an_honest_site_is_never_accused(seed: int, scale: float, rows: int, classes: set[str], precision: str) -> None:
    net, x, y, scored = honest(seed, scale, rows)

    def importance(some: torch.Tensor, statistic: str = "squares", loss: str = "labels") -> Importance:
        found = measure(net, x[some], y[some], head=HEAD, statistic=statistic, loss=loss, masked=("a",))
        return Importance({s: rounded(t, precision) for s, t in found.sums.items()}, found.count)

    of = torch.tensor([HEAD.classes[int(c)] in classes for c in y])
    every = torch.ones_like(of)
    part = checked(Measured("v", importance(of), rows), "v", scored, "all", Want("squares"), "north/main", rows, classes)
    whole = checked(Measured("v", importance(every), rows), "v", scored, "all", Want("squares"), "north/main", rows)
    within(part, whole, "north/main")
    for statistic in ("squares", "sum"):
        for loss in LOSSES:
            answer = Measured("v", importance(every, statistic, loss), rows)
            checked(answer, "v", scored, "all", Want(statistic, loss), "north/main", rows)


class Lying(InProcess):
    """One site says of what is to be forgotten what it likes, made as unpickling makes it: without being checked."""

    def __init__(self, family: Family, scenario: Scenario, liars: Sequence[str], spoil: Spoil) -> None:
        super().__init__(workers(scenario, family))
        self.liars, self.spoil = liars, spoil

    def carry(self, tasks: Sequence[Task]) -> list[Answer]:
        return [
            self.spoil(a) if isinstance(t, Measure) and t.selection and isinstance(a, Measured) and t.place in self.liars else a
            for t, a in zip(tasks, super().carry(tasks), strict=True)
        ]


def each(of: Callable[[torch.Tensor], torch.Tensor]) -> Spoil:
    def spoil(answer: Measured) -> Measured:
        for tensors in answer.importance.sums.values():
            for tensor in tensors.values():
                tensor.copy_(of(tensor))
        return answer

    return spoil


def with_sums(of: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], statistic: str = "squares") -> Spoil:
    return lambda a: replace(a, importance=Importance({statistic: of(dict(a.importance.sums["squares"]))}, a.importance.count))


def noise(tensor: torch.Tensor) -> torch.Tensor:
    return torch.rand(tensor.shape, dtype=tensor.dtype, generator=torch.Generator().manual_seed(0)) * tensor.mean()


CHEATS: dict[str, tuple[Spoil, str]] = {
    "NaN": (each(lambda t: t * float("nan")), "NaN or infinite"),
    "infinite": (each(lambda t: t + float("inf")), "NaN or infinite"),
    "negative": (each(lambda t: -t - 1), "negative entries"),
    "shapes": (with_sums(lambda ts: {n: t.flatten() for n, t in ts.items()}), "shapes that are not the model's"),
    "names": (with_sums(lambda ts: dict(list(ts.items())[1:])), "shapes that are not the model's"),
    "statistic": (with_sums(lambda ts: ts, "sum"), "sent sum, asked was squares"),
    "too many rows": (lambda a: replace(a, importance=Importance(a.importance.sums, 10**6)), "models were trained on"),
    "no rows": (
        lambda a: replace(a, importance=Importance(a.importance.sums, 0)),
        "no row of what is to be forgotten is left in south/main",
    ),
    "negative rows": (lambda a: a.importance.__dict__.update(count=-1) or a, "expected 0 or more"),
    "enormous": (each(lambda t: t * 1e9), "a row's gradient by an output is at most 1"),
    "noise": (each(noise), "its evidence is not of 0"),
}


@pytest.mark.parametrize("what", CHEATS)
def test_what_no_honest_site_sends_is_refused_by_its_name(what: str, family: Family, hospitals: Scenario, folder: Path) -> None:
    spoil, says = CHEATS[what]
    before = snapshot(folder)
    with pytest.raises(SiteError, match=r"^south") as refused:
        unlearn(family, LEAVE, FIUn(), Lying(family, hospitals, ("south",), spoil))
    assert says in str(refused.value)
    assert snapshot(folder) == before


def test_evidence_that_is_too_much_for_a_site_that_is_weighed_too_is_refused(family: Family, hospitals: Scenario) -> None:
    """The head's part is left honest, so that scale and class do not give it away; what it says of all its rows does."""

    def scaled(answer: Measured) -> Measured:
        for name, tensor in answer.importance.sums["squares"].items():
            tensor.mul_(1.0 if name.endswith("bias") else 1000.0)
        return answer

    with pytest.raises(SiteError, match=r"south/main: squares of \d+ rows to be forgotten come to .* that they are among to"):
        unlearn(family, LEAVE, FIUn(), Lying(family, hospitals, ("south",), scaled))


def test_evidence_of_another_request_is_refused(family: Family, hospitals: Scenario) -> None:
    """Once given in earnest, about the same version: nothing but what it says gives a replay away."""
    held = workers(hospitals, family)
    version = family.heads["shared"]
    sent = family.store("server").read(version)
    asked = Measure("south", version, "main", "squares", "all", Selection(("1",)), (), Fetched(sent.weights, sent.head))
    kept = held["south"].handle(asked)
    assert isinstance(kept, Measured)
    before = dict(family.heads)
    with pytest.raises(SiteError, match=r"south/main: its evidence is not of 0: .*another request"):
        unlearn(family, LEAVE, FIUn(), Lying(family, hospitals, ("south",), lambda _: kept))
    assert Family.open(family.folder).heads == before


def test_a_site_that_never_had_a_class_is_not_asked_about_it(family: Family, hospitals: Scenario) -> None:
    """The lineage says who had it; east lacks class 0, so whatever it would say of it reaches nobody."""
    asked: list[str] = []

    def spoil(answer: Measured) -> Measured:
        asked.append("east")
        return answer

    unlearn(family, LEAVE, FIUn(layers="last"), Lying(family, hospitals, ("east",), spoil))
    assert not asked


def test_zeros_of_one_site_thin_the_evidence_and_zeros_of_all_edit_nothing(family: Family, hospitals: Scenario) -> None:
    """No offence: a model sure of every row has no gradient. But an heir is then said to be untouched, and by whose word."""
    zeros = each(torch.zeros_like)
    before = dict(family.heads)
    with pytest.raises(InputError, match=r"zero in every weight, from north/main, south/main: .*or a site withholds it"):
        unlearn(family, LEAVE, FIUn(), Lying(family, hospitals, ("north", "south"), zeros))
    assert Family.open(family.folder).heads == before
    record = unlearn(family, LEAVE, FIUn(layers="last"), Lying(family, hospitals, ("south",), zeros))
    assert all(m["status"] != "untouched" for m in record.facts["models"] if m["target"] == "absent")


@pytest.mark.parametrize(("sites", "unopposed"), [(1, ("s0",)), (2, ("s0", "s1")), (3, None)])
def test_a_plan_says_whose_lie_no_merge_outvotes(sites: int, unopposed: tuple[str, ...] | None) -> None:
    clients = tuple(
        Model(f"c{i}", f"s{i}", "federated", ("a", "b"), (), (Shard(f"s{i}", "main", {"a": 2}),), kept=False)
        for i in range(sites)
    )
    lineage = Lineage((*clients, Model("all", "server", "federated", ("a", "b"), tuple(c.name for c in clients))))
    plan = discover(lineage, Request(classes=("a",)))
    assert plan.unopposed == ({} if unopposed is None else {"all": unopposed})
    assert plan.to_json()["unopposed"] == {k: list(v) for k, v in plan.unopposed.items()}
