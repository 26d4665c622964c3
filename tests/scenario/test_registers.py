"""A site's data changes after its models were trained: rows are taken out, come, or stand in another order."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fedunlearn.data import Exclusions, Rows, Selection, open_rows
from fedunlearn.data.register import FOLDER, LIST, Register
from fedunlearn.errors import InputError, StoreError
from fedunlearn.evaluation import Gate
from fedunlearn.lineage import Request
from fedunlearn.methods import make
from fedunlearn.report import document
from fedunlearn.runtime import Family, InProcess, Split, check_site, fsck, seal, unlearn
from fedunlearn.runtime.backend import answer
from fedunlearn.runtime.books.records import record_of
from fedunlearn.runtime.tasks import Failure, Survey, Surveyed, Train, Trained
from fedunlearn.scenario import Scenario, extend, open_site, retrained, train, workers, workers_here
from fedunlearn.scenario.build import open_data
from fedunlearn.scenario.files import parse
from fedunlearn.scenario.registers import Registers
from fedunlearn.scenario.site import Site
from fedunlearn.scenario.train import reference
from fedunlearn.store import Ledger
from fedunlearn.training import Recipe
from tests.scenario.elsewhere import NET, afar, elsewhere

SITES = ("north", "south")
MODELS: dict[str, Any] = {"shared": {"born": "federated", "clients": list(SITES)}}
MORE = {"models": {"more": {"born": "incremental", "from": ["shared"], "site": "north", "epochs": 1}}}
EDIT = make("fiun", {"alpha": 1.0, "lam": 0.5})  # it edits at any rate
HEAD = tuple(map(str, range(10)))
TASK = Train("north", Recipe("m", "north", (), HEAD, 1, 0.1, 8, 0), "incremental", "main", HEAD)
DIGITS = open_rows("digits").first(30)


def save(path: Path, order: Sequence[int], come: int = 0) -> None:
    """A file without names of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = DIGITS.x[list(order)].numpy(), DIGITS.y[list(order)].numpy()
    x = np.concatenate([np.full((come, *x.shape[1:]), 0.5, np.float32), x])
    np.savez(path, x=x, y=np.concatenate([np.zeros(come, y.dtype), y]))


def site_at(folder: Path, **more: Any) -> Site:
    plain = {"name": folder.name, "data": {"set": "rows.npz"}, "net": NET, **more}
    (folder / "site.yaml").write_text(yaml.safe_dump(plain))
    return open_site(folder / "site.yaml")


class World:
    """Two sites with files of their own, and a coordinator."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.scenario = folder, elsewhere(MODELS)
        self.order = {name: list(range(i, len(DIGITS), 2)) for i, name in enumerate(SITES)}
        for name in SITES:
            self.change(name, self.order[name])
        self.family = afar(self.scenario, folder / "family", self.sites)

    def change(self, name: str, order: Sequence[int], come: int = 0) -> None:
        save(self.folder / name / "rows.npz", order, come)

    @property
    def sites(self) -> InProcess:
        return InProcess({name: site_at(self.folder / name) for name in SITES})

    @property
    def backend(self) -> Split:
        return Split(workers_here(self.scenario, self.family), self.sites, self.family.id)

    def forget(self, request: Request) -> None:
        unlearn(self.family, request, EDIT, self.backend, Gate(1.0, 1.0, 1.0, score_at_roots=True))
        self.family = Family.open(self.family.folder)

    def rows(self, name: str = "north") -> dict[str, list[float]]:
        data = site_at(self.folder / name).answerer.data
        return named(data.all("main"))

    def held_out(self, name: str = "north") -> dict[str, set[str]]:
        return {split: set(of.keys) for split, of in site_at(self.folder / name).answerer.data.held_out.items()}


def named(rows: Rows) -> dict[str, list[float]]:
    return {k: x.flatten().tolist() for k, x in zip(rows.keys, rows.x, strict=True)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_row_that_is_taken_out_and_another_order_leave_all_others_what_they_were(world: World) -> None:
    rows, held = world.rows(), world.held_out()
    world.change("north", sorted(world.order["north"], key=lambda i: DIGITS.x[i].sum().item())[3:])
    after, still = world.rows(), world.held_out()
    assert len(after) + sum(map(len, still.values())) == len(rows) + sum(map(len, held.values())) - 3
    assert all(rows[k] == x for k, x in after.items())
    assert all(still[split] <= held[split] for split in held)


def test_a_sample_is_the_row_that_it_was_in_requests_and_exclusions(world: World) -> None:
    rows = world.rows()
    key = sorted(rows, key=int)[40]
    world.change("north", [i for i in reversed(world.order["north"]) if i != world.order["north"][0]])
    data, one = site_at(world.folder / "north").answerer.data, Selection(samples=(f"main/{key}",))
    assert named(data.selected("main", one)) == {key: rows[key]}
    assert rows[key] == DIGITS.x[world.order["north"][int(key)]].flatten().tolist()
    kept = Exclusions({"one": one}).keep("main", data.all("main"))
    assert named(kept).keys() == named(data.all("main")).keys() - {key}


def test_a_sample_that_is_not_there_any_more_is_said_to_be_gone(world: World) -> None:
    key = next(iter(world.rows()))
    world.change("north", [i for i in world.order["north"] if i != world.order["north"][int(key)]])
    with pytest.raises(InputError, match=f"sample 'north/main/{key}' was trained on and is not in the site's data any more"):
        world.forget(Request(samples=(f"north/main/{key}",)))


def test_evidence_of_fewer_rows_than_were_trained_on_is_said_to_be_so(world: World) -> None:
    zeros = [i for i in world.order["north"] if DIGITS.y[i] == 0]
    register = site_at(world.folder / "north").answerer.data
    trained = [r for r in register.all("main").keys if world.order["north"][int(r)] in zeros]
    taken = {world.order["north"][int(key)] for key in trained[1:]}
    assert taken
    world.change("north", [i for i in world.order["north"] if i not in taken])
    world.forget(Request(classes=("0",)))
    (row, *_) = record_of(world.family, world.family.ledger.lines[-1]).facts["models"]
    assert row["unmeasured"] == [f"shared @ north/main (1 of {len(trained)} rows)"]


def test_rows_that_have_come_do_not_stop_a_request_but_training(world: World) -> None:
    rows = world.rows()
    world.change("north", world.order["north"], come=2)
    assert world.rows() == rows
    world.forget(Request(classes=("0",)))
    retrained(world.family, world.scenario, Request(classes=("1",)), world.backend)  # to compare with: without them, too
    told = answer(world.sites.workers["north"], Survey("north", ("main",)), ())
    assert isinstance(told, Failure)
    assert "set 'main': 2 rows have come since models were first trained on it, and would be left out" in told.text
    with pytest.raises(InputError, match=r"north.*new rows belong into a set of their own"):
        afar(world.scenario, world.folder / "another", world.sites)
    world.change("north", world.order["north"][5:])
    assert isinstance(answer(world.sites.workers["north"], Survey("north", ("main",)), ()), Surveyed)


def test_sealing_erases_what_is_known_of_a_row_that_its_owner_took_out(world: World) -> None:
    file, whole = world.folder / "north" / "store" / FOLDER / "main.json", world.order["north"]
    rows, before = site_at(world.folder / "north").answerer.data.all("main"), file.read_bytes()
    out = {whole[int(next(k for k, c in zip(rows.keys, rows.labels, strict=True) if c == label))] for label in ("0", "1")}
    world.forget(Request(classes=("0",), id="one"))
    world.change("north", [i for i in whole if i not in out])
    seal(world.family, world.backend, "one")
    assert file.read_bytes() != before
    world.change("north", whole)
    told = answer(world.sites.workers["north"], Survey("north", ("main",)), ())
    assert "1 rows have come" in str(getattr(told, "text", "")), "of the two, only the one that was to be forgotten is unknown"


def in_one_process(folder: Path) -> Scenario:
    save(folder / "rows.npz", range(len(DIGITS)))
    models = {"shared": MODELS["shared"] | {"epochs": 1}}
    return parse({"name": "t", "folder": str(folder), "data": {"set": "rows.npz"}, "net": NET, "models": models}, "t")


def parts(scenario: Scenario, folder: Path) -> dict[str, dict[str, list[float]]]:
    places = open_data(scenario, folder).places
    held = {split: named(of) for split, of in places["north"].held_out.items()}
    return {**{name: named(places[name].all("main")) for name in SITES}, **held}


def test_a_set_that_is_dealt_here_is_dealt_again_as_it_was(tmp_path: Path) -> None:
    scenario = in_one_process(tmp_path)
    family = train(scenario, tmp_path / "family")
    before, request = parts(scenario, family.folder), Request(classes=("0",))
    alike = reference(family, scenario.seeded(3), request).heads
    order = list(reversed(range(5, len(DIGITS))))
    save(tmp_path / "rows.npz", order, come=1)
    after = parts(scenario, family.folder)
    assert sum(map(len, before.values())) - sum(map(len, after.values())) == 5
    assert all(before[name][k] == x for name, of in after.items() for k, x in of.items())
    with pytest.raises(InputError, match="set 'main': 1 rows have come"):
        extend(family, MORE, "more.yaml")
    reference(family, scenario, Request(classes=("1",)))  # only to compare with: without it, too
    save(tmp_path / "rows.npz", list(reversed(range(len(DIGITS)))))
    twin = reference(family, scenario, request)
    fresh = train(in_one_process(tmp_path), tmp_path / "fresh", without=request)
    assert twin.heads == fresh.heads
    assert alike != twin.heads
    extend(family, MORE, "more.yaml")


def test_a_limit_takes_the_rows_that_it_took(tmp_path: Path) -> None:
    scenario = in_one_process(tmp_path)
    scenario = scenario.model_copy(update={"data": scenario.data.model_copy(update={"limit": 20})})
    family = train(scenario, tmp_path / "family")
    before = parts(scenario, family.folder)
    save(tmp_path / "rows.npz", list(reversed(range(1, len(DIGITS)))))
    after = parts(scenario, family.folder)
    assert sum(map(len, before.values())) - sum(map(len, after.values())) == 1
    assert all(before[name][k] == x for name, of in after.items() for k, x in of.items())
    extend(family, MORE, "more.yaml")


def test_a_training_that_fails_leaves_no_register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = in_one_process(tmp_path)

    def full(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(Ledger, "append", full)
        with pytest.raises(OSError, match="no space"):
            train(scenario, tmp_path / "family")
    save(tmp_path / "rows.npz", range(7, len(DIGITS)), come=3)
    family = train(scenario, tmp_path / "family")
    assert [p.name for p in sorted((family.folder / FOLDER).iterdir()) if p.suffix == ".json"] == ["main.json"]


def test_a_register_that_is_lost_is_told_wherever_rows_are_held_out(tmp_path: Path) -> None:
    scenario = in_one_process(tmp_path)
    family = train(scenario, tmp_path / "family")
    (file,) = (family.folder / FOLDER).glob("*.json")
    assert Family.open(family.folder).unregistered == ()
    assert fsck(family.folder).damage == []
    kept = file.read_bytes()
    file.unlink()
    family = Family.open(family.folder)
    assert family.unregistered == (file.stem,)
    (damage,) = fsck(family.folder).damage
    assert damage.startswith(f"{file}: is missing")
    record = unlearn(family, Request(classes=("0",)), EDIT, InProcess(workers(scenario, family)))
    assert record.facts["unregistered"] == [file.stem]
    assert any(said["about"] == "Rows that were held out" for said in document(family, family.ledger.lines[-1], {})["limits"])
    file.write_bytes(kept)
    assert fsck(family.folder).damage == []


def test_a_register_that_was_rewritten_is_found_before_any_row_is_opened(tmp_path: Path) -> None:
    """Every second row of a class is taken out, so that the others alone are tested; all hashes of the file are right."""
    scenario = in_one_process(tmp_path)
    family = train(scenario, tmp_path / "family")
    (file,) = (family.folder / FOLDER).glob("*.json")
    kept = file.read_bytes()
    found = Register.read(file)
    zeros = [i for i, label in enumerate(found.labels) if found.classes[label] == "0"]
    left = [i for i in range(len(found.keys)) if i not in zeros[::2]]
    fewer = {k: tuple(getattr(found, k)[i] for i in left) for k in ("keys", "labels", "marks")}
    file.write_bytes(replace(found, **fewer).to_bytes())
    again, words = Family.open(family.folder), "main.json: is not what the ledger recorded"
    with pytest.raises(StoreError, match=words):
        workers(scenario, again)
    with pytest.raises(StoreError, match=words):
        reference(again, scenario, Request(classes=("0",)))
    with pytest.raises(StoreError, match=words):
        extend(again, MORE, "more.yaml")
    assert [text for text in fsck(family.folder).damage if words in text]
    file.write_bytes(kept)
    assert fsck(family.folder).damage == []
    twin = reference(again, scenario, Request(classes=("0",)))
    extend(again, MORE, "more.yaml")
    assert twin.registered == again.registered == Family.open(family.folder).registered


def test_a_ledger_that_only_names_registers_is_read(tmp_path: Path) -> None:
    """As those were written before; what it does not say is said from the next training on."""
    scenario = in_one_process(tmp_path)
    family = train(scenario, tmp_path / "family")
    body = dict(family.ledger.lines[0].body)
    family.ledger.path.unlink()
    for mirror in (family.folder / "homes").glob("*/place.json"):
        mirror.unlink()  # of the other ledger
    (family.folder / "acknowledged.json").unlink()
    Ledger(family.ledger.path).append("trained", body | {"registers": sorted(body["registers"])})
    older = Family.open(family.folder)
    assert (older.registered, older.unregistered, older.altered) == ({"main": ""}, (), ())
    assert fsck(family.folder).damage == []
    assert extend(older, MORE, "more.yaml").registered == family.registered


def test_a_site_answers_nothing_without_a_register_that_it_had(tmp_path: Path) -> None:
    save(tmp_path / "rows.npz", range(len(DIGITS)))
    asked = Survey("north", ("main",))
    assert isinstance(answer(site_at(tmp_path, name="north"), TASK), Trained)
    file = tmp_path / "store" / FOLDER / "main.json"
    kept = file.read_bytes()
    file.unlink()
    site = site_at(tmp_path, name="north")
    assert isinstance(answer(site, asked), Failure)
    assert f"{file}: is lost" in site.error
    assert any(str(file) in told for told in check_site(tmp_path / "store").damage)
    file.write_bytes(kept)
    assert isinstance(answer(site_at(tmp_path, name="north"), asked), Surveyed)
    assert not check_site(tmp_path / "store").damage
    file.unlink()
    (tmp_path / "store" / LIST).unlink()  # as it is told
    assert isinstance(answer(site_at(tmp_path, name="north"), asked), Surveyed)


def test_only_sets_that_are_trained_on_are_registered_and_checked(tmp_path: Path) -> None:
    save(tmp_path / "rows.npz", range(len(DIGITS)))
    chance, y = np.random.default_rng(0), np.arange(12) % 2
    x = chance.random((12, 8, 8), np.float32)
    for rows in (8, 12):
        np.savez(tmp_path / "extra.npz", x=x[:rows], y=y[:rows], classes=["a", "b"])
        site = site_at(tmp_path, name="north", more={"extra": {"set": "extra.npz"}})
        assert isinstance(answer(site, TASK), Trained)
        assert isinstance(answer(site, Survey("north", ("main",)), ()), Surveyed)
        assert [p.name for p in (tmp_path / "store" / FOLDER).glob("*.json")] == ["main.json"]


def test_what_its_owner_has_not_allowed_registers_nothing(tmp_path: Path) -> None:
    save(tmp_path / "rows.npz", range(7, len(DIGITS)))
    assert isinstance(answer(site_at(tmp_path, name="north", policy="ask"), TASK), Failure)
    assert not list((tmp_path / "store" / FOLDER).glob("*.json"))
    save(tmp_path / "rows.npz", range(len(DIGITS)))  # more rows, before anything is trained here
    site = site_at(tmp_path, name="north", policy="ask")
    site.consent.approve(site.consent.wishes()[0].id)
    assert isinstance(answer(site, TASK), Trained)
    assert len(Register.read(tmp_path / "store" / FOLDER / "main.json").keys) == len(DIGITS)


def test_processes_of_one_site_may_register_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for turn in range(10):
            several = [Registers(tmp_path / str(turn)) for _ in range(8)]
            for one in several:
                one.recall("main", DIGITS)
            list(pool.map(lambda one: one.hold(["main"]), several))
            assert Register.read(tmp_path / str(turn) / FOLDER / "main.json") == Register.of(DIGITS)
