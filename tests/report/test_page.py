"""A page is complete by itself, loads nothing, and does nothing that a name could make a browser do; nor do tables."""

import csv
import io
import re
from pathlib import Path

from fedunlearn.evaluation.tiers import METRICS
from fedunlearn.lineage import Model, Request
from fedunlearn.report import document, page, tables
from fedunlearn.report.words import TITLES
from fedunlearn.runtime import Family
from fedunlearn.store import Line
from tests.report.conftest import CLASSES, HOMES, HOSTILE, data, invented, many, result
from tests.report.reading import A, Read, told


def test_every_metric_has_a_title_and_no_name_of_the_code_is_shown(chain: tuple[Family, Line]) -> None:
    assert TITLES.keys() == METRICS.keys()
    _, read = told(*chain)
    text = "".join(read.text)
    assert all(TITLES[name] in text for name in METRICS)
    assert not [name for name in METRICS if "_" in name and name in text]


def test_the_same_record_gives_the_same_page(chain: tuple[Family, Line]) -> None:
    assert page(document(*chain, {})) == page(document(Family(chain[0].folder), chain[1], {}))


def test_hostile_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    models = [Model(n, h, "incremental", CLASSES, (), data("a")) for n, h in zip(HOSTILE, HOMES, strict=True)]
    said = [{"model": HOSTILE[0], "text": HOSTILE[1]}]
    family, line = invented(
        tmp_path,
        models,
        Request(("a",), id=HOSTILE[0], due="2026-12-01"),
        lambda r: {"strength": {HOSTILE[0]: 1.0}, "rule": HOSTILE[1]},
        said,
        HOSTILE[2],
        HOSTILE[0],
    )
    row = line.body["record"]["facts"]["models"][0]
    found = result(row["version_before"], row["version_after"])
    found["not_measurable"][HOSTILE[1]] = HOSTILE[0]
    plain, read = told(family, line, {row["name"]: {"full": found}})
    harmless, _ = told(
        *invented(tmp_path / "calm", [Model(f"m{i}", "north", "incremental", CLASSES, (), data("a")) for i in range(8)], A)
    )
    calm = Read(page(harmless))
    assert [t for t, _ in read.tags].count("script") == [t for t, _ in calm.tags].count("script") == 1
    assert {t for t, _ in read.tags} - {t for t, _ in calm.tags} <= {"figure", "figcaption", "g", "line", "ul", "li"}
    assert not any(name.startswith("on") or name in ("src", "style") for _, attrs in read.tags for name in attrs)
    assert all((attrs.get("href") or "#").startswith("#") for _, attrs in read.tags)
    text = page(plain)
    assert not re.search("[\u202e\u200b\u0007]", text)
    assert "gnp.\\u202efdp" in text
    assert "{{ 7 * 7 }}" in text
    for name in HOSTILE[:5]:
        assert name in "".join(read.text)


def test_the_page_refuses_to_load_anything(chain: tuple[Family, Line]) -> None:
    _, read = told(*chain)
    policy = next(a["content"] for t, a in read.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not {"link", "img", "iframe", "object", "base"} & {t for t, _ in read.tags}
    assert not re.search(r"https?://(?!www\.w3\.org)", page(document(*chain, {})))


def test_every_link_of_the_page_leads_somewhere(chain: tuple[Family, Line]) -> None:
    _, read = told(*chain)
    ids = [a["id"] for _, a in read.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {(a["href"] or "")[1:] for t, a in read.tags if t == "a"} <= set(ids)


def test_tables_read_back_as_the_document_and_no_cell_is_a_formula(tmp_path: Path) -> None:
    models = [Model(n, "north", "incremental", CLASSES, (), data("a")) for n in HOSTILE]
    family, line = invented(tmp_path, models, A, lambda r: {"forgotten_after": None})
    row = line.body["record"]["facts"]["models"][0]
    plain = document(family, line, {row["name"]: {"full": result(row["version_before"], row["version_after"])}})
    found = {name: list(csv.DictReader(io.StringIO(text))) for name, text in tables(plain).items()}
    assert set(found) == {"models", "measurements", "not_measured", "evidence", "traffic", "objections"}
    assert [r["name"].removeprefix("'") for r in found["models"]] == [m["name"] for m in plain["models"]]
    assert [float(r["forgotten_before"]) for r in found["models"]] == [m["forgotten_before"] for m in plain["models"]]
    assert {r["forgotten_after"] for r in found["models"]} == {""}
    assert not any((cell or "").startswith(("=", "+", "@")) for rows in found.values() for r in rows for cell in r.values())
    probe = next(r for r in found["measurements"] if (r["metric"], r["net"], r["of"]) == ("probe", "after", "above retrained"))
    assert [float(probe[k]) for k in ("value", "low", "high", "n")] == [0.3, 0.2, 0.4, 50]
    assert len(found["not_measured"]) == sum(len(e["what"]) * len(e["models"]) for e in plain["not_measured"])


def test_five_thousand_models_are_folded_and_all_there(tmp_path: Path) -> None:
    family, line = invented(tmp_path, many(5000), A)
    rows = line.body["record"]["facts"]["models"]
    found = {r["name"]: {"full": result(r["version_before"], r["version_after"])} for r in rows[:300]}
    plain = document(family, line, found)
    text = page(plain)
    assert len(text.encode()) < 10_000_000
    assert len(plain["models"]) == 5000
    assert len(plain["lineage"]["boxes"]) <= 500
    assert sorted(n for b in plain["lineage"]["boxes"] for n in b["models"]) == sorted(m["name"] for m in plain["models"])
    named = {row[0].split("\n")[0] for row in Read(text).rows if row}
    assert {m["name"] for m in plain["models"]} <= named
    assert not re.search(r"<details class=\"group[^>]* many\"[^>]* open", text)
