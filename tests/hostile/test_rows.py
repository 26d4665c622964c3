"""Data files of an enemy: rows, or an error that names the set; no more memory than the file has a right to."""

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fedunlearn.data import arrays, open_rows
from fedunlearn.errors import InputError
from tests.hostile.spoil import changed, lawful, spoiled, text_of

X, Y = np.arange(24, dtype=np.float32).reshape(6, 4), np.arange(6) % 3
TEXTS = [{"text": f"words of text {i}", "label": i % 3, "key": f"k{i}"} for i in range(6)]


def npz(save: Callable[..., None] = np.savez, **held: Any) -> bytes:
    out = io.BytesIO()
    save(out, **{"x": X, "y": Y, **held})
    return out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


def opened(path: Path) -> None:
    lawful(lambda: open_rows(str(path)), path)


@settings(max_examples=100, derandomize=True)
@given(data=st.data())
def test_any_bytes(data: st.DataObject, folder: Path) -> None:
    raw = "\n".join(map(json.dumps, TEXTS)).encode()
    files = {
        "a.npz": npz(classes=["a", "b", "c"], keys=list("uvwxyz")),
        "b.npz": npz(np.savez_compressed),
        "a.jsonl": raw,
        "a.jsonl.gz": gzip.compress(raw),
    }
    path = folder / data.draw(st.sampled_from(sorted(files)))
    path.write_bytes(data.draw(spoiled(files[path.name])))
    opened(path)


@settings(max_examples=60, derandomize=True)
@given(data=st.data())
def test_any_value_in_texts(data: st.DataObject, folder: Path) -> None:
    path = folder / "b.jsonl"
    lines = data.draw(changed(TEXTS))
    path.write_text("\n".join(map(text_of, lines if isinstance(lines, list) else [lines])))
    opened(path)


ARRAYS = (
    np.zeros(0), np.zeros((6, 0)), np.zeros((0, 4)), np.array(3), np.array("x"), np.array([None] * 6), np.full(6, -1),
    np.full((6, 4), np.nan), np.full(6, 2**62), np.zeros(6, "c16"), np.zeros(6, "M8[s]"), np.array(["\0", "a", "", "a"]),
    np.zeros(6, [("a", "f4")]), np.arange(6) + 10**6, np.zeros((6, 1, 1, 1, 1)), np.zeros(6, np.uint64) + 2**63,
)  # fmt: skip


@settings(max_examples=80, derandomize=True)
@given(held=st.dictionaries(st.sampled_from(arrays.ARRAYS), st.sampled_from(ARRAYS), max_size=2))
def test_any_arrays(held: dict[str, Any], folder: Path) -> None:
    path = folder / "c.npz"
    path.write_bytes(npz(**held))
    opened(path)


def header(shape: str, dtype: str = "<f4") -> bytes:
    """An .npy file that says what it has, and has eight bytes."""
    said = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(said).to_bytes(2, "little") + said + b"\0" * 8


CLAIMS = {
    "a terabyte": header("(10000000000, 25)"),
    "more than there is": header("(9223372036854775807, 9223372036854775807)"),
    "less than nothing": header("(-1, 4)"),
    "an overflow": header("(4294967296, 4294967296, 4294967296)"),
    "objects": header("(1,)", "|O"),
    "an expression": header("__import__('os').mkdir('escaped')"),
    "nested": header("(" * 500 + ")" * 500),
    "no header": b"\x93NUMPY\x01\x00\xff\xff",
    "another version": b"\x93NUMPY\x09\x00" + header("(1,)")[8:],
    "nothing": b"",
}


@pytest.mark.parametrize("what", CLAIMS)
def test_arrays_that_claim_what_they_have_not(what: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    path = folder / "claim.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", CLAIMS[what])
        archive.writestr("y.npy", npz()[:0] + CLAIMS[what])
    with pytest.raises(InputError, match=r"claim\.npz'?: not a readable \.npz file"):
        open_rows(str(path))
    assert not (folder / "escaped").exists()


def test_files_that_unpack_to_more_than_memory_holds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "ANY_FILE", 1 << 16)
    bomb = folder / "bomb.npz"
    bomb.write_bytes(npz(np.savez_compressed, x=np.zeros((6, 1 << 18), np.float32)))
    with pytest.raises(InputError, match=r"bomb\.npz.*it unpacks to 6\d+ bytes, expected at most \d+"):
        open_rows(str(bomb))
    for name, text in (("line", "x" * (1 << 22)), ("lines", "\n" * (1 << 22))):
        path = folder / f"{name}.jsonl.gz"
        path.write_bytes(gzip.compress(text.encode()))
        with pytest.raises(InputError, match=rf"{name}\.jsonl\.gz.*it unpacks to more than \d+ characters"):
            open_rows(str(path))


def test_an_image_that_is_none(folder: Path) -> None:
    from PIL import Image

    good = io.BytesIO()
    Image.new("RGB", (9, 9)).save(good, "PNG")

    @settings(max_examples=40, derandomize=True)
    @given(st.data())
    def law(data: st.DataObject) -> None:
        path = folder / "photos" / "a" / "one.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.draw(spoiled(good.getvalue())))
        lawful(lambda: open_rows(str(folder / "photos")), "photos")

    law()
