"""An owner with the policy `ask` is asked first, of that very task, and allows it.

Long because every kind of task, and what an owner reads of it, is here.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from fedunlearn.data import Selection
from fedunlearn.errors import InputError, SiteError, TrainingError
from fedunlearn.evaluation import Scores
from fedunlearn.lineage import Request
from fedunlearn.methods import Evidence
from fedunlearn.runtime import Split, check_site, unlearn
from fedunlearn.runtime.backend import answer
from fedunlearn.runtime.flower import Flower, client_app
from fedunlearn.runtime.place.consent import MOST_WAITING, Consent, free, identity
from fedunlearn.runtime.place.mirror import Excluded, Mirror, part, path
from fedunlearn.runtime.place.wording import words
from fedunlearn.runtime.tasks import (
    Apply,
    Commit,
    Deposit,
    Evaluate,
    Failure,
    Fetch,
    Fetched,
    Measure,
    Question,
    Score,
    Seal,
    Survey,
    Surveyed,
    Task,
    Train,
)
from fedunlearn.scenario import open_site, workers_here
from fedunlearn.store import Store, write_atomically
from fedunlearn.tensors import Head
from fedunlearn.training import Recipe
from fedunlearn.training.flower import LocalGrid
from tests.cli.conftest import Run, run as run
from tests.scenario.elsewhere import MODELS, afar, elsewhere, in_process
from tests.scenario.site_files import sites_at, write

RECIPE = Recipe("shared", "server", (), ("0", "1"), 1, 0.1, 8, 0)
SENT, NONE = torch.ones(3), Scores(None, None, 0, 0)
ASKED = [
    Train("north", RECIPE, "federated", "main", ("0", "1"), start={"w": SENT}, give=True),
    Measure("north", "v" * 64, "main", "squares", "all", None, ("0",)),
    Measure("north", "v" * 64, "main", "squares", "all", Selection(samples=("main/1",)), ()),
    Deposit("north", "v" * 64, "main"),
    Apply(
        "north",
        "v" * 64,
        "fiun",
        {},
        (Evidence({"w": SENT}, 1),),
        None,
        (),
        Question(("0",)),
        Scores(None, None, 0, 0),
        Scores(0.0, None, 0, 0),
        (0.1, 0.1),
    ),
    Fetch("north", "v" * 64),
    Evaluate("north", "full", "v" * 64, "w" * 64, Question(("0",))),
    Evaluate("north", "quick", "v", "w", Question(("0",)), (), ("r",), {"r": Fetched({"w": SENT}, Head("w", ("0",)))}),
    Seal("north", ("v" * 64,), {}, "line", ("line",)),
    Survey("north", ("main",), {"r": Selection(samples=("main/1",))}, again=True),
    Score("north", "v" * 64, Question(("0",)), (("main", ("0", "1"), ("1",)),)),
    Score("north", "v" * 64, Question(selections={"main": Selection(samples=("main/1",))})),
    Evaluate("north", "quick", "v", "w", Question(selections={"main": Selection(samples=("main/1",))}), (), ("r",)),
    Commit("north", {}, {"r": Selection(samples=("main/1",))}, ("line",)),
]


@pytest.mark.parametrize("task", ASKED, ids=lambda t: type(t).__name__)
def test_what_computes_changes_or_gives_waits_for_the_owner(task: Any, tmp_path: Path) -> None:
    site = open_site(write(tmp_path, policy="ask"))
    told = answer(site, task, ())
    assert isinstance(told, Failure)
    assert not told.wrong_input
    assert told.text.startswith("this site's owner is asked first, and has not allowed it yet: ")
    (wish,) = site.consent.wishes()
    assert wish.what == words(task)
    assert f"`fedunlearn site approve site.yaml {wish.id}`" in told.text
    assert answer(site, task, ()) == told
    assert site.consent.wishes() == [wish]
    site.consent.approve(wish.id[:6])
    after = answer(open_site(tmp_path / "site.yaml"), task, ())  # it is on disk
    assert "owner is asked first" not in str(getattr(after, "text", ""))


def test_whatever_is_not_free_is_asked_about() -> None:
    """A kind of task that is new asks until somebody says that it need not."""
    assert {type(t) for t in ASKED} == set(get_args(Task))
    assert not any(free(t) for t in ASKED)


def test_what_is_allowed_is_that_very_task(tmp_path: Path) -> None:
    site, (train, *_) = open_site(write(tmp_path, policy="ask")), ASKED
    answer(site, train, ())
    site.consent.approve(site.consent.wishes()[0].id)
    for other in (
        Train("north", RECIPE, "federated", "main", ("0", "1"), start={"w": SENT + 1e-6}, give=True),
        Train("north", RECIPE, "federated", "main", ("0", "1"), start={"w": SENT.reshape(3, 1)}, give=True),
        Train("north", RECIPE, "federated", "main", ("0", "1", "2"), start={"w": SENT}, give=True),
    ):
        assert identity(other) != identity(train)
        assert "owner is asked first" in str(getattr(answer(site, other, ()), "text", ""))


def test_what_tells_only_counts_and_scores_is_answered(tmp_path: Path) -> None:
    site = open_site(write(tmp_path, policy="ask"))
    for without in ({}, {"r": Selection(("0",))}):
        assert isinstance(answer(site, Survey("north", ("main",), without), ()), Surveyed)
    assert not isinstance(answer(site, Commit("north", {}, {}, ("line",)), ()), Failure)
    looks = Evaluate("north", "quick", "v", "w", Question(("0",)), (), ("r",))
    whole = Question(selections={"main": Selection(("0",))})
    for task in (Score("north", "v", Question()), Score("north", "v", whole), looks):
        assert "StoreError" in str(getattr(answer(site, task, ()), "text", ""))
        assert "unknown version" in site.error
    assert site.consent.wishes() == []


def test_what_changes_what_is_trained_on_is_asked_about(tmp_path: Path) -> None:
    """Counts and trainings follow what is excluded: whoever may change that freely learns of a single row, or trains on it."""
    site = open_site(write(tmp_path, policy="ask"))
    zero, one, row, family = Selection(("0",)), Selection(("1",)), Selection(samples=("main/20",)), "a" * 32
    lines = tuple(f"l{i}" for i in range(99))
    grown = iter(range(1, 99))  # the ledger grows with each

    def told(excluded: dict[str, Selection], of: str = family) -> str:
        return str(getattr(answer(site, Commit("north", {}, excluded, lines[: next(grown)], family=of), ()), "text", ""))

    def allow(what: str) -> None:
        (wish,) = [w for w in site.consent.wishes() if w.what == f"for family 'aaaaaaaaaaaa': {what}"]
        site.consent.approve(wish.id)

    assert not told({})
    assert not told({"r": zero})
    assert not told({"r": zero})  # nothing changes
    assert not told({"r": zero, "s": one})
    standing = {"r": zero, "s": one}
    for other in ({}, {"r": zero}, {"r": one, "s": one}, {**standing, "t": row}):
        assert "owner is asked first" in told(other)
        assert Mirror.of(part(Store(site.folder), family)).exclusions == standing  # type: ignore[union-attr]
    assert "owner is asked first" in told({"r": row}, of="b" * 32)
    for _ in range(2):  # what was allowed is not allowed again: in and out is asked about each time
        assert "owner is asked first" in told({**standing, "t": row})
        allow("train no more on 1 samples ('main/20') (request 't')")
        assert not told({**standing, "t": row})
        assert "owner is asked first" in told(standing)
        allow("train again on 1 samples ('main/20') (request 't')")
        assert not told(standing)
    path(part(Store(site.folder), family)).write_text("{")
    assert "what was excluded before cannot be read" in told({})


def test_a_training_is_allowed_on_the_rows_that_it_was_asked_for(tmp_path: Path) -> None:
    site, train = open_site(write(tmp_path, policy="ask")), replace(ASKED[0], family="a" * 32)
    first = identity(train, Excluded.at(Store(site.folder), train.family))
    mirror = part(Store(site.folder), "b" * 32)
    write_atomically(path(mirror), Mirror("line", 1, {}, {"r": Selection(("0",))}).to_bytes())  # of another family
    assert identity(train, Excluded.at(Store(site.folder), train.family)) != first


def test_no_name_of_a_request_lifts_what_another_excludes(tmp_path: Path) -> None:
    site, ours, theirs = open_site(write(tmp_path)), "a" * 32, "b" * 32
    answer(site, Commit("north", {}, {"r": Selection(("0",))}, ("line",), family=ours), ())
    for name in (f"r of family {ours}", f"other r of family {ours}", "without r", "own r", "r"):
        lie = {name: Selection(("no such class",))}
        answer(site, Commit("north", {}, lie, (f"line {name}",), family=theirs), ())
        told = answer(site, Survey("north", ("main",), {name: Selection(("no such class",))}, family=theirs), ())
        assert isinstance(told, Surveyed)
        assert "0" not in told.shards["main"]
        trained = answer(site, replace(ASKED[0], start={}, family=theirs), ())
        assert "0" not in getattr(trained, "rows", {"0": str(trained)})
        shutil.rmtree(part(Store(site.folder), theirs).folder)


def test_two_tasks_of_one_id_are_told_apart(tmp_path: Path) -> None:
    site, task = open_site(write(tmp_path, policy="ask")), ASKED[0]
    answer(site, task, ())
    (file,) = site.consent.files()
    plain = json.loads(file.read_text())
    other = {**plain, "whole": plain["whole"][:16] + "0" * 48, "approved": "2026-01-01"}
    file.write_text(json.dumps(other))
    assert "another task" in str(getattr(answer(site, task, ()), "text", ""))


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (
            replace(ASKED[0], without={"r": Selection(samples=("main/1", "main/2"))}),
            "'main', but 2 samples ('main/1', 'main/2'); its weights",
        ),
        (replace(ASKED[0], family="c" * 32), "for family 'cccccccccccc': train 'shared'"),
        (replace(ASKED[1], left_out=("1", "2"), most=1), "on at most 1 rows of classes '0' in 'main', but 2 of these rows"),
        (replace(ASKED[1], sent=Fetched({"w": SENT}, Head("w", ("0",)))), "version 'vvvvvvvvvvvv', which is sent along, on"),
        (replace(ASKED[1], classes=tuple(map(str, range(20)))), "'11' and 8 more"),
        (ASKED[4], "accuracies are sent"),
        (Score("north", "v", Question(("0",)), (("main", ("0",), ("1", "2")),)), "how many rows there are but for 2 of them"),
    ],
)
def test_the_owner_reads_what_makes_a_difference(task: Task, said: str) -> None:
    assert said in words(task)


def test_a_task_that_names_no_family_trains_on_nothing_that_a_family_excludes(tmp_path: Path) -> None:
    site = open_site(write(tmp_path))
    answer(site, Commit("north", {}, {"r": Selection(("0",))}, ("line",), family="a" * 32), ())
    for family in ("a" * 32, "b" * 32, ""):
        told = answer(site, Survey("north", ("main",), family=family), ())
        assert isinstance(told, Surveyed)
        assert "0" not in told.shards["main"]
    trained = answer(site, replace(ASKED[0], start={}), ())
    assert "0" not in getattr(trained, "rows", {"0": str(trained)})


def test_what_code_of_the_owners_own_says_stays_at_the_site(tmp_path: Path, run: Run) -> None:
    """A loader's words may quote a row."""
    text = "def rows(site):\n    return float('Smith, John')\n"
    (tmp_path / "loader_of_consent.py").write_text(text)
    file = write(tmp_path, data={"factory": "loader_of_consent:rows"})
    told = str(getattr(answer(open_site(file), Survey("north", ("main",)), ()), "text", ""))
    assert told.startswith("cannot open its rows, nets or store: ValueError; its words stay there")
    assert "Smith" not in told
    assert str(tmp_path) not in told
    assert "Smith, John" in run("site", "show", file)[1]
    assert "Smith, John" in run("site", "check", file)[2]
    assert not check_site(open_site(file).folder).orphans
    (tmp_path / "net_of_consent.py").write_text("def net(shape, outputs):\n    raise ValueError('Smith, John')\n")
    wrong = open_site(write(tmp_path / "b", nets={"wide": {"factory": "net_of_consent:net"}}))
    (tmp_path / "b" / "net_of_consent.py").write_text((tmp_path / "net_of_consent.py").read_text())
    told = str(getattr(answer(wrong, replace(ASKED[0], net="wide"), ()), "text", ""))
    assert told.startswith("could not do it: ValueError; its words stay there")
    assert "Smith, John" in wrong.error


def test_a_wish_of_an_older_version_allows_nothing_and_stands_in_nobodys_way(tmp_path: Path) -> None:
    site = open_site(write(tmp_path, policy="ask"))
    answer(site, ASKED[0], ())
    (file,) = site.consent.files()
    old = {k: v for k, v in json.loads(file.read_text()).items() if k != "whole"} | {"approved": "2026-01-01"}
    file.write_text(json.dumps(old))
    assert "owner is asked first" in str(getattr(answer(site, ASKED[0], ()), "text", ""))
    assert "owner is asked first" in str(getattr(answer(site, ASKED[1], ()), "text", ""))
    assert not any(wish.approved for wish in site.consent.wishes())


def test_an_owner_checks_what_the_file_names(tmp_path: Path, run: Run) -> None:
    status, out, _ = run("site", "check", write(tmp_path))
    assert status == 0
    assert "to train on, 'main': " in out
    for number, (wrong, message) in enumerate(
        (({"device": "cudaa"}, "device: 'cudaa'"), ({"net": {"name": "mpl"}}, "unknown net 'mpl'; did you mean 'mlp'"),
         ({"methods": ["nowhere_at_all:Mine"]}, "nowhere_at_all"), ({"data": {"set": "rowz.npz"}}, "rowz.npz"))
    ):  # fmt: skip
        status, _, err = run("site", "check", write(tmp_path / str(number), **wrong))
        assert (status, message in " ".join(err.split())) == (2, True), err


def test_an_owner_is_not_flooded(tmp_path: Path) -> None:
    site = open_site(write(tmp_path, policy="ask"))
    folder = site.consent.folder
    folder.mkdir(parents=True)
    for i in range(MOST_WAITING):
        wish = {"id": f"{i:016x}", "what": "w", "asked": "t", "approved": "", "whole": f"{i:016x}{'0' * 48}"}
        (folder / f"{i:016x}.json").write_text(json.dumps(wish))
    told = answer(site, ASKED[-1], ())
    assert "nothing more is taken until they are seen to" in str(getattr(told, "text", ""))
    assert len(list(folder.iterdir())) == MOST_WAITING


def test_a_training_of_rounds_is_taken_up_as_the_owner_allows_it(tmp_path: Path) -> None:
    scenario = elsewhere({"shared": {**MODELS["shared"], "keep": "last"}})
    held = sites_at(tmp_path / "sites") | {"east": open_site(write(tmp_path / "sites" / "east", name="east", policy="ask"))}
    app = client_app(lambda context: held[str(context.node_config["site"])])
    backend = Flower(LocalGrid(app, {i: {"site": s} for i, s in enumerate(held, 1)}), deadline=60, join=0)
    for number in (1, 2):
        with pytest.raises(
            TrainingError, match=r"east: this site's owner is asked first, .*train 'shared/r\d/east' .*then ask again"
        ):
            afar(scenario, tmp_path / "family", backend)
        waits = [w for w in held["east"].consent.wishes() if not w.approved]
        assert (len(waits), len(held["east"].consent.wishes())) == (1, number)
        held["east"].consent.approve(waits[0].id)
    family = afar(scenario, tmp_path / "family", backend)
    assert family.heads == afar(scenario, tmp_path / "free", in_process(scenario, tmp_path / "other")).heads
    both = Split(workers_here(scenario, family), backend, family.id)
    before = (tmp_path / "family" / "ledger.jsonl").read_bytes()
    with pytest.raises(SiteError, match="nothing was changed; 1 of 3 places failed: east: this site's owner is asked first"):
        unlearn(family, Request(classes=("1",), sites=("east",)), "fiun", both, accept_untested="a test")
    assert (tmp_path / "family" / "ledger.jsonl").read_bytes() == before


def test_the_owner_sees_and_allows(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path, policy="ask")
    site = open_site(path)
    for task in ASKED[:2]:
        answer(site, task, ())
    code, out, _ = run("site", "show", path)
    assert (code, out.count("waits since")) == (0, 2)
    assert "train 'shared'" in out
    ids = [w.id for w in site.consent.wishes()]
    assert run("site", "approve", path, *ids)[0] == 0
    code, out, _ = run("site", "show", path, "--json")
    assert all(t["approved"] for t in json.loads(out)["tasks"])
    code, _, err = run("site", "approve", path, "zz")
    assert code == 2
    assert "unknown task 'zz'" in err
    assert run("site", "fsck", path)[0] == 0
    damaged = site.consent.files()[0]
    damaged.write_text("{}")
    code, out, _ = run("site", "fsck", path, "--json")
    assert code == 1
    assert str(damaged) in json.loads(out)["damage"][0]


def test_a_damaged_wish_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError, match="not a task that waits for its owner"):
        Consent(tmp_path).wishes()
    task = ASKED[0]
    with pytest.raises(SiteError, match="owner is asked first"):
        Consent(tmp_path / "other").check(task, Excluded(), str)
    (wish,) = Consent(tmp_path / "other").wishes()
    Consent(tmp_path / "other").approve(wish.id)
    (tmp_path / "other" / "a.json").write_text("{}")
    Consent(tmp_path / "other").check(task, Excluded(), str)  # what is allowed does not depend on other files
