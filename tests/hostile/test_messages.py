"""Flower messages of an enemy: tasks and answers, or one kind of error; what they claim is not allocated."""

import json
from typing import Any

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given, settings, strategies as st

from fedunlearn.data import Selection
from fedunlearn.errors import SiteError
from fedunlearn.runtime.codec import CodecError, Packed, pack, unpack
from fedunlearn.runtime.flower.records import ARRAYS, CONFIG, RAW, from_records, to_records, volume
from fedunlearn.runtime.place import mirror
from fedunlearn.runtime.tasks import Commit, Fetch, Fetched, Measure
from fedunlearn.store import Store
from fedunlearn.tensors import Head
from tests.hostile.spoil import changed, lawful, text_of

SENT = Fetched({"w": torch.rand(3, 2), "n": torch.arange(3), "b": torch.tensor([True, False])}, Head("w", ("a", "b", "c")))
MESSAGES = [
    pack(Fetch("north", "v")),
    pack(Measure("north", "v", "main", "squares", "all", Selection(("0",)), (), SENT)),
    pack(Commit("north", {"m": "v"}, {"r": Selection(("0",))}, ("0", "1", "line"))),
]
SIZES = st.sampled_from([0, 1, 2, 3, -1, 2**31, 2**40, 2**62, 2**63, 2**64, 10**30])
SHAPES = st.lists(SIZES, max_size=4).map(tuple) | st.just((1,) * 70) | st.just((0,) + (2**62,) * 3)
DTYPES = st.sampled_from(["float32", "float64", "bfloat16", "bool", "int64", "complex64", "object", "", "float32\0"])
CONFIGS = st.sampled_from([None, "", "x", 0, -1, 2**62, [], ["fetch"], ["x"] * 5, [1], [""], [b"x"], b"x", 0.5, True])


@settings(max_examples=150, derandomize=True)
@given(data=st.data())
def test_records_that_say_anything(data: st.DataObject) -> None:
    content = to_records("batch", MESSAGES)
    config, arrays = dict(content[CONFIG]), dict(content[ARRAYS])
    for key in data.draw(st.sets(st.sampled_from(["protocol", "batch", "kinds", "plain", "same", "more"]), max_size=2)):
        if (value := data.draw(CONFIGS)) is None:
            config.pop(key, None)
        else:
            config[key] = value
    for key in data.draw(st.sets(st.sampled_from([*arrays, "0/x", "9/x", "-1/x", "x", "/", "0" * 10 + "/x"]), max_size=2)):
        raw = data.draw(st.sampled_from([b"", b"\1" * 8, b"\xff" * 24, b"\2" * 3]))
        arrays[key] = Array(data.draw(DTYPES), data.draw(SHAPES), data.draw(st.sampled_from([RAW, "numpy.ndarray"])), raw)
    made = RecordDict({CONFIG: ConfigRecord(config), ARRAYS: ArrayRecord(arrays)})
    volume(made)

    def opened() -> None:
        for packed in from_records(made)[1]:
            lawful(lambda packed=packed: unpack(packed), "")

    lawful(opened)


@settings(max_examples=150, derandomize=True)
@given(data=st.data())
def test_json_of_a_message_that_says_anything(data: st.DataObject) -> None:
    packed = data.draw(st.sampled_from(MESSAGES))
    plain = text_of(data.draw(changed(json.loads(packed.plain))))
    came = lawful(lambda: unpack(Packed(packed.kind, plain, packed.tensors)))
    if came is not None:
        assert unpack(pack(came)) is not None
        str(came).encode()  # names are text that can be written down


@pytest.mark.parametrize(
    ("plain", "says"),
    [
        ('{"family":"","place":"\\ud800","version":"v"}', "surrogates not allowed"),
        ('{"family":"","place":"north","version":' + "[" * 5000 + "]" * 5000 + "}", "nested too deep"),
        ('{"family":"","place":"north","version":' + "9" * 5000 + "}", "not JSON as it is sent here"),
    ],
)
def test_text_that_no_writer_makes(plain: str, says: str) -> None:
    with pytest.raises(CodecError, match=f"fetch: .*{says}"):
        unpack(Packed("fetch", plain, {}))


def test_one_tensor_by_many_names_is_counted_as_often_and_as_wide_as_it_becomes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It came once, but each name that is narrower than it was becomes a tensor of its own."""
    from fedunlearn.runtime import codec

    value = Fetched({f"w{i}": torch.full((100,), 0.5, dtype=torch.float64) for i in range(10)}, Head("w0", ("a",)))
    packed = pack(value)
    assert {t.dtype for t in packed.tensors.values()} == {torch.bfloat16}
    monkeypatch.setattr(codec, "MOST_BYTES", 10 * 100 * 8 - 1)
    with pytest.raises(CodecError, match="8000 bytes, expected at most 7999"):
        unpack(packed)


@pytest.mark.parametrize("family", ["../../escaped", "/escaped", "a\0b", "", "F" * 32, "0" * 33, "0" * 32 + "\n"])
def test_a_family_that_a_message_names_becomes_no_other_folder(family: str, tmp_path: Any) -> None:
    with pytest.raises(SiteError, match="expected 32 hexadecimal digits"):
        mirror.part(Store(tmp_path), family)
