"""Versions are named by their content, the ledger decides, and damage is found."""

from multiprocessing import get_context
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings, strategies as st

from fedunlearn.errors import BusyError, InputError, ShapeError, StoreError
from fedunlearn.store import Ledger, Store, check_store
from fedunlearn.store.hashing import BIG
from fedunlearn.tensors import Head, equal
from tests.store.test_ledger import filled

HEAD = Head("head", ("a", "b"))
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool)


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    names = draw(st.lists(st.sampled_from(["w", "head.weight", "n", "x.y"]), unique=True, min_size=1))
    found = {}
    for name in names:
        shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
        generator = torch.Generator().manual_seed(draw(st.integers(0, 3)))
        found[name] = (torch.rand(shape, generator=generator) * 5).to(draw(st.sampled_from(DTYPES)))
    return found


@settings(max_examples=40)
@given(weights=tensors())
def test_what_is_read_is_what_was_written(weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    version = store.write(weights, HEAD)
    found = Store(store.folder).read(version)
    assert equal(found.weights, weights)
    assert found.head == HEAD
    assert store.write(weights, HEAD) == version
    assert Store(store.folder.with_name(store.folder.name + "-2")).write(dict(reversed(weights.items())), HEAD) == version


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")  # Python 3.12 and later say so
def test_a_forked_process_reads_as_its_parent_does(tmp_path: Path) -> None:
    """Threads that hash stay for the next tensors, but a fork has none of them."""
    store = Store(tmp_path)
    version = store.write({name: torch.rand(BIG) for name in "abc"}, HEAD)
    child = get_context("fork").Process(target=store.read, args=(version,))
    child.start()
    child.join(60)
    child.kill()
    assert child.exitcode == 0


def test_equal_tensors_are_kept_once_and_nothing_is_overwritten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    body = {"body": torch.randn(50_000)}
    store.write({**body, "head": torch.zeros(2)}, HEAD)
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    Store(tmp_path).write({**body, "head": torch.ones(2)}, HEAD)
    packs = sorted(p.stat().st_size for p in (tmp_path / "packs").iterdir())
    assert packs[0] < 1000
    assert packs[1] > 200_000
    assert {p: p.stat().st_mtime_ns for p in files} == files


@pytest.mark.parametrize("more", [1, 3_000_000], ids=["small", "mapped"])
def test_equal_tensors_of_one_version_are_read_as_two(more: int, tmp_path: Path) -> None:
    """As every net with two BatchNorm layers has them; they can be saved, and changed one by one."""
    store = Store(tmp_path)
    found = store.read(store.write({"a": torch.zeros(3), "b": torch.zeros(3), "c": torch.rand(more)}, HEAD)).weights
    assert equal(safetensors.torch.load(safetensors.torch.save(found)), found)
    found["a"] += 1
    assert found["b"].tolist() == [0, 0, 0]


def test_a_manifest_is_as_long_as_what_its_version_changed(tmp_path: Path) -> None:
    """What a thousand heirs have in common is named once."""
    store, body = Store(tmp_path), {f"layers.{i}.weight": torch.full((3,), float(i)) for i in range(200)}
    base = store.write({**body, "head": torch.zeros(2)}, HEAD)
    heirs = [Store(tmp_path).write({**body, "head": torch.full((2,), float(i))}, HEAD) for i in range(1, 6)]
    sizes = {v: store.manifest_path(v).stat().st_size for v in (base, *heirs)}
    assert all(20 * sizes[heir] < sizes[base] for heir in heirs)
    assert len({tuple(store.manifest(heir)["tables"]) for heir in heirs}) == 1
    only(tmp_path / "tables")
    later = Store(tmp_path).write({**body, "head": torch.ones(2), "layers.0.weight": torch.ones(3) / 7}, HEAD)  # three packs
    assert equal(Store(tmp_path).read(later).weights, {**body, "head": torch.ones(2), "layers.0.weight": torch.ones(3) / 7})
    found = check_store(Store(tmp_path), dict.fromkeys((base, *heirs, later), "needed"))
    assert not found.damage
    assert not found.orphans


@pytest.mark.parametrize("damage", ["flip", "gone"])
def test_a_damaged_table_is_found_by_whoever_needs_it(damage: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    base = store.write({"body": torch.zeros(3), "head": torch.zeros(2)}, HEAD)
    heir = store.write({"body": torch.zeros(3), "head": torch.ones(2)}, HEAD)
    path = only(tmp_path / "tables")
    data = path.read_bytes()
    path.unlink() if damage == "gone" else path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    with pytest.raises(StoreError, match=f"tables/{path.name}: .*(cannot be read|does not hash to its name)"):
        Store(tmp_path).read(heir)
    assert Store(tmp_path).read(base)
    assert any(path.name in text for text in check_store(Store(tmp_path), {base: "", heir: ""}).damage)
    assert Store(tmp_path).write({"body": torch.zeros(3), "head": torch.ones(2)}, HEAD) == heir
    assert not check_store(Store(tmp_path), {base: "", heir: ""}).damage


def test_a_pack_that_is_damaged_is_not_trusted_to_hold_what_is_written_next(tmp_path: Path) -> None:
    Store(tmp_path).write({"body": torch.zeros(300), "head": torch.zeros(2)}, HEAD)
    path = only(tmp_path / "packs")
    path.write_bytes(path.read_bytes()[:-4] + b"lies")
    heir = {"body": torch.zeros(300), "head": torch.ones(2)}
    assert equal(Store(tmp_path).read(Store(tmp_path).write(heir, HEAD)).weights, heir)


def test_what_was_just_read_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what became of it in memory meanwhile is what is kept."""
    base = Store(tmp_path).read(
        Store(tmp_path).write({"body": torch.zeros(300), "more": torch.ones(3), "head": torch.zeros(2)}, HEAD)
    )
    base.weights["more"].add_(1)
    heir = {**base.weights, "head": torch.ones(2)}
    with monkeypatch.context() as patch:
        patch.setattr(Store, "_tensors", lambda *_: pytest.fail("read again"))
        version = Store(tmp_path).write(heir, HEAD, base=base)
    assert version == Store(tmp_path / "elsewhere").write(heir, HEAD)
    assert equal(Store(tmp_path).read(version).weights, heir)
    assert not check_store(Store(tmp_path), {}).damage


def test_the_format_before_is_refused(tmp_path: Path) -> None:
    version = Store(tmp_path).write({"w": torch.ones(1)}, HEAD)
    path = only(tmp_path / "versions")
    path.write_text(path.read_text().replace('"format":2', '"format":1'))
    with pytest.raises(StoreError, match="format 1, this fedunlearn reads 2"):
        Store(tmp_path).read(version)


def test_other_names_of_outputs_are_another_version(tmp_path: Path) -> None:
    weights = {"w": torch.ones(2)}
    assert Store(tmp_path).write(weights, HEAD) != Store(tmp_path).write(weights, Head("head", ("b", "a")))


def only(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
@pytest.mark.parametrize("where", ["packs", "versions"])
def test_damage_is_found_and_named(tmp_path: Path, where: str, damage: str) -> None:
    version = Store(tmp_path).write({"w": torch.randn(100)}, HEAD)
    path = only(tmp_path / where)
    raw = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(raw[: len(raw) // 2] if damage == "cut" else bytes([*raw[:-40], raw[-40] ^ 1, *raw[-39:]]))
    with pytest.raises(StoreError, match=version[:12]):
        Store(tmp_path).read(version)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_not_kept_and_huge_ones_are(wrong: float, tmp_path: Path) -> None:
    """A sum of huge finite numbers is infinite, and infinities of both signs make no number."""
    store, huge = Store(tmp_path), torch.full((4,), 3e38)
    with pytest.raises(ShapeError, match="weights of 'b' are NaN or infinite"):
        store.write({"a": huge, "b": torch.tensor([1.0, wrong, -wrong])}, Head("a", ("x",)))
    assert store.versions() == ()
    assert equal(store.read(store.write({"a": huge}, Head("a", ("x",)))).weights, {"a": huge})


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    version = Store(tmp_path).write({"w": torch.ones(1)}, HEAD)
    torch.save({"w": torch.ones(1)}, only(tmp_path / "packs"))
    with pytest.raises(StoreError, match=r"cannot be read .* restore the file from a backup"):
        Store(tmp_path).read(version)
    only(tmp_path / "versions").write_text("[1, 2]")
    with pytest.raises(StoreError, match="not a manifest of a version"):
        Store(tmp_path).read(version)


def test_heads_follow_from_the_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("trained", {"heads": {"m": "v1", "n": "w1"}})
    ledger.append("unlearned", {"heads": {"m": "v2"}, "request": "r"})
    assert ledger.heads() == Ledger(ledger.path).heads() == {"m": "v2", "n": "w1"}
    assert ledger.heads(1) == {"m": "v1", "n": "w1"}
    assert ledger.last_undoable().number == 1
    ledger.append("rolled back", {"heads": {"m": "v1"}, "undoes": 1})
    assert Ledger(ledger.path).heads() == {"m": "v1", "n": "w1"}
    with pytest.raises(InputError, match="nothing to roll back"):
        ledger.last_undoable()


@given(cut=st.integers(1, 60))
def test_a_torn_last_line_was_never_committed(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("torn") / "ledger.jsonl"
    filled(path)
    raw = path.read_bytes()
    path.write_bytes(raw[:-cut])
    before = path.read_bytes()
    ledger = Ledger(path)
    assert len(ledger.lines) == 2
    assert ledger.torn == before[ledger._good :]
    assert path.read_bytes() == before
    ledger.append("trained", {"heads": {"m": "new"}})
    assert Ledger(path).heads() == {"m": "new"}
    assert path.with_name("ledger.jsonl.torn").read_bytes() == before[len(raw.split(b"\n")[0] + raw.split(b"\n")[1]) + 2 :]


def test_changed_removed_and_moved_lines_are_found(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    filled(path)
    one, two, three, _ = path.read_bytes().split(b"\n")
    changed = two.replace(b'"v1"', b'"vX"')
    for lines, message in (
        ([one, changed, three], "line 2: its content does not hash to what it says"),
        (
            [one, two.replace(b'"kind":', b'"kind":"sealed","kind":'), three],
            "line 2: its content does not hash to what it says",
        ),
        ([one, two.replace(b'"hash":', b'"hash": '), three], "line 2: its content does not hash to what it says"),
        ([one, three], "line 2: does not follow from the line before"),
        ([two, one, three], "line 1: does not follow"),
        ([one, b"{}", three], "line 2: not a ledger line"),
        ([one, b"torn {", three], "line 2: not a ledger line"),
    ):
        path.write_bytes(b"\n".join(lines) + b"\n")
        with pytest.raises(StoreError, match=message):
            Ledger(path)


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    mine, theirs = filled(tmp_path / "ledger.jsonl"), Ledger(tmp_path / "ledger.jsonl")
    theirs.append("trained", {"heads": {}})
    with pytest.raises(BusyError, match="another command wrote to it meanwhile"):
        mine.append("trained", {"heads": {}})
