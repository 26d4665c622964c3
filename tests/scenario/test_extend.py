"""A family that grows is not taught again what it forgot; an extension that is wrong or cut off changes nothing."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from fedunlearn.data import MIRROR
from fedunlearn.errors import BusyError, InputError, StoreError
from fedunlearn.lineage import Request, discover
from fedunlearn.methods import make
from fedunlearn.runtime import Family, InProcess, cases, fsck, rollback, unlearn
from fedunlearn.runtime.books.family import NEXT
from fedunlearn.scenario import extend, of_family, train, workers
from fedunlearn.scenario.trainer_here import TrainerHere
from tests.conftest import snapshot
from tests.scenario.digits import FOUR, forget, known, scenario, weights
from tests.scenario.elsewhere import at_hand


def test_training_on_after_an_unlearning_does_not_teach_it_again(tmp_path: Path) -> None:
    """A round, an increment with replay and one with an anchor, after class 0 was forgotten: none is trained on a row of it."""
    first = {"born": "incremental", "site": "a", "epochs": 6}
    family = train(scenario({"first": first}), tmp_path / "f")
    forget(family, "0")
    start = family.heads["first"]
    more = {
        "round": {"born": "federated", "from": ["first"], "clients": ["a"], "rounds": 2},
        "again": {"born": "incremental", "from": ["first"], "site": "a", "classes": FOUR[1:], "replay": 30},
        "held": {"born": "incremental", "from": ["first"], "site": "a", "ewc": 10},
        "ranks": {"born": "distributed", "from": ["first"], "ranks": ["a"]},
    }
    family = extend(family, {"models": more}, "more.yaml")
    for name in more:
        assert known(family, name, ["0"]) == 0, name
        assert known(family, name, FOUR[1:]) > 0.8, name
    assert {m.started["first"] for m in family.lineage.models if "first" in m.parents} == {start}
    trained = [s.rows for m in family.lineage.models if m.name != "first" for s in m.data]
    assert not any("0" in rows for rows in trained)
    assert family.ledger.lines[-1].kind == "trained"


def test_what_is_asked_of_all_sites_binds_one_that_joins_later(tmp_path: Path) -> None:
    """And one whose store was lost, and with it all that it had been told."""
    family = train(at_hand({"first": {"born": "incremental", "site": "south"}}), tmp_path / "f")
    assert family.places == ("south",)
    forget(family, "0")
    more = {"late": {"born": "incremental", "from": ["first"], "site": "north"}}
    family = extend(family, {"models": more}, "more.yaml")
    assert "0" not in family.lineage["late"].data[0].rows
    assert not fsck(family.folder).damage
    (family.folder / "homes" / "north" / MIRROR).unlink()
    family = extend(family, {"models": {"later": more["late"]}}, "more.yaml")
    assert "0" not in family.lineage["later"].data[0].rows


def test_a_checkpoint_that_comes_late_holds_what_any_version_of_its_parent_held(tmp_path: Path) -> None:
    """Nobody knows from which version it was made: this one is the very one from before."""
    family = train(scenario({"first": {"born": "incremental", "site": "a", "epochs": 6}}), tmp_path / "f")
    save_file(weights(family, "first"), tmp_path / "old.safetensors")
    forget(family, "0")
    assert [case.left for case in cases(family)] == [()]
    late = {"file": "old.safetensors", "from": ["first"], "site": "a", "head": list(family.lineage["first"].head)}
    family = extend(family, {"models": {"late": late}}, str(tmp_path / "more.yaml"))  # beside which it lies
    assert [(case.state, case.left) for case in cases(family)] == [("pending", ("late",))]
    assert known(family, "late", ["0"]) > 0.8
    forget(family, "0")
    assert known(family, "late", ["0"]) == 0
    assert [(case.state, case.left) for case in cases(family)] == [("applied", ())]


def test_a_model_born_of_one_that_was_held_back_holds_it_too(tmp_path: Path) -> None:
    first = {"born": "incremental", "site": "a", "epochs": 6}
    family = train(scenario({"first": first, "kept": first | {"from": ["first"]}}), tmp_path / "f")
    backend = InProcess(workers(of_family(family), family))
    unlearn(family, Request(("0",), id="case"), make("steer", {"factor": 0}), backend)  # which changes nothing
    born = {"born": "incremental", "from": ["kept"], "site": "a", "classes": FOUR[1:]}
    family = extend(family, {"models": {"late": born, "later": born | {"from": ["late"]}}}, "more.yaml")
    (case,) = cases(family)
    assert set(case.left) == {"first", "kept", "late", "later"}
    assert case.state == "refused"
    unlearn(family, Request(("0",), id="case"), "logit_mask", InProcess(workers(of_family(family), family)))
    assert [(c.state, c.left) for c in cases(Family.open(family.folder))] == [("applied", ())]
    family = extend(family, {"models": {"clean": born}}, "more.yaml")
    assert [(c.state, c.left) for c in cases(family)] == [("applied", ())]


def test_after_a_rollback_that_lifts_the_exclusion_it_may_be_taught_again(tmp_path: Path) -> None:
    family = train(scenario({"first": {"born": "incremental", "site": "a", "epochs": 6}}), tmp_path / "f")
    before = family.heads["first"]
    forget(family, "0")
    rollback(family, InProcess(workers(of_family(family), family)), lift_exclusion=True)
    family = extend(family, {"models": {"next": {"born": "incremental", "from": ["first"], "site": "a"}}}, "more.yaml")
    assert family.lineage["next"].started == {"first": before}
    assert known(family, "next", ["0"]) > 0.8


def test_an_extension_that_is_wrong_or_cut_off_leaves_the_family_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = train(scenario({"first": {"born": "incremental", "site": "a", "epochs": 1}}), tmp_path / "f")
    before = snapshot(family.folder)
    for more, message in (
        ({"models": {"first": {"born": "incremental", "site": "a"}}}, "models.first: the family has one already"),
        (
            {"models": {"new": {"born": "incremental", "from": ["frist"], "site": "a"}}},
            "unknown parent 'frist'; did you mean 'first'",
        ),
        (
            {"models": {"new": {"born": "incremental", "from": ["first"], "site": "z"}}},
            "site 'z': all rows of digits are dealt",
        ),
        ({"data": {}}, "more.yaml: data: an extension names models, nets, requests, gate and a reason"),
        ({"models": {}, "gate": {}}, "more.yaml: adds nothing"),
        ({"gate": {"forgotten_at_most": 2}}, "forgotten_at_most"),
        ([], "more.yaml: expected a mapping with models, found list"),
    ):
        with pytest.raises(InputError, match=message):
            extend(family, more, "more.yaml")  # type: ignore[arg-type]
        assert snapshot(family.folder) == before
    monkeypatch.setattr("fedunlearn.store.ledger.Ledger.append", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        extend(family, {"models": {"new": {"born": "incremental", "from": ["first"], "site": "a"}}}, "more.yaml")
    monkeypatch.undo()
    again = Family.open(family.folder)
    assert [m.name for m in again.lineage.models] == ["first"]
    assert list(of_family(again).models) == ["first"]
    assert discover(again.lineage, Request(classes=("0",))).heirs
    more = {"models": {"new": {"born": "incremental", "from": ["first"], "site": "a", "epochs": 1}}}
    assert set(extend(again, more, "more.yaml").heads) == {"first", "new"}


def test_limits_and_requests_change_by_an_extension_which_the_ledger_records(tmp_path: Path) -> None:
    family = train(scenario({"first": {"born": "incremental", "site": "a", "epochs": 1}}), tmp_path / "f")
    before = of_family(family)
    more = {"gate": {"forgotten_at_most": 0.02}, "requests": {"leave": {"classes": ["0"]}}}
    again = extend(family, more, "more.yaml")
    was, now = before.gate, of_family(again).gate
    assert now == was.model_copy(update={"forgotten_at_most": 0.02}) != was
    assert list(of_family(again).requests) == ["leave"]
    assert again.heads == family.heads
    assert len(again.ledger.lines) == 2
    assert not fsck(again.folder).damage
    assert [x.body["gate"]["forgotten_at_most"] for x in again.ledger.lines] == [was.forgotten_at_most, 0.02]
    assert "reason" not in again.ledger.lines[-1].body
    with pytest.raises(InputError, match=r"unknown sample 'a/main/nobody'"):
        extend(again, {"requests": {"row": {"samples": ["a/main/nobody"]}}}, "more.yaml")
    with pytest.raises(InputError, match=r"more.yaml: reason is 7, expected words"):
        extend(again, {"gate": {"forgotten_at_most": 0.01}, "reason": 7}, "more.yaml")
    with pytest.raises(InputError, match="adds nothing"):
        extend(again, {"reason": "why not"}, "more.yaml")
    why = extend(again, {"gate": {"forgotten_at_most": 0.01}, "reason": "the board said so"}, "more.yaml")
    assert why.ledger.lines[-1].body["reason"] == "the board said so"


@pytest.mark.parametrize("change", [("forgotten_at_most", "retained_drop_at_most"), ("0.05", "0.95")])
def test_a_scenario_that_the_ledger_does_not_know_is_not_obeyed(tmp_path: Path, change: tuple[str, str]) -> None:
    family = train(scenario({"first": {"born": "incremental", "site": "a", "epochs": 1}}), tmp_path / "f")
    plain = family.topology.read_text()
    assert change[0] in plain
    family.topology.write_text(plain.replace(change[0], change[1], 1))
    with pytest.raises(StoreError, match=r"scenario.yaml: is not what the ledger recorded.*fedunlearn extend"):
        of_family(Family.open(family.folder))


MORE = {"models": {"next": {"born": "incremental", "from": ["first"], "site": "a"}}}


def test_what_a_crash_has_not_yet_excluded_is_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between its ledger line and what tells the sites of it, an unlearning holds for whatever is trained next."""
    family = train(scenario({"first": {"born": "incremental", "site": "a", "epochs": 6}}), tmp_path / "f")
    monkeypatch.setattr("fedunlearn.runtime.coordinator.settle", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        forget(family, "0")
    monkeypatch.undo()
    family = extend(Family.open(family.folder), MORE, "more.yaml")
    assert not any("0" in shard.rows for shard in family.lineage["next"].data)
    assert known(family, "next", ["0"]) == 0


def test_a_family_that_was_extended_knows_its_new_models(tmp_path: Path) -> None:
    """Whoever goes on with the object that was given, and not with the one that was returned, reaches them, too."""
    family = train(scenario({"first": {"born": "incremental", "site": "a", "epochs": 1}}), tmp_path / "f")
    _ = family.lineage
    extend(family, MORE, "more.yaml")
    assert [h.name for h in discover(family.lineage, Request(classes=("0",))).heirs] == ["first", "next"]
    forget(family, "0")
    assert {"first", "next"} <= {*family.ledger.lines[-1].body["heads"], *family.ledger.lines[-1].body["pending"]}


@pytest.mark.parametrize("what", ["unlearned", "extended"])
def test_what_somebody_else_does_between_reading_and_training_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    family = train(scenario({"first": {"born": "incremental", "site": "a", "epochs": 1}}), tmp_path / "f")
    real, other = TrainerHere.of, {"models": {"other": MORE["models"]["next"]}}

    def late(*args: Any) -> TrainerHere:
        monkeypatch.undo()
        mine = Family.open(family.folder)
        forget(mine, "0") if what == "unlearned" else extend(mine, other, "other.yaml")
        return real(*args)

    monkeypatch.setattr(TrainerHere, "of", staticmethod(late))
    with pytest.raises(BusyError, match="another command wrote to it meanwhile"):
        extend(family, MORE, "more.yaml")
    again = Family.open(family.folder)
    assert set(again.heads) == ({"first"} if what == "unlearned" else {"first", "other"})
    assert not fsck(again.folder).damage
    assert set(extend(again, MORE, "more.yaml").heads) == {*again.heads, "next"}


def test_a_cut_off_extension_is_no_damage_before_and_after_its_ledger_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = train(scenario({"first": {"born": "incremental", "site": "a", "epochs": 1}}), tmp_path / "f")
    elsewhere = {"models": {"next": {**MORE["models"]["next"], "home": "edge"}}}
    with monkeypatch.context() as before:
        before.setattr("fedunlearn.store.ledger.Ledger.append", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            extend(family, elsewhere, "more.yaml")
    assert not fsck(family.folder).damage
    real = Path.replace

    def cut(path: Path, to: Path) -> Path:
        if path.name == NEXT:
            raise KeyboardInterrupt
        return real(path, to)

    with monkeypatch.context() as after:
        after.setattr(Path, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            extend(Family.open(family.folder), elsewhere, "more.yaml")
    again = Family.open(family.folder)
    assert again.topology.name == NEXT
    assert "next" in of_family(again).models
    found = fsck(family.folder)
    assert not found.damage
    assert again.topology not in found.orphans
