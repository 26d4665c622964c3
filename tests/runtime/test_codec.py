"""`unpack(pack(x)) == x`, to the bit, for all that can be asked and answered; and nothing else ever gets in."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from fedunlearn.evaluation import Scores
from fedunlearn.runtime import codec
from fedunlearn.runtime.codec import DTYPES, KINDS, CodecError, Packed, pack, unpack
from fedunlearn.runtime.tasks import Apply, Fetched, Question
from fedunlearn.tensors import Head
from tests.runtime.messages import MESSAGES, NAMED, TEXT


def same(a: Any, b: Any) -> bool:
    """Equal in type, order and bit; NaN is NaN, and 0 is not 0.0."""
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return repr(a) == repr(b)


def test_every_kind_of_message_is_tried() -> None:
    assert set(MESSAGES) == set(KINDS.values())


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda k: k.__name__)
def test_what_is_packed_comes_out_to_the_bit(kind: type) -> None:
    @given(MESSAGES[kind])
    @settings(max_examples=40, deadline=None, derandomize=True)
    def law(value: Any) -> None:
        packed = pack(value)
        assert same(unpack(packed), value)
        assert packed.plain.isascii()
        assert same(pack(unpack(packed)), packed)

    law()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(KINDS)) | TEXT, JSON.map(json.dumps) | st.text(max_size=30), NAMED)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_garbage_gives_one_kind_of_error(kind: str, plain: str, carried: dict[str, Tensor]) -> None:
    with pytest.raises(CodecError):
        unpack(Packed(kind, plain, carried))


@given(st.data())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_one_part_changed_gives_a_message_or_that_error(data: st.DataObject) -> None:
    """Any value anywhere in a right message is replaced; what comes out, if anything, is a message that packs again."""
    packed = pack(data.draw(st.one_of(*MESSAGES.values())))
    plain = json.loads(packed.plain)
    at: Any = plain
    while True:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if not (isinstance(at[key], dict | list) and at[key] and data.draw(st.booleans())):
            break
        at = at[key]
    at[key] = data.draw(JSON)
    try:
        came = unpack(Packed(packed.kind, json.dumps(plain), packed.tensors))
    except CodecError:
        return
    assert same(unpack(pack(came)), came)


FETCH = '{"family":"","place":"north","version":"v"}'


@pytest.mark.parametrize(
    ("kind", "plain", "says"),
    [
        ("os.system", FETCH, r"unknown kind 'os.system'; known: fetch, fetched"),
        (
            "fetch",
            '{"family":"","place":"north"}',
            r"fetch: got missing \['version'\], not known \[\], expected fields family, place, version; do both",
        ),
        ("fetch", FETCH[:-1] + ',"run":"x"}', r"fetch: got missing \[\], not known \['run'\]"),
        ("fetch", '{"family":"","place":"north","version":3}', r"fetch.version: got int '3', expected str"),
        ("fetch", '{"place":"a","place":"b","version":"v"}', "fetch: not JSON as it is sent here: a name stands twice"),
        ("fetch", "[" * 100_000, "fetch: not JSON as it is sent here"),
        ("deposited", '{"version":"v","read":true}', r"deposited.read: got bool 'True', expected int"),
        ("deposited", '{"version":"v","read":1' + "0" * 30 + "}", "deposited.read: .* numbers within 64 bits"),
        ("deposited", '{"version":"v","read":NaN}', "deposited: .* NaN is not JSON"),
        (
            "fetched",
            '{"weights":{"w":"0:float32"},"head":{"layer":"h","classes":[]},"net":""}',
            r"weights.w: .* that came along",
        ),
        (
            "measured",
            '{"version":"v","read":0,"enough":null,"clip":null,"noise":0.0,"importance":{"sums":{},"count":-1}}',
            "measured.importance: .*count is -1",
        ),
    ],
)
def test_errors_name_the_kind_and_the_field(kind: str, plain: str, says: str) -> None:
    with pytest.raises(CodecError, match=says):
        unpack(Packed(kind, plain, {}))


def test_tensors_are_as_named_and_each_is_named_once() -> None:
    good = pack(Fetched({"a": torch.ones(2), "b": torch.ones(3)}, Head("h", ())))
    with pytest.raises(CodecError, match=r"weights.a: got a tensor of torch.int64, expected a dense one as named, '0:float32'"):
        unpack(dataclasses.replace(good, tensors={**good.tensors, "0:float32": torch.ones(2, dtype=torch.int64)}))
    with pytest.raises(CodecError, match="fetched: carries 1 tensors that no field names, the first '9:float32'"):
        unpack(dataclasses.replace(good, tensors={**good.tensors, "9:float32": torch.ones(1)}))
    with pytest.raises(CodecError, match=r"weights.b: got str '0:float32', expected the name of a tensor"):
        unpack(dataclasses.replace(good, plain=good.plain.replace("1:float32", "0:float32")))


def test_what_cannot_travel_is_refused_where_it_is_packed() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for held, says in (
        (object(), r"apply.settings.x: got object, expected a plain value"),
        (endless, r"apply.settings.x\[0\].*not nested deeper than 16"),
        (2**63, "apply.settings.x: .*numbers within 64 bits"),
    ):
        task = Apply("p", "v", "m", {"x": held}, (), None, (), Question(), Scores(None, None, 0, 0), None, (0.0, 0.0))
        with pytest.raises(CodecError, match=says):
            pack(task)
    with pytest.raises(CodecError, match=r"fetched.weights.w: got a .* tensor of complex64"):
        pack(Fetched({"w": torch.ones(1, dtype=torch.complex64)}, Head("h", ())))
    with pytest.raises(CodecError, match="str is no message; expected one of Fetch, "):
        pack("fetch")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("MOST_TEXT", "characters"),
        ("MOST_TENSORS", "2 tensors, expected at most 1"),
        ("MOST_BYTES", "20 bytes, expected at most 1"),
    ],
)
def test_sizes_are_bounded_both_ways(limit: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = Fetched({"a": torch.ones(2), "b": torch.ones(3)}, Head("h", ()))
    packed = pack(value)
    monkeypatch.setattr(codec, limit, 1)
    with pytest.raises(CodecError, match=says):
        unpack(packed)
    with pytest.raises(CodecError, match=says):
        pack(value)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0.5, -2.0], "bfloat16"), ([0.1], "float64"), ([float(torch.tensor(0.1))], "float32"), ([float("nan")], "float64")],
)
def test_float64_travels_as_narrow_as_nothing_is_lost(values: list[float], dtype: str) -> None:
    sent = Fetched({"w": torch.tensor(values, dtype=torch.float64)}, Head("w", ("a",)))
    packed = pack(sent)
    ((name, tensor),) = packed.tensors.items()
    assert name.partition(":")[2] == str(tensor.dtype).removeprefix("torch.") == dtype
    back = unpack(packed)
    assert isinstance(back, Fetched)
    assert back.weights["w"].dtype == torch.float64
    assert torch.equal(back.weights["w"].nan_to_num(7), sent.weights["w"].nan_to_num(7))


@pytest.mark.parametrize("named", ["0:bfloat16>float32", "0:float64>float64", "0:bfloat16>"])
def test_what_is_not_narrowed_so_is_refused(named: str) -> None:
    packed = pack(Fetched({"w": torch.tensor([0.5], dtype=torch.float64)}, Head("w", ("a",))))
    tensors = {named.partition(">")[0]: torch.tensor([0.5], dtype=DTYPES[named.partition(">")[0].partition(":")[2]])}
    with pytest.raises(CodecError, match="expected one of bfloat16, float32 that becomes float64"):
        unpack(Packed(packed.kind, packed.plain.replace("0:bfloat16>float64", named), tensors))
