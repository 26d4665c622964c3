"""A family's folder, and a family that came home, of an enemy: what is told of it, or an error that names the file."""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings, strategies as st

from fedunlearn.cli.state import due, state
from fedunlearn.deployed.homecoming import Copy, plain_files
from fedunlearn.deployed.wire import Reader, lines
from fedunlearn.errors import SiteError, StoreError
from fedunlearn.lineage import Model, Request
from fedunlearn.plain import canonical
from fedunlearn.report import document, page
from fedunlearn.runtime import Family, cases, check_site, fsck, needed
from fedunlearn.runtime.books.evaluations import keep_results
from fedunlearn.runtime.books.family import ERASED, NOTE
from fedunlearn.runtime.books.keeping import pending
from fedunlearn.runtime.books.record import Record
from fedunlearn.runtime.books.records import file_of, keep_record
from fedunlearn.runtime.books.tried import waiting
from fedunlearn.runtime.place.consent import Consent
from fedunlearn.runtime.place.mirror import Mirror
from fedunlearn.scenario import assessed
from fedunlearn.store import Ledger, Store
from tests.conftest import snapshot
from tests.hostile.spoil import changed, lawful, spoiled, text_of
from tests.hostile.test_store import chained
from tests.report.conftest import CLASSES, data, invented, result

WISH = {"id": "0" * 16, "what": "measure", "asked": "2026-01-01", "approved": ""}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family that forgot something, rolled it back, and has all kinds of files that are no tensors."""
    models = [
        Model("root", "north", "incremental", CLASSES, (), data("a", "b")),
        Model("heir", "south", "incremental", CLASSES, ("root",), data("b", site="south")),
        Model("stranger", "west", "incremental", CLASSES, (), data("b", site="west")),
    ]
    folder = tmp_path_factory.mktemp("hostile") / "family"
    family, line = invented(folder, models, Request(classes=("a",), received="2026-01-01", due="2026-02-01"))
    (folder / "scenario.yaml").write_text((Path(__file__).parents[2] / "topologies" / "transfers.yaml").read_text())
    keep_results(family, line, {"heir": {"full": result("0" * 64, f"{1:064x}")}})
    family.note_acknowledged({"north": line.hash})
    family.note_erased({"north": line.hash})
    family.ledger.append(
        "rolled back", {"undoes": 1, "heads": {"root": "0" * 64}, "request": line.body["request"], "lifted": True}
    )
    body = dict(line.body)
    record = keep_record(family, Record(body["record"]["facts"], body["record"]["cost"]))
    family.ledger.append("unlearned", body | {"record": record})  # again, with what was found in its file
    mirror = Mirror(line.hash, 2, {"root": "0" * 64}, {})
    (folder / "homes" / "north").mkdir(parents=True)
    (folder / "homes" / "north" / "place.json").write_bytes(mirror.to_bytes())
    (folder / "consent").mkdir()
    (folder / "consent" / f"{WISH['id']}.json").write_text(json.dumps(WISH))
    (folder / "family.id").write_text("0" * 32)
    return folder


@contextmanager
def put_back(whole: Path) -> Iterator[dict[str, bytes]]:
    """Its files as they are, and as they are again afterwards."""
    before = snapshot(whole.parent)
    try:
        yield before
    finally:
        for name, content in before.items():
            (whole.parent / name).write_bytes(content)


@pytest.fixture
def folder(whole: Path) -> Iterator[Path]:
    with put_back(whole):
        yield whole


def told(folder: Path) -> None:
    """All that is read of a family without touching a weight; each part may refuse."""

    def of_lines(family: Family) -> None:
        for line in (x for x in family.ledger.lines if x.kind == "unlearned"):
            found = lawful(lambda line=line: assessed(family, line), folder)
            page(document(family, line, found or {}))

    def everything() -> None:
        family = Family.open(folder)
        reads: list[Callable[[Family], object]] = [
            cases, needed, pending, waiting, lambda f: f.places, lambda f: (f.id, f.topology, f.acknowledged, f.erased),
            state, due, of_lines,
        ]  # fmt: skip
        for read in reads:
            lawful(lambda read=read: read(family))
        for place in family.places:
            assert (folder / "homes") in family.store(place).folder.parents
            assert ".." not in family.store(place).folder.parts

    lawful(everything, folder)
    lawful(lambda: fsck(folder), folder)
    Mirror.of(Store(folder / "homes" / "north"))
    lawful(lambda: check_site(folder / "homes" / "north"), folder)
    lawful(lambda: Consent(folder / "consent").wishes(), folder)
    lawful(lambda: Consent(folder / "consent").approve("0"), folder)


@pytest.mark.slow
@settings(max_examples=2000, derandomize=True)
@given(data=st.data())
def test_any_bytes_of_any_file_many_times(data: st.DataObject, whole: Path) -> None:
    any_bytes(data, whole)


@settings(max_examples=15, derandomize=True)
@given(data=st.data())
def test_any_bytes_of_any_file(data: st.DataObject, whole: Path) -> None:
    any_bytes(data, whole)


def any_bytes(data: st.DataObject, whole: Path) -> None:
    with put_back(whole) as before:
        path = whole.parent / data.draw(st.sampled_from([n for n, raw in sorted(before.items()) if raw]))
        path.write_bytes(data.draw(spoiled(path.read_bytes())))
        told(whole)
        assert snapshot(whole.parent).keys() <= before.keys()


@settings(max_examples=20, derandomize=True)
@given(data=st.data())
def test_any_value_of_any_file_that_has_no_hash(data: st.DataObject, whole: Path) -> None:
    names = ["lineage.json", NOTE, ERASED, "homes/north/place.json", f"consent/{WISH['id']}.json"]
    path = whole / data.draw(st.sampled_from([*names, "lineage.json"]))
    with put_back(whole) as before:
        path.write_text(text_of(data.draw(changed(json.loads(path.read_text())))))
        told(whole)
        assert snapshot(whole.parent).keys() == before.keys()


@settings(max_examples=30, derandomize=True)
@given(data=st.data())
def test_a_ledger_with_the_right_hashes_that_says_anything(data: st.DataObject, whole: Path) -> None:
    path = whole / "ledger.jsonl"
    plain = [json.loads(text) for text in path.read_bytes().splitlines()]
    part = data.draw(st.sampled_from(["all", "body", "facts", "row"]))
    made = copy.deepcopy(plain)
    if part == "all":
        made = data.draw(changed(made))
    elif part == "body":
        number = data.draw(st.sampled_from(range(len(made))))
        made[number]["body"] = data.draw(changed(made[number]["body"]))
    elif part == "facts":
        made[1]["body"]["record"]["facts"] = data.draw(changed(made[1]["body"]["record"]["facts"]))
    else:
        made[1]["body"]["record"]["facts"]["models"][0] = data.draw(changed(made[1]["body"]["record"]["facts"]["models"][0]))
    with put_back(whole) as before:
        path.write_bytes(chained(made))
        told(whole)
        assert snapshot(whole.parent).keys() == before.keys()


@settings(max_examples=30, derandomize=True)
@given(data=st.data())
def test_a_record_that_says_anything_under_the_right_name(data: st.DataObject, whole: Path) -> None:
    path = whole / "ledger.jsonl"
    made = [json.loads(text) for text in path.read_bytes().splitlines()]
    record = made[-1]["body"]["record"]
    raw = canonical(data.draw(changed(json.loads(file_of(whole, record["heirs"]).read_bytes()))))
    record["heirs"] = blake3(raw).hexdigest()
    with put_back(whole) as before:
        named = file_of(whole, record["heirs"])
        named.write_bytes(raw)
        path.write_bytes(chained(made))
        told(whole)
        assert snapshot(whole.parent).keys() == before.keys() | {str(named.relative_to(whole.parent))}
        named.unlink()


def test_a_family_that_came_home_writes_nothing_beside_its_folder(folder: Path, tmp_path: Path) -> None:
    """Who runs the SuperLink says what the files are called and what they hold; places become folders."""
    files = plain_files(Family.open(folder))
    lineage = json.loads(files["lineage.json"])
    for place in ("../../escaped", str(tmp_path / "escaped"), "a\0b", "..", "", "\ud800"):
        made = copy.deepcopy(lineage)
        made["models"][1]["home"] = place
        sent = {**files, "lineage.json": json.dumps(made), f"homes/{place}/place.json": "{}"}
        with pytest.raises(SiteError, match=r"the family that came home is damaged: .*not a lineage"):
            Copy(tmp_path / "home" / "copy", "there", "family").keep(sent)
        assert not list(tmp_path.rglob("*"))
    with pytest.raises(SiteError, match="came home is damaged"):
        Copy(tmp_path / "copy", "there", "family").keep({**files, "scenario.yaml": "\ud800"})


@settings(max_examples=40, derandomize=True)
@given(data=st.data())
def test_an_answer_out_of_a_log_that_says_anything(data: st.DataObject) -> None:
    text = "\n".join(lines("token", {"files": {"a": "b"}, "line": 3}))
    reader = Reader("token")
    for line in data.draw(spoiled(text.encode())).decode(errors="replace").split("\n"):
        reader.take(line)
    found = lawful(reader.answer)
    assert found in (None, {"files": {"a": "b"}, "line": 3})


def test_an_answer_that_is_nested_too_deep_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(900):
        deep = [deep]
    reader = Reader("token")
    for line in lines("token", deep):
        reader.take(line.replace("900", "900"))
    lawful(reader.answer)


def test_a_wish_cannot_be_written_elsewhere(folder: Path) -> None:
    """What is approved is written under its id: that must be its file's own name."""
    path = folder / "consent" / f"{WISH['id']}.json"
    path.write_text(json.dumps({**WISH, "id": "../../escaped"}))
    with pytest.raises(StoreError, match=rf"{WISH['id']}\.json: not a task that waits .*not the file's name"):
        Consent(folder / "consent").approve("../../escaped")


@pytest.mark.parametrize("kind", ["resumes", "undoes", "seals"])
def test_a_line_about_itself_or_later_ones_does_not_go_round_for_ever(kind: str, folder: Path) -> None:
    plain = [json.loads(text) for text in (folder / "ledger.jsonl").read_bytes().splitlines()]
    for number in (-1, 1, 2, 10**30):
        body = {**plain[1]["body"], kind: [number] if kind == "seals" else number}
        (folder / "ledger.jsonl").write_bytes(chained([plain[0], {**plain[1], "body": body}]))
        with pytest.raises(StoreError, match=r"ledger\.jsonl, line 2: says what no 'unlearned' line says"):
            Ledger(folder / "ledger.jsonl")
