"""A file of tensors that is mapped holds what one that is read holds."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import save, save_file

from fedunlearn.store.files import DTYPES, mapped, tensors_in
from tests.hostile.spoil import spoiled
from tests.hostile.test_store import fits, headers

ODD = (torch.float8_e4m3fn, torch.complex64)  # read by the library alone
EVERY = {
    **{str(dtype): torch.arange(7).to(dtype) for dtype in (*DTYPES.values(), *ODD)},
    "scalar": torch.tensor(3.0), "empty": torch.zeros(0, 3), "image": torch.rand(2, 3, 4, 5),
}  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mapped") / "a.safetensors"


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        (a[n].dtype, a[n].shape, a[n].is_contiguous()) == (b[n].dtype, b[n].shape, True)
        and a[n].reshape(-1).view(torch.uint8).tolist() == b[n].reshape(-1).view(torch.uint8).tolist()
        for n in a
    )


def test_every_type_and_shape(file: Path) -> None:
    save_file(EVERY, file, metadata={"of": "nobody"})
    assert same(mapped(file), tensors_in(file.read_bytes()))
    assert same(mapped(file), EVERY)


def test_what_is_changed_in_memory_stays_there(file: Path) -> None:
    save_file(EVERY, file)
    before = file.read_bytes()
    for tensor in mapped(file).values():
        tensor.zero_()
    assert file.read_bytes() == before
    assert same(mapped(file), EVERY)


def test_one_tensor_does_not_carry_the_others_along(file: Path) -> None:
    save_file({"large": torch.rand(1 << 18), "small": torch.ones(3)}, file)
    assert len(pickle.dumps(mapped(file)["small"])) < 2000


def read(file: Path, raw: bytes) -> tuple[Any, Any]:
    """What is read and what is mapped of these bytes; None where they are refused."""
    file.write_bytes(raw)
    found: list[Any] = []
    for way in (lambda: tensors_in(raw), lambda: mapped(file)):
        try:
            found.append(way())
        except ValueError:
            found.append(None)
    return found[0], found[1]


@settings(max_examples=80, derandomize=True)
@given(header=headers())
def test_a_header_that_says_anything(header: Any, file: Path) -> None:
    for raw in fits(header):
        plain, quick = read(file, raw)
        assert (plain is None) == (quick is None)
        assert plain is None or same(quick, plain)


@settings(max_examples=120, derandomize=True)
@given(data=st.data())
def test_any_bytes(data: st.DataObject, file: Path) -> None:
    plain, quick = read(file, data.draw(spoiled(save(EVERY))))
    assert (plain is None) == (quick is None)
    assert plain is None or same(quick, plain)
