"""What the page says of the ledger line that it is about: whose it is, and when it was written."""

from dataclasses import replace
from pathlib import Path

import pytest

from fedunlearn.runtime import Family
from fedunlearn.store import Line
from fedunlearn.store.signing import KEY
from tests.report.conftest import CLASSES, Model, data, invented
from tests.report.reading import A, told
from tests.store.forging import new_key, rewritten, stripped


def one(folder: Path) -> tuple[Family, Line]:
    return invented(folder, [Model("m", "north", "incremental", CLASSES, (), data("a"))], A)


def words(family: Family) -> str:
    _, read = told(family, family.ledger.lines[-1])
    return " ".join(" ".join(read.text).split())


def test_a_signature_is_checked_before_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, str(tmp_path / "key.pem"))
    key = new_key(tmp_path / "key.pem")
    family, _ = one(tmp_path / "family")
    assert f"Signed validly by the key {key}" in words(family)
    with monkeypatch.context() as patch:
        patch.setattr("fedunlearn.store.signatures.checkable", lambda: False)
        assert f"Signed not checked here, which needs fedunlearn[signatures]: by the key {key}" in words(family)
    rewritten(family.ledger.path, lambda line: replace(line, by="eve"))
    text = words(Family(family.folder))
    assert "Signed its signature does not match" in text
    assert "validly" not in text
    rewritten(family.ledger.path, lambda line: stripped(line) if line.number else line)
    assert "Signed no, though lines before it are" in words(Family(family.folder))
    rewritten(family.ledger.path, stripped)
    assert "Signed no " in words(Family(family.folder))


def test_whose_clock_its_time_is_of_and_that_it_was_set_back(tmp_path: Path) -> None:
    family, _ = one(tmp_path)
    text = words(family)
    assert "Its time as the clock of the machine that wrote it said" in text
    assert "set back" not in text
    rewritten(family.ledger.path, lambda line: replace(line, time=f"200{2 - line.number}-01-01T00:00:00+00:00"))
    text = words(Family(family.folder))
    assert "It is before that of the line before it , 2002-01-01T00:00:00+00:00: a clock was set back" in text
