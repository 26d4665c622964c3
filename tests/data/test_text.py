"""Texts become token ids at every site alone, and to the same ids."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from fedunlearn.data import open_rows
from fedunlearn.data.text import token_ids
from fedunlearn.errors import InputError
from tests.data.shared import shared


def lines(*rows: dict[str, object]) -> bytes:
    return "\n".join(json.dumps(r) for r in rows).encode() + b"\n\n"


@given(st.lists(st.text(max_size=30), max_size=5), st.integers(1, 9), st.integers(2, 50))
def test_a_text_has_the_same_ids_whoever_else_is_there(texts: list[str], tokens: int, vocabulary: int) -> None:
    whole = token_ids(texts, tokens, vocabulary)
    assert whole.shape == (len(texts), tokens)
    assert ((whole >= 0) & (whole < vocabulary)).all()
    for text, row in zip(texts, whole, strict=True):
        assert (token_ids([text], tokens, vocabulary)[0] == row).all()
        words = int((row != 0).sum())
        assert (row[:words] != 0).all()  # padding is at the end


def test_words_are_read_without_case_and_marks() -> None:
    ids = token_ids(["The cat sat", "the CAT, sat!", "sat cat the", ""], 4, 4096)
    assert ids[0].tolist() == ids[1].tolist() == [*ids[2].tolist()[2::-1], 0]
    assert ids[3].tolist() == [0] * 4


def test_json_lines(tmp_path: Path) -> None:
    content = lines({"text": "red wine", "label": "b"}, {"text": "white", "label": "a"}, {"text": "", "label": "b"})
    (tmp_path / "a.jsonl").write_bytes(content)
    (tmp_path / "b-train.jsonl.gz").write_bytes(gzip.compress(content))
    plain = open_rows("a.jsonl", beside=str(tmp_path), options={"tokens": 3, "vocabulary": 10})
    packed = open_rows("b-{part}.jsonl.gz", beside=str(tmp_path), options={"tokens": 3, "vocabulary": 10})
    assert plain.x.equal(packed.x)
    assert (plain.x != 0).sum(1).tolist() == [2, 1, 0]
    assert plain.labels == ("b", "a", "b")
    assert plain.keys == ("0", "1", "2")


def test_numbers_as_labels_and_keys_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(*({"text": "x", "label": n, "key": f"p{n}"} for n in (10, 9, 2))))
    found = open_rows(str(tmp_path / "a.jsonl"))
    assert found.classes == ("2", "9", "10")
    assert found.keys == ("p10", "p9", "p2")


def test_real_texts() -> None:
    folder = shared("text/trec6-train.jsonl.gz")
    train, test = (open_rows("text/trec6-{part}.jsonl.gz", p, beside=str(folder)) for p in ("train", "test"))
    assert (len(train), len(test), tuple(train.x.shape[1:])) == (5452, 500, (64,))
    assert train.classes == test.classes
    assert len(train.classes) == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no texts"),
        (b"\xff\xfe", "not readable as UTF-8 text"),
        (lines({"text": "a", "label": "b"}) + b"{", "line 3: not JSON"),
        (b"[1]", "line 1: expected an object with text and label, found list"),
        (lines({"txt": "a", "label": "b"}), r"line 1: expected an object with text and label, found \['label', 'txt'\]"),
        (lines({"text": 3, "label": "b"}), "line 1: text is 3, expected a string"),
        (lines({"text": "a", "label": 1.5}), "line 1: label is 1.5, expected a class name or a whole number"),
        (lines({"text": "a", "label": 1, "key": []}), r"line 1: key is \[\], expected a string"),
        (lines(*[{"text": "a", "label": 1, "key": 1}] * 2), "sample keys repeat"),
    ],
)
def test_wrong_lines_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_rows(str(tmp_path / "a.jsonl"))


def test_options_of_texts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines({"text": "a", "label": 1}))
    (tmp_path / "torn.jsonl.gz").write_bytes(gzip.compress(b"{}")[:-4])
    with pytest.raises(InputError, match=r"option 'scale' does not apply .* which takes limit, tokens, vocabulary"):
        open_rows(str(tmp_path / "a.jsonl"), options={"scale": 2})
    with pytest.raises(InputError, match="option 'vocabulary' is 1, expected a whole number of 2 or more"):
        open_rows(str(tmp_path / "a.jsonl"), options={"vocabulary": 1})
    with pytest.raises(InputError, match="not readable as UTF-8 text"):
        open_rows(str(tmp_path / "torn.jsonl.gz"))
