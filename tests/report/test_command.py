"""`fedunlearn report`: what is written where, and what is said when something is wrong."""

import csv
import json
from pathlib import Path

import pytest

from fedunlearn.lineage import Model, Request
from fedunlearn.runtime import Family
from fedunlearn.runtime.books.evaluations import keep_results
from fedunlearn.store import Line
from tests.cli.conftest import Run, run as run
from tests.conftest import snapshot
from tests.report.conftest import CLASSES, data, invented, result


def test_the_newest_request_is_told_as_page_json_and_tables(run: Run, chain: tuple[Family, Line], tmp_path: Path) -> None:
    family, line = chain
    status, text, _ = run("report", family.folder, "--csv", tmp_path / "csv", "--json")
    found = json.loads(text)
    assert status == 0
    assert Path(found["file"]) == family.folder / "reports" / f"{line.body['request']}.html"
    assert line.hash in Path(found["file"]).read_text()
    assert found["report"]["line"]["hash"] == line.hash
    with (tmp_path / "csv" / "models.csv").open(newline="") as file:
        assert [r["name"] for r in csv.DictReader(file)] == [m["name"] for m in found["report"]["models"]]
    assert {Path(t).name for t in found["tables"]} == {p.name for p in (tmp_path / "csv").iterdir()}


def test_what_was_measured_is_in_the_report(run: Run, chain: tuple[Family, Line]) -> None:
    family, line = chain
    row = line.body["record"]["facts"]["models"][0]
    keep_results(family, line, {row["name"]: {"full": result(row["version_before"], row["version_after"])}})
    status, text, _ = run("report", family.folder)
    assert status == 0
    assert "In 1 model that passed, a deeper test found more of what is to be forgotten" in " ".join(text.split())


def test_another_request_is_told_by_its_case(run: Run, chain: tuple[Family, Line]) -> None:
    family, line = chain
    family.ledger.append("unlearned", {**line.body, "request": "../later"})
    for case, number in ((line.body["request"], 1), ("../later", 2)):
        found = json.loads(run("report", family.folder, "--request", case, "--json")[1])
        assert found["report"]["line"]["number"] == number
        assert Path(found["file"]).parent == family.folder / "reports"
    found = json.loads(run("report", family.folder, "--line", 1, "--json")[1])
    assert found["report"]["line"]["number"] == 1
    assert Path(found["file"]).name == f"{line.body['request']}-line-1.html"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("report FOLDER --request leve", "--request: unknown request 'leve'; did you mean 'leave'"),
        ("report FOLDER --out report.pdf", "--out report.pdf: expected a file that ends in .html"),
        ("report FOLDER --csv FOLDER/lineage.json", "lineage.json: is a file; name a folder"),
        ("report FOLDER-2", "no family here"),
    ],
)
def test_wrong_input_is_said_and_nothing_is_written(run: Run, tmp_path: Path, words: str, message: str) -> None:
    folder = tmp_path / "family"
    invented(folder, [Model("m", "north", "incremental", CLASSES, (), data("a"))], Request(("a",), id="leave"))
    before = snapshot(tmp_path)
    status, text, said = run(*(w.replace("FOLDER", str(folder)) for w in words.split()))
    assert (status, text) == (2, "")
    assert message in " ".join(said.split()).replace("- ", "-")
    assert snapshot(tmp_path) == before


def test_a_family_that_was_only_trained_has_nothing_to_report(run: Run, tmp_path: Path) -> None:
    models = [Model("m", "north", "incremental", CLASSES, (), data("a"))]
    family, _ = invented(tmp_path / "family", models, Request(("a",)))
    ledger = family.ledger.path.read_text().splitlines(keepends=True)
    family.ledger.path.write_text(ledger[0])
    status, _, said = run("report", family.folder)
    assert status == 2
    assert "nothing to report; no request was carried out yet" in " ".join(said.split())
