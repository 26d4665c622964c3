"""What was found of each heir lies beside the ledger, under its hash, and is missed where it is not as the line says."""

import json
import shutil
from pathlib import Path

import pytest

from fedunlearn.deployed.homecoming import Copy, plain_files
from fedunlearn.errors import SiteError, StoreError
from fedunlearn.lineage import Request
from fedunlearn.plain import canonical, digest
from fedunlearn.report import document
from fedunlearn.runtime import Family, InProcess, cases, collect, fsck, rollback, unlearn
from fedunlearn.runtime.books.records import FOLDER, file_of, keep_record, named, record_of
from tests.cli.conftest import Run, run as run
from tests.runtime.test_merged import FREE


def the_file(family: Family) -> Path:
    (found,) = named(family)
    return found


def test_a_record_is_read_as_it_was_given(family: Family, backend: InProcess) -> None:
    record = unlearn(family, Request(("3",)), "fiun", backend, FREE)
    found = record_of(family, family.ledger.lines[-1])
    assert (found.facts, found.cost) == (json.loads(json.dumps(record.facts)), record.cost)
    assert any(row["evaluation"] and row["curve"] for row in found.facts["models"])


def test_a_line_does_not_grow_with_what_was_found(family: Family, backend: InProcess) -> None:
    record = unlearn(family, Request(("3",)), "fiun", backend, FREE)
    line = json.dumps(family.ledger.lines[-1].body)
    assert not [word for word in ("evaluation", "curve", "points", "sources", "strength") if f'"{word}"' in line]
    grown = {**record.facts, "models": [m | {"curve": [[{}, 0.5, 0.5]] * 1000} for m in record.facts["models"]]}
    again = keep_record(family, type(record)(grown, record.cost))
    assert len(json.dumps(again)) == len(json.dumps(family.ledger.lines[-1].body["record"]))


@pytest.mark.parametrize("how", ["missing", "changed", "other"])
def test_one_that_is_not_what_the_line_names_is_damage(
    how: str, family: Family, folder: Path, backend: InProcess, run: Run
) -> None:
    unlearn(family, Request(("3",)), "fiun", backend, FREE)
    assert run("log", folder, "--verify")[0] == 0
    path, line = the_file(family), family.ledger.lines[-1]
    whole = json.loads(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "changed":
        whole["models"][0]["forgotten_after"] = 0.0009765625
        path.write_bytes(canonical(whole))
    else:
        path.write_bytes(path.read_bytes().replace(b"{", b"{ ", 1))
    words = rf"{path.name}: not what ledger line 1 says was found of its heirs \(.*\); restore it from a backup"
    with pytest.raises(StoreError, match=words):
        document(family, line, {})
    assert [words for words in fsck(folder).damage if path.name in words]
    status, said = run("log", folder, "--verify")[:2]
    assert status == 1
    assert path.name in said.replace("\n", "")
    assert [one.state for one in cases(Family.open(folder))] == ["applied"]  # what holds does not hang on it
    assert rollback(Family.open(folder), backend, lift_exclusion=True).body["undoes"] == 1


@pytest.mark.parametrize("wrong", [{"name": "another"}, {"sources": ["nobody"]}, {"forgotten_after": "none"}, {"status": None}])
def test_one_that_could_not_be_read_again_is_not_written(wrong: dict[str, object], family: Family, backend: InProcess) -> None:
    record = unlearn(family, Request(("3",)), "fiun", backend, FREE)
    line, before = family.ledger.lines[-1], the_file(family)
    whole = json.loads(before.read_bytes())
    whole["models"][0] |= wrong
    if "name" not in wrong:  # a name that all say is one
        facts = {**record.facts, "models": whole["models"]}
        with pytest.raises(StoreError, match=r"could not be read again .*; nothing was written or changed"):
            keep_record(family, type(record)(facts, record.cost))
        assert list(named(family)) == [before]
        assert sorted((family.folder / FOLDER).iterdir()) == [before]
    file_of(family.folder, digest(whole)).write_bytes(canonical(whole))
    line.body["record"]["heirs"] = digest(whole)  # under the right name it is no better
    with pytest.raises(StoreError, match="not what ledger line 1 says"):
        record_of(family, line)


def test_what_a_crash_left_is_told_and_swept(family: Family, folder: Path, backend: InProcess) -> None:
    unlearn(family, Request(("3",)), "fiun", backend, FREE)
    kept, left = the_file(family), file_of(folder, "0" * 64)
    left.write_bytes(b"{}")
    found = fsck(folder)
    assert (found.damage, found.orphans[left]) == ([], "a record that no ledger line names; it is not used")
    assert collect(family, family.places)[FOLDER].crashed == 1
    assert (kept.exists(), left.exists(), fsck(folder).orphans) == (True, False, {})


def test_lines_from_before_there_were_files_are_read(family: Family, folder: Path, backend: InProcess) -> None:
    record = unlearn(family, Request(("3",)), "fiun", backend, FREE)
    line = family.ledger.lines[-1]
    before = document(family, line, {})
    family.ledger.append("unlearned", line.body | {"record": {"facts": record.facts, "cost": record.cost}})
    shutil.rmtree(folder / FOLDER)
    again = Family.open(folder)
    after = document(again, again.ledger.lines[-1], {})
    assert record_of(again, again.ledger.lines[-1]).facts == json.loads(json.dumps(record.facts))
    scores = [{m["name"]: (m["forgotten_after"], m["findings"][-1]) for m in one["models"]} for one in (before, after)]
    assert scores[0] == scores[1]


def test_records_come_home_and_only_those_that_the_ledger_names(
    family: Family, folder: Path, backend: InProcess, tmp_path: Path
) -> None:
    unlearn(family, Request(("3",)), "fiun", backend, FREE)
    files = plain_files(Family.open(folder))
    name = str(the_file(family).relative_to(folder))
    home = Copy(tmp_path / "copy", "there", "ours")
    for sent, words in (
        ({**files, name: "{}"}, f"sent {name}, which is not what the ledger names; nothing was kept"),
        ({**files, f"{FOLDER}/{'0' * 64}.json": "{}"}, f"sent a file '{FOLDER}/0*.json' that belongs to no family"),
    ):
        with pytest.raises(SiteError, match=words):
            home.keep(sent)
        assert not home.folder.exists()
    copy = home.keep(files)
    lines = copy.ledger.lines[-1], family.ledger.lines[-1]
    assert record_of(copy, lines[0]).facts == record_of(family, lines[1]).facts
    with pytest.raises(SiteError, match="the family that came home is damaged"):
        home.keep({**files, name: "\ud800"})


@pytest.mark.parametrize("content", [None, b"{}", b"\xff"])
def test_one_that_was_lost_where_the_family_lives_keeps_nothing_else_from_coming_home(
    content: bytes | None, family: Family, folder: Path, backend: InProcess, tmp_path: Path
) -> None:
    unlearn(family, Request(("3",)), "fiun", backend, FREE)
    the_file(family).unlink()
    if content is not None:
        the_file(family).write_bytes(content)
    copy = Copy(tmp_path / "copy", "there", "ours").keep(plain_files(Family.open(folder)))
    assert cases(copy) == cases(family)
    assert len([words for words in fsck(copy.folder, ()).damage if f"{FOLDER}/" in words]) == 1


def test_what_is_at_home_is_not_sent_again_and_what_was_lost_is(
    family: Family, folder: Path, backend: InProcess, tmp_path: Path
) -> None:
    unlearn(family, Request(("3",)), "fiun", backend, FREE)
    home = Copy(tmp_path / "copy", "there", "ours")
    assert home.has == 0
    home.keep(plain_files(Family.open(folder), home.has))
    unlearn(Family.open(folder), Request(("5",)), "fiun", backend, FREE)
    first, second = (str(path.relative_to(folder)) for path in named(Family.open(folder)))
    sent = plain_files(Family.open(folder), home.has)
    assert (first in sent, second in sent) == (False, True)
    copy = home.keep(sent)
    assert home.has == len(copy.ledger.lines) == 3
    assert [record_of(copy, line).facts["request"]["classes"] for line in copy.ledger.lines[1:]] == [["3"], ["5"]]
    (home.folder / first).unlink()
    with pytest.raises(StoreError, match=r"delete it, and fedunlearn show --backend flower brings it home"):
        record_of(copy, copy.ledger.lines[1])
    assert home.has == 1
    home.keep(plain_files(Family.open(folder), home.has))
    assert record_of(copy, copy.ledger.lines[1]).accepted
