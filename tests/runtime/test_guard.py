"""What a site says in its own file is done to sums before they leave, whoever carries them, and the record says so."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fedunlearn.data import Rows, Selection
from fedunlearn.errors import InputError, SiteError
from fedunlearn.importance import Importance
from fedunlearn.methods import FIUn, Method, Steer
from fedunlearn.methods.base import Want
from fedunlearn.report import document, page
from fedunlearn.runtime import Family, InProcess, Worker, fsck, unlearn
from fedunlearn.runtime.place.guard import KEY, Guard, identity
from fedunlearn.runtime.plausible import checked
from fedunlearn.runtime.tasks import Deposit, Fetched, Measure, Measured
from fedunlearn.scenario import Scenario, open_site, workers
from fedunlearn.scenario.files import parse
from fedunlearn.scenario.sources import Sending
from fedunlearn.tensors import equal
from tests.conftest import LEAVE, snapshot
from tests.runtime.grids import over_grid
from tests.runtime.test_cheats import HEAD, honest
from tests.scenario.site_files import PLAIN

ZERO = Selection(("0",))


def guarded(scenario: Scenario, **sites: Sending) -> Scenario:
    return scenario.model_copy(update={"evidence": sites})


@pytest.fixture
def north(hospitals: Scenario, family: Family) -> Callable[..., Worker]:
    """North's worker, with a guard."""
    held = workers(hospitals, family)["north"]
    return lambda **guard: replace(held, guard=Guard(**guard))


@pytest.fixture
def task(hospitals: Scenario, family: Family) -> Measure:
    version = family.heads["shared"]
    found = workers(hospitals, family)["server"].store.read(version)
    sent = Fetched(found.weights, found.head, found.net)
    return Measure("north", version, "main", "sum", "last", ZERO, (), sent, "masked", ("0",))


def sums(worker: Worker, task: Measure) -> dict[str, torch.Tensor]:
    found = worker.handle(task)
    assert isinstance(found, Measured)
    return dict(found.importance.sums[task.statistic])


def test_sums_over_too_few_rows_are_refused_and_those_over_enough_are_not(north: Callable[..., Worker], task: Measure) -> None:
    rows = north().data.selected("main", ZERO)
    few = Selection(samples=tuple(f"main/{k}" for k in rows.keys[:4]))
    for one in (replace(task, selection=few), replace(task, selection=None, classes=("0",), most=4)):
        assert sums(north(at_least=4), one)
        with pytest.raises(SiteError, match="fewer than 5 rows is not sent"):
            north(at_least=5).handle(one)


def test_what_is_in_the_bank_is_refused_and_clipped_all_the_same(north: Callable[..., Worker], task: Measure) -> None:
    north().handle(Deposit("north", task.version, "main", task.sent))
    banked = replace(task, statistic="squares", loss="labels", masked=(), layers="all")
    found = north().handle(banked)
    assert isinstance(found, Measured)
    assert found.read == 0
    with pytest.raises(SiteError, match="fewer than 1000 rows"):
        north(at_least=1000).handle(banked)
    clip = 1e-3
    total = sum(float(t.sum()) for t in sums(north(clip=clip), banked).values())
    assert total <= found.importance.count * clip**2 * (1 + 1e-6)
    assert total < sum(float(t.sum()) for t in found.importance.sums["squares"].values())


def test_asking_again_in_other_words_averages_nothing_and_other_sums_have_other_noise(
    north: Callable[..., Worker], task: Measure
) -> None:
    guard = {"clip": 1.0, "noise": 1.0}
    first, exact = sums(north(**guard), task), sums(north(clip=1.0), task)
    assert not equal(first, exact)
    renamed, another = replace(task, version="another name"), replace(task, family="0123456789abcdef" * 2)
    for same in (task, renamed, another, replace(task, method="steer", settings={"factor": 2.0})):
        assert equal(sums(north(**guard), same), first)
    noise = {n: t - exact[n] for n, t in first.items()}
    assert task.sent is not None
    near = {n: t + 1e-7 if n == "head.bias" else t for n, t in task.sent.weights.items()}
    some = Selection(samples=tuple(f"main/{k}" for k in north().data.selected("main", ZERO).keys[1:]))
    for other in (
        replace(task, sent=replace(task.sent, weights=near)),
        replace(task, selection=some),
        replace(task, layers="all"),
    ):
        found, without = sums(north(**guard), other), sums(north(clip=1.0), other)
        moved = torch.cat([(found[n] - without[n] - noise[n]).flatten() for n in noise])
        # of two that have nothing to do with each other, and five standard errors of that: every run has a key of its own
        assert float(moved.std()) == pytest.approx(2**0.5, abs=5 / len(moved) ** 0.5)
    stronger, weaker = sums(north(clip=1.0, noise=2.0), task), first
    moved = torch.cat([(stronger[n] - exact[n] - 2 * (weaker[n] - exact[n])).flatten() for n in noise])
    assert float(moved.std()) > 1  # else two answers of an owner who changed his mind would give the sum away


def test_the_key_is_the_sites_own(north: Callable[..., Worker], task: Measure, family: Family) -> None:
    worker = north(clip=1.0, noise=1.0)
    first = sums(worker, task)
    path = worker.store.folder / KEY
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    assert not equal(sums(worker, task), first)
    assert not fsck(family.folder).damage


def test_what_is_not_the_same_sum_has_another_identity() -> None:
    net, x, y, _ = honest(0, 1.0, 3)
    rows = Rows(x, y, ("0", "1", "2"), HEAD.classes)
    found, asked = Fetched(net.state_dict(), HEAD), Measure("p", "v", "main", "squares", "all", None, ())
    others = [
        identity(replace(asked, loss="own"), found, rows, ()),
        identity(replace(asked, statistic="sum"), found, rows, ()),
        identity(asked, replace(found, net="wide"), rows, ()),
        identity(asked, found, rows.take([0, 1]), ()),
        identity(asked, found, rows, ("(1.0, 2.0)",)),
    ]
    one = identity(asked, found, rows, ())
    assert len({*others, one}) == len(others) + 1
    for same in (replace(asked, masked=("a",)), replace(asked, version="w"), replace(asked, place="q", precision="float32")):
        assert identity(same, found, rows, ()) == one
    assert identity(asked, found, rows.take([2, 0, 1]), ()) == one
    assert identity(asked, replace(found, head=replace(HEAD, classes=("a", "b", "c", "e"))), rows, ()) == one
    two = [replace(asked, loss="masked", masked=m) for m in (("a", "b"), ("b", "a", "b"))]
    assert len({identity(t, found, rows, ()) for t in two}) == 1
    assert len({identity(replace(asked, statistic="moment", loss=x), found, rows, ()) for x in ("labels", "own")}) == 1


@pytest.mark.parametrize("method", [FIUn(layers="all"), FIUn(layers="last"), Steer()], ids=lambda m: f"{m.name}-{m.layers}")
def test_a_site_that_adds_noise_is_named_in_the_record_and_not_accused(
    method: Method, hospitals: Scenario, family: Family
) -> None:
    scenario = guarded(hospitals, north=Sending(clip=0.5, noise=30.0))
    record = unlearn(family, LEAVE, method, InProcess(workers(scenario, family)))
    assert record.facts["guarded"] == {"north": {"clip": 0.5, "noise": 30.0}}
    line = next(x for x in family.ledger.lines if x.kind == "unlearned")
    assert "<strong>north</strong> counted no row&#39;s gradient" in page(document(family, line, {})).replace("'", "&#39;")
    assert not fsck(family.folder).orphans


def test_a_grid_carries_clipped_sums_as_this_process_does(hospitals: Scenario, folder: Path, tmp_path: Path) -> None:
    scenario = guarded(hospitals, **{"*": Sending(clip=0.05, at_least=2)})

    def facts(backend: Callable[[Family], Any], name: str) -> Any:
        copied = Family.open(Path(shutil.copytree(folder, tmp_path / name)))
        return unlearn(copied, LEAVE, Steer(), backend(copied)).facts

    here = facts(lambda f: InProcess(workers(scenario, f)), "here")
    there = facts(lambda f: over_grid(scenario, f), "there")
    assert here == there
    assert here["guarded"].keys() >= {"north", "south"}
    assert here["models"] != facts(lambda f: InProcess(workers(hospitals, f)), "exact")["models"]


def test_a_refusal_changes_nothing(hospitals: Scenario, family: Family) -> None:
    before = snapshot(family.folder)
    with pytest.raises(SiteError, match=r"north.*fewer than 100000 rows is not sent"):
        unlearn(family, LEAVE, Steer(), InProcess(workers(guarded(hospitals, north=Sending(at_least=100_000)), family)))
    assert snapshot(family.folder) == before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"noise": 1.0}, "give that as well"), ({"clip": 0}, "above 0"), ({"clip": float("inf")}, "a finite number"),
     ({"clip": 1, "noise": -1}, "from 0 up"), ({"at_lest": 3}, "did you mean 'at_least'"), ({"at_least": -1}, "greater than")],
)  # fmt: skip
def test_what_an_owner_writes_wrong_is_said(wrong: dict[str, Any], said: str, tmp_path: Path, hospitals: Scenario) -> None:
    (tmp_path / "site.yaml").write_text(yaml.safe_dump({**PLAIN, "evidence": wrong}))
    with pytest.raises(InputError, match=said):
        open_site(tmp_path / "site.yaml")
    with pytest.raises(InputError, match=said):
        parse({**hospitals.model_dump(by_alias=True, exclude_defaults=True), "evidence": {"north": wrong}}, "hospitals")


def test_a_site_answers_as_its_own_file_says(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(yaml.safe_dump({**PLAIN, "evidence": {"at_least": 20, "clip": 1.0, "noise": 0.3}}))
    found = open_site(tmp_path / "site.yaml").answerer
    assert isinstance(found, Worker)
    assert found.guard == Guard(20, 1.0, 0.3)


def test_sites_of_their_own_say_it_themselves(hospitals: Scenario) -> None:
    plain = {**hospitals.model_dump(by_alias=True, exclude_defaults=True), "evidence": {"north": {"at_least": 3}}}
    with pytest.raises(InputError, match="evidence does not go with sites: own"):
        parse({**plain, "data": {"sites": "own"}}, "hospitals")


def test_a_lie_about_clipping_is_refused() -> None:
    *_, scored = honest(0, 1.0, 3)
    whole = Importance({"squares": {n: torch.zeros(s).double() for n, s in scored.shapes.items()}}, 3)
    for clip, noise in ((0.0, 0.0), (float("nan"), 0.0), (None, 1.0), (1.0, float("inf")), (1.0, -1.0)):
        with pytest.raises(SiteError, match="says that it clips"):
            checked(Measured("v", whole, 3, None, clip, noise), "v", scored, "all", Want("squares"), "north/main", 3)
