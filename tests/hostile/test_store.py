"""A store whose files an enemy wrote: what was written, or an error that names the file. He can make any hash right."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from blake3 import blake3
from hypothesis import given, settings, strategies as st
from safetensors.torch import save

from fedunlearn.errors import StoreError
from fedunlearn.store import Bank, Banked, Ledger, Store, check_store, sweep
from fedunlearn.tensors import Head, equal
from tests.hostile.spoil import changed, lawful, spoiled, text_of

HEAD = Head("head", ("a", "b"))
WHAT = {"version": "0" * 64, "shard": "north/main", "rows": "r", "statistic": "squares", "loss": "labels", "layers": "all"}
Plain = dict[str, Any]


def canonical(plain: Any) -> bytes:
    return json.dumps(json.loads(text_of(plain)), sort_keys=True, separators=(",", ":")).encode()


class Kept:
    """Two versions that share a backbone, what training carried along, and sums by class."""

    def __init__(self, folder: Path) -> None:
        self.folder, body = folder, {"body": torch.arange(40.0)}
        self.weights = [{**body, "head.weight": torch.full((2, 2), float(i))} for i in range(2)]
        self.versions = [Store(folder).write(weights, HEAD) for weights in self.weights]
        Store(folder).write_state(self.versions[0], {"moment": torch.ones(3)})
        self.sums = {"a": Banked({"head.weight": torch.ones(2, 2, dtype=torch.float64)}, 5)}
        Bank(folder).write({**WHAT, "version": self.versions[1]}, self.sums)
        self.files = {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    def read(self, say: Callable[[Any], object] = lambda _: None) -> None:
        """All there is to read, each part as it was written or refused."""
        store, bank = Store(self.folder), Bank(self.folder)
        for version, weights in zip(self.versions, self.weights, strict=True):
            found = lawful(lambda version=version: store.read(version), self.folder)
            say(found)
            assert found is None or (equal(found.weights, weights) and found.head == HEAD)
        state = lawful(lambda: store.read_state(self.versions[0]), self.folder)
        say(state)
        assert state is None or equal(state, {"moment": torch.ones(3)})
        for path in bank.paths():
            entry = lawful(lambda path=path: bank.open(path), path)
            say(entry)
            assert entry is None or equal(entry[1]["a"].sums, self.sums["a"].sums)

    def put_back(self) -> None:
        for path in self.folder.rglob("*"):
            if path.is_file() and path not in self.files:
                path.unlink()
        for path, data in self.files.items():
            path.write_bytes(data)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return Kept(tmp_path_factory.mktemp("kept"))


def path_of(kept: Kept, kind: str) -> Path:
    return next(p for p in kept.files if p.parent.name == kind)


@settings(max_examples=150, derandomize=True)
@given(data=st.data())
def test_whatever_was_changed_is_found_or_means_the_same(kept: Kept, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(kept.files)))
    path.write_bytes(new := data.draw(spoiled(kept.files[path])))
    try:
        kept.read()
        found = check_store(Store(kept.folder), dict.fromkeys(kept.versions, "needed"))
        assert found.damage or new == kept.files[path]
        lawful(lambda: sweep(Store(kept.folder), kept.versions, dry=True), kept.folder)
    finally:
        kept.put_back()


def hashed(plain: Any) -> bytes:
    """A manifest with the right hash of all the rest, and the name that belongs to it."""
    if isinstance(plain, dict):
        plain = {**plain, "hash": blake3(canonical({k: v for k, v in plain.items() if k != "hash"})).hexdigest()}
    return text_of(plain).encode()


@settings(max_examples=150, derandomize=True)
@given(data=st.data())
def test_a_manifest_with_the_right_hashes_that_says_anything(kept: Kept, data: st.DataObject) -> None:
    path = kept.folder / "versions" / f"{kept.versions[1]}.json"
    plain = data.draw(changed(json.loads(kept.files[path])))
    content: Plain = {}
    if isinstance(plain, dict):
        table = next(p for p in kept.files if p.parent.name == "tables")
        content = {k: plain[k] for k in ("format", "head", "net") if k in plain}
        content["tensors"] = plain.get("tensors")
        if isinstance(content["tensors"], dict) and plain.get("tables") == [table.stem]:
            content["tensors"] = {**content["tensors"], **json.loads(kept.files[table])["tensors"]}
    try:
        name = blake3(canonical(content)).hexdigest()
        raw = hashed(plain)
    except (ValueError, RecursionError):
        name, raw = kept.versions[1], text_of(plain).encode()
    forged = kept.folder / "versions" / f"{name}.json"
    forged.write_bytes(raw)
    try:
        for version in (name, kept.versions[1]):
            lawful(lambda version=version: Store(kept.folder).read(version), kept.folder)
        check_store(Store(kept.folder), {name: "needed"})
        lawful(lambda: sweep(Store(kept.folder), [name], dry=True), kept.folder)
        Store(kept.folder).write(kept.weights[1], HEAD)
    finally:
        kept.put_back()


@settings(max_examples=60, derandomize=True)
@given(data=st.data())
def test_a_table_that_is_named_by_its_hash_and_says_anything(kept: Kept, data: st.DataObject) -> None:
    path = kept.folder / "versions" / f"{kept.versions[1]}.json"
    table = path_of(kept, "tables")
    raw = text_of(data.draw(changed(json.loads(kept.files[table])))).encode()
    name = blake3(raw).hexdigest()
    table.with_stem(name).write_bytes(raw)
    path.write_bytes(hashed({**json.loads(kept.files[path]), "tables": [name]}))
    try:
        kept.read()
        check_store(Store(kept.folder), dict.fromkeys(kept.versions, "needed"))
    finally:
        kept.put_back()


@settings(max_examples=100, derandomize=True)
@given(data=st.data())
def test_a_bank_entry_with_the_right_hashes_that_says_anything(kept: Kept, data: st.DataObject) -> None:
    """Its name is the hash of what it is about, the first bytes are the hash of the rest."""
    meta = data.draw(changed({"what": dict(WHAT), "counts": {"a": 5}}))
    tensors = {"a\x1fhead.weight": torch.ones(2), data.draw(st.sampled_from(["", "a", "b\x1f", "\x1f"])): torch.ones(1)}
    said = {k: text_of(v) for k, v in meta.items()} if isinstance(meta, dict) else {}
    body = save(tensors, metadata=said)
    try:
        name = blake3(json.dumps(json.loads(said["what"]), sort_keys=True).encode()).hexdigest()
    except (ValueError, KeyError, RecursionError):
        name = "0" * 64
    forged = kept.folder / "bank" / f"{name}.safetensors"
    forged.write_bytes(blake3(body).digest() + body)
    try:
        for path in Bank(kept.folder).paths():
            lawful(lambda path=path: Bank(kept.folder).open(path), path)
        check_store(Store(kept.folder), {})
        sweep(Store(kept.folder), kept.versions, lambda what, classes: what["shard"] in classes, dry=True)
    finally:
        kept.put_back()


def headers() -> st.SearchStrategy[Any]:
    """Of safetensors files: dtypes there are, shapes and places that do not fit."""
    sizes = st.sampled_from([0, 1, 2, 3, -1, 2**31, 2**62, 2**63, 2**64, 10**30])
    dtypes = st.sampled_from(["F32", "F64", "BF16", "I64", "U64", "U16", "BOOL", "F8_E4M3", "F8_E8M0", "F4", "C64", "X", 3])
    entry = st.fixed_dictionaries(
        {"dtype": dtypes, "shape": st.lists(sizes, max_size=4), "data_offsets": st.lists(sizes, min_size=2, max_size=2)}
    )
    return st.dictionaries(st.sampled_from(["w", "", "__metadata__", "x\0"]), entry | st.just({"a": "b"}), max_size=2)


def fits(header: Any) -> Iterator[bytes]:
    """The header with the data that it describes best: none, or twelve bytes."""
    text = json.dumps(header).encode()
    for data, length in ((b"", len(text)), (b"\1" * 4, len(text)), (b"\1" * 12, len(text)), (b"\1", 2**63), (b"", 2**64 - 1)):
        yield length.to_bytes(8, "little") + text + data


@settings(max_examples=30, derandomize=True)
@given(header=headers())
def test_a_tensor_file_whose_header_says_anything(header: Any, kept: Kept) -> None:
    pack, state, entry = path_of(kept, "packs"), path_of(kept, "carried"), path_of(kept, "bank")
    try:
        for raw in fits(header):
            pack.write_bytes(raw)
            for path in (state, entry):
                path.write_bytes(blake3(raw).digest() + raw)
            lawful(lambda: Store(kept.folder).read(kept.versions[0]), kept.folder)
            lawful(lambda: Store(kept.folder).read_state(kept.versions[0]), state)
            lawful(lambda: Bank(kept.folder).open(entry), entry)
            check_store(Store(kept.folder), {})
            lawful(lambda: sweep(Store(kept.folder), kept.versions[1:], dry=True), kept.folder)
    finally:
        kept.put_back()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\0b", "", ".", "n" * 5000, "\ud800", "F" * 64])
def test_a_version_by_another_name_than_a_hash_is_unknown(name: str, kept: Kept) -> None:
    with pytest.raises(StoreError, match="unknown version"):
        Store(kept.folder).read(name)
    assert Store(kept.folder).read_state(name) == {}


def test_a_link_where_a_temporary_file_will_be_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    store = Store(tmp_path / "store")
    version = store.write({"w": torch.ones(2)}, HEAD)
    for path in [p for p in store.folder.rglob("*") if p.is_file()]:
        path.with_name(path.name + ".writing").symlink_to(outside)
        path.unlink()
    assert store.write({"w": torch.ones(2)}, HEAD) == version
    assert outside.read_text() == "mine"
    assert equal(Store(store.folder).read(version).weights, {"w": torch.ones(2)})


BODIES: list[tuple[str, Plain]] = [
    ("trained", {"heads": {"m": "0" * 64, "n": "1" * 64}, "models": 2, "lineage": "2" * 64}),
    ("unlearned", {"heads": {"m": "3" * 64}, "request": "r-1", "pending": {}, "untouched": []}),
    ("rolled back", {"heads": {"m": "0" * 64}, "undoes": 1, "lifted": True}),
    ("unlearned", {"heads": {"m": "4" * 64}, "request": "r-2", "pending": {}, "untouched": []}),
    ("sealed", {"seals": [3], "requests": ["r-2"]}),
]


def chained(lines: Any) -> bytes:
    """Lines with the hashes of an enemy who wrote all of them anew."""
    previous, out = "0" * 64, []
    for line in lines if isinstance(lines, list) else [lines]:
        if isinstance(line, dict):
            bare = {**{k: v for k, v in line.items() if k not in ("hash", "signature")}, "previous": previous}
            try:
                previous = blake3(canonical(bare)).hexdigest()
                out.append(canonical({**bare, "hash": previous, **{k: line[k] for k in ("signature",) if k in line}}))
                continue
            except (ValueError, RecursionError):
                pass
        out.append(text_of(line).encode())
    return b"\n".join(out) + b"\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    for kind, body in BODIES:
        Ledger(path, by="ada").append(kind, body)
    return path, path.read_bytes()


@settings(max_examples=150, derandomize=True)
@given(data=st.data())
def test_a_ledger_with_the_right_hashes_that_says_anything(data: st.DataObject, written: tuple[Path, bytes]) -> None:
    path, raw = written
    lines = [json.loads(text) for text in raw.splitlines()]
    path.write_bytes(chained(data.draw(changed([{**line, "key": "k", "signature": "s"} for line in lines]))))

    def told() -> object:
        ledger = Ledger(path)
        ledger.verify()
        return ledger.heads(), ledger.undone, ledger.sealed, lawful(ledger.last_undoable, path.parent)

    lawful(told, path)


@settings(max_examples=100, derandomize=True)
@given(data=st.data())
def test_a_ledger_of_changed_bytes_is_the_same_or_shorter_by_its_torn_end(
    data: st.DataObject, written: tuple[Path, bytes]
) -> None:
    path, raw = written
    path.write_bytes(raw)
    whole = Ledger(path).lines
    path.write_bytes(data.draw(spoiled(raw)))
    found = lawful(lambda: Ledger(path).lines, path)
    assert found is None or found == whole[: len(found)]


@settings(max_examples=40, derandomize=True)
@given(data=st.data())
def test_lines_that_were_removed_moved_or_doubled_are_found(data: st.DataObject, written: tuple[Path, bytes]) -> None:
    path, raw = written
    lines = raw.splitlines(keepends=True)
    order = data.draw(st.lists(st.sampled_from(range(len(lines))), min_size=1, max_size=6))
    path.write_bytes(b"".join(lines[i] for i in order))
    if order == list(range(len(order))):  # a cut tail: whoever has acknowledged more finds it, not the file alone
        assert len(Ledger(path).lines) == len(order)
    else:
        with pytest.raises(StoreError, match=r"line \d: does not follow from the line before; lines were removed or moved"):
            Ledger(path)
