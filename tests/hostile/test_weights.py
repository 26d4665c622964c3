"""Weights of an enemy: tensors, or an error that names the file; nothing runs, and nothing that is claimed is allocated."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import save

from fedunlearn.errors import InputError
from fedunlearn.nets import read_checkpoint
from tests.hostile.spoil import lawful, spoiled
from tests.hostile.test_store import fits, headers

WEIGHTS = {"body.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.ones(2)}


def saved(held: Any, zipped: bool = True) -> bytes:
    out = io.BytesIO()
    torch.save(held, out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@settings(max_examples=120, derandomize=True)
@given(data=st.data())
def test_any_bytes(data: st.DataObject, folder: Path) -> None:
    files = {"zipped.pt": saved(WEIGHTS), "legacy.pt": saved(WEIGHTS, zipped=False), "a.safetensors": save(WEIGHTS)}
    path = folder / data.draw(st.sampled_from(sorted(files)))
    path.write_bytes(data.draw(spoiled(files[path.name])))
    lawful(lambda: read_checkpoint(path), path)


@settings(max_examples=40, derandomize=True)
@given(header=headers())
def test_a_tensor_file_whose_header_says_anything(header: Any, folder: Path) -> None:
    path = folder / "b.safetensors"
    for raw in fits(header):
        path.write_bytes(raw)
        lawful(lambda: read_checkpoint(path), path)


def repacked(raw: bytes, double: bool) -> bytes:
    """The same archive, its parts packed; or with one part named again and again."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
        if double:
            new.writestr("archive/more", b"\0" * (1 << 20))
    return out.getvalue()


def shared() -> dict[str, torch.Tensor]:
    base = torch.rand(100, 100)
    return {f"w{i}": base.t() for i in range(1000)}


HUGE = {
    "stretched": lambda: saved({"w": torch.zeros(1).expand(10**12)}),
    "stretched out of shape": lambda: saved({"w": torch.zeros(1).expand(2**20, 2**20, 2**20)}),
    "one tensor by many names": lambda: saved(shared()),
    "packed": lambda: repacked(saved({"w": torch.zeros(1 << 22)}), False),
    "packed with more": lambda: repacked(saved(WEIGHTS), True),
    "meta": lambda: saved({"w": torch.empty(10**15, device="meta")}),
    "sparse": lambda: saved(
        {"w": torch.sparse_coo_tensor(torch.zeros(2, 0, dtype=torch.int64), [], (10**9, 10**9), check_invariants=True)}
    ),
    "complex": lambda: saved({"w": torch.ones(2, dtype=torch.complex64)}),
    "eighths": lambda: saved({"w": torch.ones(2).to(torch.float8_e4m3fn)}),
    "nested": lambda: saved({"state_dict": {"model": {"state_dict": WEIGHTS}}}),
    "numbers for names": lambda: saved({1: torch.ones(1)}),
    "a bytearray": lambda: b"\x80\x02cbuiltins\nbytearray\n\x8a\x08" + (2**60).to_bytes(8, "little") + b"\x85R.",
    "a bomb of memos": lambda: b"\x80\x02]q\x00" + b"(h\x00h\x00eq\x00" * 1000 + b".",
    "deep": lambda: b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
}

READS = """
import resource, sys, warnings
from pathlib import Path
import torch
from fedunlearn.errors import InputError
from fedunlearn.nets import read_checkpoint
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (300 << 20),) * 2)
for path in sys.argv[1:]:
    try:
        print("read", list(read_checkpoint(Path(path))))
    except InputError as error:
        print("refused" if path in str(error) else f"does not name it: {error}")
"""


def test_what_is_claimed_is_not_allocated(folder: Path) -> None:
    """In a process that may take 300 MB more than torch itself takes."""
    paths = []
    for name, make in HUGE.items():
        paths.append(folder / f"{name}.pt")
        paths[-1].write_bytes(make())
    done = subprocess.run(
        [sys.executable, "-c", READS, *map(str, paths)], check=False, capture_output=True, text=True, cwd=folder
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert dict(zip(HUGE, done.stdout.splitlines(), strict=True)) == dict.fromkeys(HUGE, "refused")


CODE = [b"cos\nsystem\n(S'touch escaped'\ntR.", b"cbuiltins\neval\n(S'1'\ntR.", b"ctorch.hub\nload\n(S'a'\nS'b'\ntR."]


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_not_run(code: bytes, zipped: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    path = folder / "code.pt"
    path.write_bytes(code)
    if zipped:
        with zipfile.ZipFile(io.BytesIO(saved(WEIGHTS))) as old, zipfile.ZipFile(path, "w") as new:
            for part in old.infolist():
                new.writestr(part.filename, code if part.filename.endswith("data.pkl") else old.read(part))
    with pytest.raises(InputError, match=r"code\.pt'?: .*(would run code|not a readable file)"):
        read_checkpoint(path)
    assert not (folder / "escaped").exists()
