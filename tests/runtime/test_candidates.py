"""What a home has no test rows of is scored at the roots' sites where the gate says so, with consent, and never otherwise."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.cli import say
from fedunlearn.errors import SiteError
from fedunlearn.evaluation import Gate
from fedunlearn.evaluation.accuracy import accuracy
from fedunlearn.lineage import Request, discover
from fedunlearn.methods import FIUn
from fedunlearn.nets import load
from fedunlearn.runtime import Backend, Family, InProcess, Record, unlearn
from fedunlearn.runtime.backend import Answerer
from fedunlearn.runtime.place.consent import Consent
from fedunlearn.runtime.tasks import Answer, Fetch, Score, Scored, Task
from fedunlearn.scenario import Scenario, retrained, train, workers
from tests.conftest import LEAVE, NORTH
from tests.runtime.forgetting import Asking
from tests.runtime.grids import over_grid
from tests.runtime.test_equality import outcome
from tests.runtime.test_evaluating import Nothing
from tests.scenario.elsewhere import MODELS, Counting, at_hand

AT_ROOTS = Gate(score_at_roots=True, retained_drop_at_most=1)
FEW = {  # the server has no rows, east none of 0
    "shared": {**MODELS["shared"], "rounds": 3, "keep": "last", "epochs": 6, "batch": 8, "lr": 0.05},
    "eastern": {**MODELS["eastern"], "lr": 0.001},
}


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return at_hand(FEW).model_copy(update={"net": {"name": "mlp", "hidden": 32, "norm": True}})


@pytest.fixture(scope="module")
def whole(scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few") / "family"
    family = train(scenario, folder)
    retrained(family, scenario, NORTH, InProcess(workers(scenario, family)))
    return folder


@pytest.fixture
def few(whole: Path, tmp_path: Path) -> Family:
    return Family.open(Path(shutil.copytree(whole, tmp_path / "few")))


def rows_of(record: Record) -> dict[str, dict[str, Any]]:
    return {m["name"]: m for m in record.facts["models"]}


def texts_of(record: Record, model: str) -> list[str]:
    return [o["text"] for o in record.facts["objections"] if o["model"] == model]


def sent(backend: Counting) -> list[Task]:
    """What makes weights travel."""
    tasks = [t for some in backend.carried for t in some]
    return [t for t in tasks if isinstance(t, Fetch) or (isinstance(t, Score) and t.sent)]


def test_without_a_word_in_the_gate_no_weights_travel_and_it_stays_untested(scenario: Scenario, few: Family) -> None:
    assert discover(few.lineage, LEAVE).untested == ("shared", "eastern")
    backend = Counting(workers(scenario, few))
    record = unlearn(few, LEAVE, "logit_mask", backend, replace(AT_ROOTS, score_at_roots=False))
    assert sent(backend) == []
    for name, home in (("shared", None), ("eastern", "east")):
        one = rows_of(record)[name]
        assert one["forgotten_after"] is None
        assert one["scored_at"] == {"forgotten": {}, "retained": home}
        assert "not tested: no row of what is forgotten can be scored at its home" in texts_of(record, name)


@pytest.mark.parametrize("method", [Nothing(), "logit_mask"])
def test_a_candidate_is_scored_on_the_rows_of_a_site_that_trained_on_it(
    scenario: Scenario, few: Family, method: Nothing | str
) -> None:
    held = workers(scenario, few)
    before, record = few.heads, unlearn(few, LEAVE, method, InProcess(held), AT_ROOTS)
    assert few.heads["shared"] != before["shared"] or method != "logit_mask"
    for name, rest in (("shared", "north"), ("eastern", "east")):
        one, test = rows_of(record)[name], held["north"].data.held_out["test"]
        for when in ("before", "after"):
            version = few.store(one["home"]).read(one[f"version_{when}"])
            net = load(held["north"].make_net(10, version.net), version.weights).eval()
            there = held[rest].data.held_out["test"].without(["0"])
            assert one[f"forgotten_{when}"] == accuracy(net, test.of(["0"]))
            assert one[f"retained_{when}"] == accuracy(net, there)
        assert one["rows_forgotten"] == len(test.of(["0"])) > 5
        assert one["scored_at"] == {"forgotten": {"north": ["0"]}, "retained": rest}
        assert one["forgotten_before"] > 0.5
        left = [t for t in texts_of(record, name) if "of the forgotten rows are still recognised" in t]
        assert (one["status"], len(left)) == (("committed", 0) if method == "logit_mask" else ("untouched", 1))
    assert record.accepted == (method == "logit_mask")


def test_what_was_not_edited_is_not_accepted_by_leaving_out_its_test(scenario: Scenario, few: Family) -> None:
    held, gate, before = workers(scenario, few), replace(AT_ROOTS, score_at_roots=False), few.heads
    record = unlearn(few, LEAVE, Nothing(), InProcess(held), gate, accept_untested="nobody has rows")
    assert {m["status"] for m in rows_of(record).values()} == {"untouched"}
    assert not record.accepted
    assert few.heads == before
    assert "--accept-untested" not in say._hint(unlearn(few, LEAVE, Nothing(), InProcess(held), gate))
    assert "--accept-untested" in say._hint(unlearn(few, LEAVE, "logit_mask", InProcess(held), gate))
    assert unlearn(few, LEAVE, "logit_mask", InProcess(held), gate, accept_untested="nobody has rows").accepted


def test_as_retrained_is_judged_beside_the_retrained_model_on_the_same_rows(scenario: Scenario, few: Family) -> None:
    held = workers(scenario, few)
    backend = InProcess(held)
    again = retrained(few, scenario, NORTH, backend)
    strict = replace(AT_ROOTS, distance_to_retrained_at_most=0.0)
    record = unlearn(few, NORTH, Nothing(), backend, strict, retrained=again)
    test = held["north"].data.held_out["test"].of(["0"])
    for name, one in rows_of(record).items():
        assert one["target"] == "as_retrained"
        net = load(held["north"].make_net(10, again.sent[name].net), again.sent[name].weights).eval()
        assert one["retrained_forgotten"] == accuracy(net, test) != one["forgotten_after"]
        assert any("a retrained model recognises" in t for t in texts_of(record, name))
        assert not any("not tested" in t for t in texts_of(record, name))


def some_of(held: dict[str, Any], *sites: str) -> Request:
    keys = {site: held[site].data.all("main").keys[:3] for site in sites}
    return Request(samples=tuple(f"{site}/main/{k}" for site, some in keys.items() for k in some))


@pytest.mark.parametrize("sites", [("north", "south"), ("north", "south", "east")])
def test_samples_are_scored_wherever_they_lie(sites: tuple[str, ...], scenario: Scenario, few: Family) -> None:
    """At the home of one heir, too, whose own rows must not stand for all."""
    held = workers(scenario, few)
    record = unlearn(few, some_of(held, *sites), "fiun", InProcess(held), AT_ROOTS)
    for one in rows_of(record).values():
        assert one["rows_forgotten"] == 3 * len(sites)
        assert one["scored_at"]["forgotten"] == {site: [] for site in sites}


def test_without_leave_those_that_lie_elsewhere_are_untested(scenario: Scenario, few: Family) -> None:
    held = workers(scenario, few)
    request = some_of(held, "north", "east")
    assert set(discover(few.lineage, request).untested) == {"shared", "eastern"}
    record = unlearn(few, request, "fiun", InProcess(held), replace(AT_ROOTS, score_at_roots=False))
    assert "not tested: what is to be forgotten at north cannot be scored at its home" in texts_of(record, "eastern")
    assert rows_of(record)["eastern"]["status"] == "pending"
    record = unlearn(few, request, "fiun", InProcess(held), accept_untested="three of six are enough")
    unbounded = "untouched: the edit changes no weight (no calibration row of the rest tells what an edit costs: "
    assert [o["model"] for o in record.facts["objections"]] == ["shared"]  # no row lies at its home
    assert texts_of(record, "shared")[0].startswith(unbounded)
    given = FIUn(alpha=1.0, lam=0.1)
    again = unlearn(few, request, given, InProcess(held), accept_untested="three of six are enough")
    assert rows_of(again)["shared"]["status"] == "committed"


def asking(held: dict[str, Any], place: str, folder: Path) -> tuple[dict[str, Answerer], Consent]:
    consent = Consent(folder / place)
    return {**held, place: Asking(held[place], consent)}, consent


def test_a_home_that_refuses_leaves_it_untested_in_its_own_words_until_its_owner_allows_it(
    scenario: Scenario, few: Family, tmp_path: Path
) -> None:
    held, consent = asking(workers(scenario, few), "server", tmp_path)
    with pytest.raises(SiteError, match="has not allowed it yet: edit version"):
        unlearn(few, LEAVE, "logit_mask", InProcess(held), AT_ROOTS)
    consent.approve(consent.wishes()[0].id)
    for left in (2, 0):
        record = unlearn(few, LEAVE, "logit_mask", InProcess(held), AT_ROOTS)
        waits = [w for w in consent.wishes() if not w.approved]
        assert len(waits) == left
        if left:
            assert rows_of(record)["shared"]["status"] == "pending"
            assert rows_of(record)["eastern"]["status"] == "committed"
            refused = texts_of(record, "shared")
            assert refused[0] == "not tested: no row of what is forgotten can be scored at its home"
            candidate = rows_of(record)["shared"]["version_after"]
            says = (
                f"server does not give the candidate: .* has not allowed it yet: send the weights of version '{candidate[:12]}"
            )
            assert any(re.search(says, t) for t in refused)
            for wish in waits:
                consent.approve(wish.id)
    assert rows_of(record)["shared"]["forgotten_after"] == 0
    assert rows_of(record)["shared"]["status"] == "committed"


def test_what_its_owners_are_asked_comes_to_an_end(scenario: Scenario, few: Family, tmp_path: Path) -> None:
    """A try asks for what the one before asked for, though models were edited meanwhile: what was allowed counts.

    Once what is forgotten is excluded, a model that averages over it is weighed without it: that is asked for anew, once.
    """
    held, server = asking(workers(scenario, few), "server", tmp_path)
    held, north = asking(held, "north", tmp_path)
    given, gate = FIUn(layers="last", alpha=1.0, lam=0.5), Gate(1.0, 1.0, score_at_roots=True)
    statuses, committed = [], set[str]()
    for _ in range(10):
        try:
            record = unlearn(few, LEAVE, given, InProcess(held), gate)
        except SiteError:
            statuses.append("refused")
        else:
            statuses.append(rows_of(record)["shared"]["status"])
            now = {name for name, one in rows_of(record).items() if one["status"] == "committed"}
            assert not now & committed
            committed |= now
        if statuses[-1] == "committed":
            break
        for wish in (w for consent in (server, north) for w in consent.wishes() if not w.approved):
            (server if (server.folder / f"{wish.id}.json").exists() else north).approve(wish.id)
    assert committed == {"shared", "eastern"}
    assert statuses[-1] == "committed"
    assert "pending" in statuses


def test_a_site_is_asked_before_it_scores_what_is_sent_and_what_it_refuses_can_be_accepted(
    scenario: Scenario, few: Family, tmp_path: Path
) -> None:
    held, consent = asking(workers(scenario, few), "north", tmp_path)
    record = unlearn(few, LEAVE, "logit_mask", InProcess(held), AT_ROOTS)
    assert {w.what.split(" version")[0] for w in consent.wishes()} == {"score"}
    for name in ("shared", "eastern"):
        assert rows_of(record)[name]["status"] == "pending"
        assert any(t.startswith("not tested: north does not score the candidate: ") for t in texts_of(record, name))
    accepted = unlearn(few, LEAVE, "logit_mask", InProcess(held), AT_ROOTS, accept_untested="north is on holiday")
    assert accepted.accepted


@pytest.mark.parametrize(
    "lie",
    [
        lambda a: replace(a, version="f" * 64),
        lambda a: replace(a, test=replace(a.test, by_class={"1": 0.0})),
    ],
)
def test_what_a_site_says_of_it_is_untrusted(scenario: Scenario, few: Family, lie: Callable[[Scored], Scored]) -> None:
    def alter(task: Task, answer: Answer) -> Answer:
        return lie(answer) if isinstance(answer, Scored) and isinstance(task, Score) and task.sent else answer

    before = few.ledger.lines
    with pytest.raises(SiteError, match=r"north: sent what are no scores of version .*; nothing was changed"):
        unlearn(few, LEAVE, "logit_mask", Counting(workers(scenario, few), alter), AT_ROOTS)
    assert Family.open(few.folder).ledger.lines == before


def test_the_grid_gives_what_this_process_gives(scenario: Scenario, whole: Path, tmp_path: Path) -> None:
    def way(make: Callable[[Family], Backend], name: str) -> dict[str, Any]:
        return outcome(Path(shutil.copytree(whole, tmp_path / name)), LEAVE, "fiun", make, AT_ROOTS)

    here = way(lambda f: InProcess(workers(scenario, f)), "here")
    there = way(lambda f: over_grid(scenario, f), "there")
    assert here.pop("traffic") == {}
    assert there.pop("traffic")["north"]["down"]
    assert here == there
    assert all(m["scored_at"]["forgotten"] == {"north": ["0"]} for m in here["facts"]["models"])
