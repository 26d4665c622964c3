"""Records of Flower carry tensors as bytes: each once, every kind back to the bit, and nothing else."""

import pytest
import torch
from flwr.app import Array, ArrayRecord

from fedunlearn.runtime.codec import CodecError, Packed, pack
from fedunlearn.runtime.flower.records import ARRAYS, CONFIG, code_in, from_records, to_records, volume
from fedunlearn.runtime.tasks import Fetched
from fedunlearn.tensors import Head


def test_what_several_tasks_have_in_common_is_sent_once() -> None:
    weights = torch.rand(100, 100)
    one = pack(Fetched({"w": weights}, Head("w", ("a",))))
    other = pack(Fetched({"w": torch.rand(100, 100)}, Head("w", ("a",))))
    content = to_records("b", [one, other, one])
    assert len(content[ARRAYS]) == 2
    assert volume(content) < 2 * 40_000 + 1_000
    for sent, back in zip([one, other, one], from_records(content)[1], strict=True):
        assert (back.kind, back.plain) == (sent.kind, sent.plain)
        assert all(torch.equal(back.tensors[n], t) for n, t in sent.tensors.items())


@pytest.mark.parametrize("same", ["2/0:float32=9/0:float32", "0/0:float32=1/0:float32", "7/0:float32=0/0:float32", "x"])
def test_what_is_said_to_be_another_tensor_must_be_one(same: str) -> None:
    made = [pack(Fetched({"w": torch.rand(3)}, Head("w", ("a",)))) for _ in range(2)]
    content = to_records("b", made)
    content[CONFIG]["same"] = [same]
    with pytest.raises(CodecError, match=r"is said to be another|belongs to none of 2 messages"):
        from_records(content)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (Array("float32", (3,), "fedunlearn.raw", b"12345678"), r"8 bytes do not make float32 of shape \(3,\)"),
        (Array("float32", (-1,), "fedunlearn.raw", b""), "0 bytes do not make"),
        (Array("object", (1,), "fedunlearn.raw", b"12345678"), "got 'fedunlearn.raw' of 'object', expected 'fedunlearn.raw'"),
        (Array(torch.ones(2).numpy()), "got 'numpy.ndarray' of 'float32', expected 'fedunlearn.raw'"),
        (Array("bool", (1,), "fedunlearn.raw", b"\x02"), "neither true nor false"),
        (Array("float32", (0, 2**62, 2**62), "fedunlearn.raw", b""), "empty, of an absurd shape"),
    ],
)
def test_arrays_are_read_as_bytes_and_nothing_else(array: Array, says: str) -> None:
    content = to_records("b", [Packed("fetched", "{}", {})])
    content[ARRAYS] = ArrayRecord({"0/0:float32": array})
    with pytest.raises(CodecError, match=says):
        from_records(content)


def test_answers_say_which_code_made_them() -> None:
    said = {"fedunlearn": "0.1.0", "files": "a=b"}
    assert code_in(to_records("b", [], said)) == said
    assert code_in(to_records("b", [])) == {}


@pytest.mark.parametrize("said", ["x=1", ["x"], ["x=\x1b[2J"], ["=".join(("x", "1" * 200))], ["x=1"] * 1000])
def test_what_is_said_of_code_is_short_text(said: str | list[str]) -> None:
    content = to_records("b", [])
    content[CONFIG]["code"] = said
    with pytest.raises(CodecError, match="does not say its code as"):
        code_in(content)


def test_records_bring_every_kind_of_tensor_back() -> None:
    made = {
        "0:bfloat16": torch.tensor([1.5, float("nan")]).bfloat16(),
        "1:bool": torch.tensor(True),
        "2:int64": torch.empty(0, 3, dtype=torch.int64),
        "3:float64": torch.rand(2, 3, dtype=torch.float64),
    }
    batch, (packed,) = from_records(to_records("b", [Packed("fetched", "{}", made)]))
    assert (batch, packed.kind, packed.plain, list(packed.tensors)) == ("b", "fetched", "{}", list(made))
    for name, tensor in made.items():
        found = packed.tensors[name]
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))
