"""What other ledger lines say of a request stands on its page: what was found then, dates, limits, seals, exclusions."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedunlearn.lineage import Model
from fedunlearn.report import document, page
from fedunlearn.runtime import Family
from fedunlearn.runtime.books.evaluations import file_of, keep_results, named
from fedunlearn.scenario import assessed
from fedunlearn.store import Line
from tests.cli.conftest import Run, run as run
from tests.report.conftest import CLASSES, data, invented, result
from tests.report.reading import A, Read, told


def tried(folder: Path, status: str = "committed", **asked: Any) -> tuple[Family, Line]:
    """Two models; the second was left to a second line."""
    models = [Model(n, "north", "incremental", CLASSES, (), data("a")) for n in ("first", "second")]
    return invented(
        folder, models, replace(A, **asked), lambda r: {"status": status if r["name"] == "first" else "untouched"}, reason="law"
    )


def again(family: Family, line: Line, status: str = "committed", **changes: Any) -> Line:
    """A second line of the same request, which edits the second model alone."""
    body, facts = dict(line.body), dict(line.body["record"]["facts"])
    facts |= {k: changes.pop(k) for k in ("gate", "request") if k in changes}
    rows = [{**r, "status": status, "version_after": "f" * 64} for r in facts["models"] if r["name"] == "second"]
    heads = {"second": "f" * 64} if status == "committed" else {}
    record = {**body["record"], "facts": {**facts, "models": rows}}
    more = {"heads": heads, "pending": {}, "untouched": [] if heads else ["second"], "record": record}
    return family.ledger.append("unlearned", body | more | changes)


def after(line: Line, model: str) -> Mapping[str, Any]:
    return next(r for r in line.body["record"]["facts"]["models"] if r["name"] == model)


def test_what_a_deeper_test_found_stays_on_the_page_when_another_line_follows(tmp_path: Path, run: Run) -> None:
    family, line = tried(tmp_path)
    row = after(line, "first")
    found = {"first": {"full": result(row["version_before"], row["version_after"])}}
    keep_results(family, line, found)
    again(family, line)
    page = json.loads(run("report", tmp_path, "--json")[1])["report"]
    models = {m["name"]: m for m in page["models"]}
    assert (models["first"]["risk"], models["first"]["remembers"], models["second"]["risk"]) == ("doubtful", True, "unknown")
    assert any("a deeper test found more" in s for s in page["verdict"]["sentences"])
    missing = {(w, m) for one in page["not_measured"] for m in one["models"] for w in one["what"]}
    assert ("probe", "first") not in missing
    assert ("probe", "second") in missing
    assert ("ulira", "first") in missing  # and so is what nobody looked at then
    assert any("--line 1 --tier audit" in one["why"] for one in page["not_measured"] if "first" in one["models"])


def test_results_of_another_version_are_not_taken_for_what_rests_on_an_earlier_line(tmp_path: Path) -> None:
    family, line = tried(tmp_path)
    second = again(family, line)
    other = {line.number: {"first": {"full": result("0" * 64, "e" * 64)}}}
    found = {m["name"]: m["risk"] for m in document(family, second, {}, other)["models"]}
    assert found["first"] == "unknown"


def test_a_date_that_was_moved_is_told_with_who_moved_it_and_why(tmp_path: Path) -> None:
    family, line = tried(tmp_path, received="2020-01-01", due="2020-02-01")
    plain, _ = told(family, line)
    assert (plain["request"]["late"], plain["request"]["moved"]) == (True, [])
    request = {**line.body["record"]["facts"]["request"], "received": "2026-11-28", "due": "2999-01-01"}
    plain, read = told(family, again(family, line, request=request, reason="a difficult case"))
    text = "".join(read.text)
    assert (plain["request"]["received"], plain["request"]["due"], plain["request"]["late"]) == (
        "2020-01-01",
        "2999-01-01",
        False,
    )
    assert [(m["number"], m["from"], m["reason"]) for m in plain["request"]["moved"]] == [(2, "2020-02-01", "a difficult case")]
    assert "it was 2020-02-01 (because: a difficult case)" in text


def test_limits_that_were_changed_between_two_tries_are_told(tmp_path: Path) -> None:
    family, line = tried(tmp_path, status="pending")
    gate = {**line.body["record"]["facts"]["gate"], "forgotten_at_most": 1.0}
    plain, read = told(family, again(family, line, gate=gate))
    (first,) = plain["request"]["tries"]
    assert (first["number"], first["held_back"], first["gate"]["forgotten_at_most"]) == (1, 1, 0.05)
    assert plain["limits"][0]["about"] == "Judged by other limits before"
    assert "line 1" in plain["limits"][0]["text"]
    assert "1 held back" in "".join(read.text)
    other, line = tried(tmp_path / "other", status="pending")
    plain, _ = told(other, again(other, line))
    assert plain["request"]["tries"][0]["gate"] is None
    assert plain["limits"][0]["about"] != "Judged by other limits before"


def test_what_may_be_trained_on_again_is_not_said_to_be_excluded(tmp_path: Path) -> None:
    family, line = tried(tmp_path)
    undo = {"undoes": line.number, "request": "x", "heads": {"first": "0" * 64}, "reason": "a mistake"}
    family.ledger.append("rolled back", {**undo, "lifted": True})
    plain, read = told(family, line)
    text = "".join(read.text)
    assert plain["request"]["lifted"] == 2
    assert "nothing: ledger line 2 lifted what north had been told" in text
    assert "may be trained on again since ledger line 2" in text
    assert "sites are told not to train on them any more" not in text


def test_what_is_sealed_is_told_for_each_line(tmp_path: Path) -> None:
    family, line = tried(tmp_path)
    text = Read(page(document(family, line, {}))).text
    assert "no: it can still be rolled back" in "".join(text)
    family.ledger.append("sealed", {"seals": [1], "requests": ["x"], "left": ["second"], "erases": []})
    plain, read = told(family, line)
    text = "".join(read.text)
    assert plain["line"]["left_by_sealing"] == ["second"]
    assert "second held the data still, and stayed as it was" in text
    assert "can be undone" not in text
    plain, read = told(family, again(family, line, status="untouched"))
    text = "".join(read.text)
    assert plain["line"]["sealed_before"] == [{"line": 1, "by": 2}]
    assert "nothing to seal: this line changed no model" in text
    assert "What ledger line 1 had changed was sealed by line 2." in text
    assert "can still be rolled back" not in text


def test_results_that_no_line_names_are_told_from_those_in_the_ledger(tmp_path: Path) -> None:
    family, line = tried(tmp_path)
    row = after(line, "first")
    taken = {"first": {"full": result(row["version_before"], row["version_after"])}}

    def chain(plain: Mapping[str, Any]) -> str:
        return next(one["text"] for one in plain["limits"] if one["about"] == "The chain of hashes")

    assert "beside it" not in chain(document(family, line, {}))
    assert "no line names them" in chain(document(family, line, taken))
    keep_results(family, line, taken)
    plain, read = told(family, line, taken)
    assert "beside it" not in chain(plain)
    (test,) = plain["tests"]
    assert (test["number"], test["of"], test["models"]) == (2, 1, {"full": ["first"]})
    assert "Ledger line 2," in "".join(read.text)
    resting = document(family, again(family, line), {}, {line.number: taken})
    assert "beside it" not in chain(resting)
    assert [t["number"] for t in resting["tests"]] == [2]
    other = {"first": {"full": {**taken["first"]["full"], "seconds": {"probe": 9.0}}}}
    assert "no line names them" in chain(document(family, line, other))


def test_results_that_are_gone_are_missed_and_taking_them_again_is_told(tmp_path: Path) -> None:
    family, line = tried(tmp_path)
    row = after(line, "first")
    keep_results(family, line, {"first": {"full": result(row["version_before"], row["version_after"])}})
    file_of(tmp_path, named(family.ledger, 1)["first", "full"]).unlink()
    assert assessed(family, line) == {}
    plain, _ = told(family, line, {})
    gone = next(one for one in plain["not_measured"] if "probe" in one["what"] and one["models"] == ["first"])
    assert gone["why"] == "the full tier was run (ledger line 2), and what it found is missing from evaluations/, or damaged"
    assert plain["limits"][0] == {"about": "Found, and not at hand", "text": f"Of first {gone['why']}."}
    assert not any(one["about"] == "Tested more than once" for one in plain["limits"])
    better = {**result(row["version_before"], row["version_after"]), "seconds": {"probe": 9.0}}
    keep_results(family, line, {"first": {"full": better}})
    assert assessed(family, line) == {"first": {"full": better}}
    plain, _ = told(family, line, assessed(family, line))
    again = next(one["text"] for one in plain["limits"] if one["about"] == "Tested more than once")
    assert again == "This page shows the last of each: full of first (ledger lines 2, 3)."
