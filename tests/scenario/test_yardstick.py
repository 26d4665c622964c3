"""What models are compared with is the retrained family, not one that somebody has put in its place."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.errors import StoreError
from fedunlearn.methods import make
from fedunlearn.runtime import Family, InProcess, fsck, unlearn
from fedunlearn.scenario import Scenario, assess, reference, retrained, train, workers
from fedunlearn.scenario.files import parse
from fedunlearn.store import Ledger
from fedunlearn.store.signing import KEY, VOUCH
from tests.conftest import LEAVE
from tests.runtime.test_evaluating import SINGLE, ZERO
from tests.store.forging import new_key


def forgotten(hospitals: Scenario, folder: Path) -> Family:
    family = Family.open(folder)
    backend = InProcess(workers(hospitals, family))
    again = retrained(family, hospitals, LEAVE, backend)
    unlearn(family, LEAVE, make("logit_mask"), backend, retrained=again, accept_untested="whatever is left, for the test")
    return Family.open(folder)


def swap(family: Family, twin: Path) -> None:
    """The models as they were before anybody asked, in a reference's place, with all that hashes can say for them."""
    body = dict(Family(twin).ledger.lines[0].body) | {"heads": family.ledger.lines[0].body["heads"]}
    shutil.copytree(family.folder / "homes", twin / "homes", dirs_exist_ok=True)
    for mirror in (twin / "homes").glob("*/place.json"):
        mirror.unlink()
    (twin / "acknowledged.json").unlink()
    (twin / "ledger.jsonl").unlink()
    Ledger(twin / "ledger.jsonl").append("trained", body)


def twin_of(family: Family, key: str) -> Path:
    return family.folder / "reference" / key


def test_another_than_a_line_was_judged_by_is_refused_until_it_is_deleted(hospitals: Scenario, folder: Path) -> None:
    family = forgotten(hospitals, folder)
    line = family.ledger.lines[-1]
    facts = line.body["record"]["facts"]
    twin = twin_of(family, facts["reference"])
    honest = Family.open(twin).heads
    assert {row["name"]: row["version_retrained"] for row in facts["models"]}.items() <= honest.items()
    assert reference(family, hospitals, LEAVE).heads == honest
    assert not fsck(folder).damage
    swap(family, twin)
    words = "ledger line 1 was judged by .*: delete the folder, and it is trained again"
    with pytest.raises(StoreError, match=words):
        assess(family, line, "quick", InProcess(workers(hospitals, family)))
    with pytest.raises(StoreError, match=words):
        reference(family, hospitals, LEAVE)
    assert [text for text in fsck(folder).damage if "was judged by" in text]
    shutil.rmtree(twin)
    said: list[str] = []
    assert reference(family, hospitals, LEAVE, said.append).heads == honest
    assert not [text for text in said if "trained anew" in text]
    assert not fsck(folder).damage


@pytest.fixture
def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Family:
    """A small family of which every line is signed."""
    path = tmp_path / "key.pem"
    new_key(path)
    monkeypatch.setenv(KEY, str(path))
    return train(parse(SINGLE, "here"), tmp_path / "family")


def stolen(family: Family, twin: Path) -> None:
    """Every file of the family itself: what its key has signed."""
    shutil.rmtree(twin)
    shutil.copytree(family.folder, twin, ignore=shutil.ignore_patterns("reference"))


@pytest.mark.parametrize(("forge", "words"), [(swap, "is not signed with a key that signed"), (stolen, "was not trained from")])
def test_what_the_familys_key_has_not_signed_for_it_is_refused_before_any_line_was_judged_by_it(
    signed: Family, forge: Callable[[Family, Path], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = reference(signed, parse(SINGLE, "here"), ZERO).folder
    assert not fsck(signed.folder).damage
    monkeypatch.delenv(KEY)
    forge(signed, twin)
    with pytest.raises(StoreError, match=words):
        reference(signed, parse(SINGLE, "here"), ZERO)
    assert [text for text in fsck(signed.folder).damage if words in text]


def test_one_that_we_have_trained_on_another_machine_is_taken_and_said_to_be_another(signed: Family) -> None:
    """Training is the same again on the same machine; elsewhere sums may be rounded otherwise."""
    scenario, said = parse(SINGLE, "here"), list[str]()
    backend = InProcess(workers(scenario, signed))
    unlearn(signed, ZERO, make("logit_mask"), backend, retrained=retrained(signed, scenario, ZERO, backend))
    twin = twin_of(signed, signed.ledger.lines[-1].body["record"]["facts"]["reference"])
    shutil.rmtree(twin)

    def elsewhere(scenario: Scenario, folder: Path, **more: Any) -> Family:
        train(scenario, folder, **more)
        swap(signed, folder)
        return Family.open(folder)

    reference(signed, scenario, ZERO, said.append, retrain=elsewhere)
    assert "ledger line 1 was judged by" in said[-1]
    reference(signed, scenario, ZERO, said.append)  # and again, out of its folder: it is signed
    assert said[-1] == said[-2]
    assert not fsck(signed.folder).damage


def test_what_is_trained_without_the_familys_key_is_taken_once(signed: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has no key may compare, too; but out of its folder nobody could tell it from another."""
    monkeypatch.delenv(KEY)
    said = list[str]()
    assert reference(signed, parse(SINGLE, "here"), ZERO, said.append).heads
    assert "no key is configured here (FEDUNLEARN_KEY)" in said[-1]
    with pytest.raises(StoreError, match="is not signed with a key that signed"):
        reference(signed, parse(SINGLE, "here"), ZERO)


def test_a_key_that_takes_over_signs_what_a_line_is_judged_by_before_the_line(
    signed: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_key(tmp_path / "next.pem")
    monkeypatch.setenv(KEY, str(tmp_path / "next.pem"))
    monkeypatch.setenv(VOUCH, signed.ledger.lines[-1].hash)
    said: list[str] = []
    again = [reference(Family.open(signed.folder), parse(SINGLE, "here"), ZERO, said.append).heads for _ in range(2)]
    assert again[0] == again[1]
    assert not [text for text in said if "no key" in text]
    assert not fsck(signed.folder).damage


def test_a_ledger_that_does_not_say_what_it_was_judged_by_is_read(hospitals: Scenario, folder: Path) -> None:
    """As those were written before."""
    lines = forgotten(hospitals, folder).ledger.lines
    (folder / "ledger.jsonl").unlink()
    shutil.rmtree(folder / "homes")  # its places know the other ledger
    older = Ledger(folder / "ledger.jsonl")
    for line in lines:
        body: dict[str, Any] = dict(line.body)
        if line.kind == "unlearned":
            del body["record"]["facts"]["reference"]
            for row in body["record"]["facts"]["models"]:
                del row["version_retrained"]
        older.append(line.kind, body)
    assert reference(Family.open(folder), hospitals, LEAVE).heads
