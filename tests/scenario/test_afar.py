"""Trained at sites whose rows and stores nobody else opens, a family is the one that a single process trains."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.data import MIRROR
from fedunlearn.errors import InputError, SiteError
from fedunlearn.lineage import Request, discover
from fedunlearn.runtime import Family, InProcess, Split, behind, fsck, score_all, unlearn
from fedunlearn.runtime.place.mirror import part
from fedunlearn.runtime.tasks import Train
from fedunlearn.scenario import Scenario, extend, extend_afar, reference, train, workers, workers_here
from fedunlearn.scenario.requests import cases_of
from fedunlearn.store import Store
from tests.conftest import LEAVE
from tests.scenario.elsewhere import MODELS, SITES, WAYS, Counting, afar, at_hand, elsewhere, in_process, sites_of

# the coordinator's own; the clock; the file, which says `sites: own` there; what only sites know
APART = ("registers", "rows_per_second", "topology", "family")


AWAY = InProcess({}, offline=dict.fromkeys(SITES, "nobody answers"))


def said(family: Family) -> dict[str, Any]:
    (line,) = [x for x in family.ledger.lines if x.kind == "trained"]
    return {k: v for k, v in line.body.items() if k not in APART}


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return train(at_hand(MODELS), tmp_path_factory.mktemp("one") / "family")


@pytest.mark.parametrize("way", WAYS)
def test_the_family_is_the_one_that_a_single_process_trains(way: str, one_process: Family, tmp_path: Path) -> None:
    scenario = elsewhere(MODELS)
    backend = WAYS[way](scenario, tmp_path / "sites")
    family = afar(scenario, tmp_path / "family", backend)
    assert family.heads == one_process.heads
    assert family.lineage.to_json() == one_process.lineage.to_json()
    assert said(family) == said(one_process)
    for site in SITES:
        here = part(Store(tmp_path / "sites" / site), family.id)
        assert here.versions() == one_process.store(site).versions()
        heads = [v for m, v in family.heads.items() if family.lineage[m].home == site]
        assert all(here.read(v).name == v for v in heads)
        mirror = (here.folder / MIRROR).read_text()
        assert family.ledger.lines[-1].hash in mirror
        assert not family.store(site).folder.exists()  # the coordinator has nothing of a site's
    assert family.store("server").versions() == one_process.store("server").versions()
    assert family.store("server").read_state(family.heads["later"]).keys()

    both = Split(workers_here(scenario, family), backend, family.id)
    alone = Family.open(Path(shutil.copytree(one_process.folder, tmp_path / "alone")))
    record = unlearn(family, LEAVE, "fiun", both)
    assert record.facts == unlearn(alone, LEAVE, "fiun", InProcess(workers(at_hand(MODELS), alone))).facts
    assert {m["status"] for m in record.facts["models"]} > {"committed"}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_trained_on_later_is_what_a_single_process_trains(way: str, tmp_path: Path) -> None:
    """From the versions that are current by then, and without what was forgotten meanwhile."""
    first = {k: MODELS[k] for k in ("shared", "next", "eastern", "few")}
    more = {"models": {k: {"epochs": 1, **MODELS[k]} for k in ("later", "more", "moved", "triage", "merged")}}
    more["models"]["merged"]["from"] = ["eastern", "next"]
    scenario, alone = elsewhere(first), train(at_hand(first), tmp_path / "one")
    backend = WAYS[way](scenario, tmp_path / "sites")
    family = afar(scenario, tmp_path / "family", backend)
    here, both = InProcess(workers(at_hand(first), alone)), Split(workers_here(scenario, family), backend, family.id)
    for one, over in ((alone, here), (family, both)):
        unlearn(one, LEAVE, "logit_mask", over)
    alone = extend(Family.open(alone.folder), more, "more.yaml")
    family = extend_afar(Family.open(family.folder), more, "more.yaml", backend)
    assert set(more["models"]) < set(family.heads)
    assert family.heads == alone.heads
    assert family.lineage.to_json() == alone.lineage.to_json()
    assert not any("0" in s.rows for m in family.lineage.models if m.name in more["models"] for s in m.data)
    said_last = [{k: v for k, v in f.ledger.lines[-1].body.items() if k not in APART} for f in (family, alone)]
    assert said_last[0] == said_last[1]
    assert not behind(family)


@pytest.mark.parametrize("extending", [extend, lambda *asked: extend_afar(*asked, AWAY)], ids=["nobody", "sites away"])
def test_a_request_is_noted_though_no_site_is_there(extending: Callable[..., Family], tmp_path: Path) -> None:
    scenario = elsewhere({"shared": MODELS["shared"]})
    backend = WAYS["in-process"](scenario, tmp_path / "sites")
    family = afar(scenario, tmp_path / "family", backend)
    both = Split(workers_here(scenario, family), backend, family.id)
    unlearn(family, LEAVE, "logit_mask", both, accept_untested="a test")  # sites have something to leave out
    before = Family.open(family.folder)
    with pytest.raises(InputError, match=r"requests.leave: unknown class '11'"):
        extending(before, {"requests": {"leave": {"classes": ["11"]}}}, "note.yaml")
    noted = extending(before, {"requests": {"leave": {"classes": ["5"], "due": "2026-12-20"}}}, "note.yaml")
    assert noted.heads == before.heads
    assert noted.lineage.to_json() == before.lineage.to_json()
    assert [(c.request.id, c.state) for c in cases_of(noted)] == [(LEAVE.id, "applied"), ("leave", "planned")]
    assert not behind(noted)
    assert not fsck(noted.folder, ["server"]).damage
    again = extend_afar(noted, {"models": {"eastern": MODELS["eastern"]}}, "more.yaml", backend)
    assert set(again.heads) - set(before.heads) == {"eastern"}
    assert not behind(again)


def test_an_extension_that_waits_for_a_site_says_that_nothing_was_trained(tmp_path: Path) -> None:
    scenario = elsewhere({"shared": MODELS["shared"]})
    backend = in_process(scenario, tmp_path / "sites")
    family = afar(scenario, tmp_path / "family", backend)
    unlearn(family, LEAVE, "logit_mask", Split(workers_here(scenario, family), backend, family.id), accept_untested="a test")
    lines = len(family.ledger.lines)
    held = {k: w for k, w in sites_of(scenario, tmp_path / "sites").items() if k != "east"}
    with pytest.raises(SiteError, match=r"nothing was trained: every place must know first .*; 1 of 4 places failed: east"):
        extend_afar(Family.open(family.folder), {"models": {"eastern": MODELS["eastern"]}}, "more.yaml", InProcess(held))
    assert len(Family.open(family.folder).ledger.lines) == lines


def test_a_round_is_one_message_a_site(tmp_path: Path) -> None:
    scenario = elsewhere({k: MODELS[k] for k in ("shared", "eastern", "few", "more", "moved")})
    backend = Counting(sites_of(scenario, tmp_path / "sites"))
    afar(scenario, tmp_path / "family", backend)
    kinds = [(sorted({type(t).__name__ for t in tasks}), len(tasks)) for tasks in backend.carried]
    trained = [(["Train"], 3), (["Train"], 3), (["Train"], 1), (["Train"], 1), (["Train"], 1)]
    assert kinds == [(["Survey"], 3), *trained, (["Fetch"], 1), (["Train"], 1), (["Commit"], 3)]
    own = [t for tasks in backend.carried for t in tasks if isinstance(t, Train) and t.recipe.name == "more"]
    assert own[0].versions
    assert not own[0].sent
    assert len(own[0].start) == 2  # its head, which grows; the rest never left the site


@pytest.mark.parametrize(
    "without",
    [
        Request(classes=("0",)),
        Request(sites=("north",)),
        Request(samples=("north/main/3", "south/main/4")),
        Request(classes=("1",), since="shared"),
    ],
    ids=lambda r: r.words(),
)
def test_a_reference_without_the_data_is_the_one_of_a_single_process(without: Request, tmp_path: Path) -> None:
    models = {k: MODELS[k] for k in ("shared", "eastern", "few")}
    scenario, requests = elsewhere(models), (without, Request(classes=("2",), sites=("east",)))
    backend = InProcess(sites_of(scenario, tmp_path / "sites"))
    family = afar(scenario, tmp_path / "family", backend)
    at = {site: part(Store(tmp_path / "sites" / site), family.id).folder / MIRROR for site in SITES}
    mirrors = {site: path.read_bytes() for site, path in at.items()}
    twin = afar(scenario, tmp_path / "twin", backend, without=requests)
    alone = train(at_hand(models), tmp_path / "alone", without=requests)
    assert twin.heads == alone.heads
    assert twin.heads != family.heads
    assert twin.lineage.to_json() == alone.lineage.to_json()
    assert said(twin) == said(alone)
    assert {site: path.read_bytes() for site, path in at.items()} == mirrors


def test_reference_keeps_what_was_retrained_at_the_sites(tmp_path: Path) -> None:
    models = {k: MODELS[k] for k in ("shared", "eastern")}
    scenario = elsewhere(models)
    backend = Counting(sites_of(scenario, tmp_path / "sites"))
    family = afar(scenario, tmp_path / "family", backend)

    def retrain(scenario: Scenario, folder: Path, **more: Any) -> Family:
        return afar(scenario, folder, backend, **more)

    twin = reference(family, scenario, LEAVE, retrain=retrain)
    asked = len(backend.carried)
    assert reference(family, scenario, LEAVE, retrain=retrain).heads == twin.heads
    assert len(backend.carried) == asked
    plan = discover(family.lineage, LEAVE)
    again = score_all(twin, plan, Split(workers_here(scenario, twin), backend, family.id))
    assert set(again) == {h.name for h in plan.heirs}


def test_the_coordinators_places_test_on_the_test_set(tmp_path: Path) -> None:
    scenario = elsewhere({"shared": MODELS["shared"]}, test="tests.scenario.elsewhere:load_test")
    backend = InProcess(sites_of(scenario, tmp_path / "sites"))
    family = afar(scenario, tmp_path / "family", backend)
    assert family.lineage.tests["server"] == tuple(map(str, range(10)))
    record = unlearn(family, LEAVE, "logit_mask", Split(workers_here(scenario, family), backend, family.id))
    (scored,) = [m for m in record.facts["models"] if m["name"] == "shared"]
    assert scored["forgotten_before"] is not None
    wrong = elsewhere({"shared": MODELS["shared"]}, test="tests.scenario.elsewhere:load_letters")
    with pytest.raises(InputError, match=r"data.test: .*load_letters' names a class 'a' that the rows to train on do not name"):
        afar(wrong, tmp_path / "wrong", backend)


def test_places_here_are_homes_that_are_no_sites(tmp_path: Path) -> None:
    scenario, family = elsewhere({"shared": MODELS["shared"]}), Family(tmp_path / "family")
    assert set(workers_here(scenario, family)) == {"server"}
    with pytest.raises(InputError, match="place 'north' is a site; its own worker answers for it"):
        workers_here(scenario, family, ["north"])
    with pytest.raises(InputError, match="unknown place 'serves'; did you mean 'server'"):
        workers_here(scenario, family, ["serves"])
    with pytest.raises(InputError, match="is not trained yet, so nobody here knows the shape of its inputs; train it first"):
        workers_here(scenario, family)["server"].make_net(2, "")
