"""`unpack(pack(x)) == x`, to the bit, for all that can be asked and answered; and nothing else ever gets in."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedunlearn.data import Selection
from fedunlearn.evaluation import Scores
from fedunlearn.importance import Importance
from fedunlearn.methods import Evidence
from fedunlearn.runtime import codec
from fedunlearn.runtime.codec import DTYPES, KINDS, CodecError, Packed, pack, unpack
from fedunlearn.runtime.tasks import (
    Applied,
    Apply,
    Audit,
    Commit,
    Committed,
    Deposit,
    Deposited,
    Evaluate,
    Evaluated,
    Failure,
    Fetch,
    Fetched,
    Lot,
    Measure,
    Measured,
    Question,
    Score,
    Scored,
    Seal,
    Sealed,
    Survey,
    Surveyed,
    Train,
    Trained,
)
from fedunlearn.tensors import Head
from fedunlearn.training import Recipe

TEXT = st.text(max_size=6)
NAMES = st.tuples(TEXT, TEXT) | st.just(())
WHOLE = st.integers(0, 2**63 - 1)
NUMBER = st.floats() | st.integers(-(2**63), 2**63 - 1)
SHAPE = st.lists(st.integers(0, 3), max_size=3)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(TEXT, inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any bits at all of any dtype, NaNs and views that are not contiguous included."""
    shape, dtype = draw(SHAPE), DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
    size_of = math.prod(shape) * torch.empty((), dtype=dtype).element_size()
    data = bytearray(draw(st.binary(min_size=size_of, max_size=size_of)))
    if dtype == torch.bool:
        data = bytearray(b & 1 for b in data)
    flat = torch.frombuffer(data, dtype=dtype) if size_of else torch.empty(0, dtype=dtype)
    made = flat.reshape(shape)
    return made.t() if made.dim() == 2 and draw(st.booleans()) else made


@st.composite
def importances(draw: st.DrawFn) -> Importance:
    shapes = draw(st.dictionaries(TEXT, SHAPE, max_size=3))
    return Importance({"squares": {n: torch.rand(s, dtype=torch.float64) for n, s in shapes.items()}}, draw(WHOLE))


NAMED = st.dictionaries(TEXT, tensors(), max_size=3)
SELECTIONS = st.builds(Selection, NAMES, NAMES)
HEADS = st.builds(Head, TEXT, NAMES)
QUESTIONS = st.builds(Question, NAMES, st.dictionaries(TEXT, SELECTIONS, max_size=2), NAMES)
SCORES = st.builds(
    Scores, st.none() | NUMBER, st.none() | NUMBER, WHOLE, WHOLE, st.dictionaries(TEXT, st.none() | NUMBER, max_size=2)
)
FETCHED = st.builds(Fetched, NAMED, HEADS, TEXT)
EVIDENCE = st.builds(Evidence, NAMED, WHOLE, TEXT, st.none() | st.floats(0, 1e300))
LOTS = st.lists(st.builds(Lot, TEXT, TEXT, SELECTIONS), max_size=2).map(tuple)
SHARDS = st.lists(st.tuples(TEXT, NAMES), max_size=2).map(tuple)
STRENGTHS = st.dictionaries(TEXT, NUMBER, max_size=2)
SETTINGS = st.dictionaries(TEXT, PLAIN, max_size=3)
MAYBE = st.none() | NUMBER
CURVES = st.lists(st.tuples(STRENGTHS, MAYBE, MAYBE, NUMBER), max_size=2).map(tuple)
SHAPES = st.dictionaries(TEXT, SHAPE.map(tuple), max_size=3)
COUNTS = st.dictionaries(TEXT, WHOLE, max_size=2)
LEFT_OUT = st.dictionaries(TEXT, SELECTIONS, max_size=2)
RECIPES = st.builds(Recipe, TEXT, TEXT, NAMES, NAMES, WHOLE, NUMBER, WHOLE, WHOLE, TEXT, TEXT, TEXT)
MESSAGES: dict[type, st.SearchStrategy[Any]] = {
    Fetch: st.builds(Fetch, TEXT, TEXT),
    Fetched: FETCHED,
    Measure: st.builds(
        Measure,
        *(TEXT, TEXT, TEXT, TEXT, TEXT, st.none() | SELECTIONS, NAMES, st.none() | FETCHED, TEXT, NAMES, TEXT, SETTINGS, WHOLE),
    ),
    Measured: st.builds(Measured, TEXT, importances(), WHOLE, MAYBE),
    Deposit: st.builds(Deposit, TEXT, TEXT, TEXT, TEXT, st.none() | FETCHED),
    Deposited: st.builds(Deposited, TEXT, WHOLE),
    Score: st.builds(Score, TEXT, TEXT, QUESTIONS, SHARDS, st.none() | FETCHED),
    Scored: st.builds(Scored, TEXT, HEADS, SHAPES, SCORES, SCORES, WHOLE),
    Apply: st.builds(
        Apply,
        *(TEXT, TEXT, TEXT, SETTINGS, st.lists(EVIDENCE, max_size=2).map(tuple), st.none() | EVIDENCE, SHARDS, QUESTIONS),
        *(SCORES, MAYBE, st.tuples(NUMBER, NUMBER), LOTS, LOTS),
    ),
    Applied: st.builds(Applied, TEXT, TEXT, STRENGTHS, TEXT, CURVES, SCORES, st.none() | SCORES, WHOLE, WHOLE),
    Evaluate: st.builds(
        Evaluate,
        *(TEXT, TEXT, TEXT, TEXT, QUESTIONS, SHARDS, NAMES, st.dictionaries(TEXT, FETCHED, max_size=2)),
        st.none() | st.builds(Audit, RECIPES, WHOLE, TEXT, SETTINGS, STRENGTHS),
    ),
    Evaluated: st.builds(Evaluated, TEXT, TEXT, SETTINGS),
    Commit: st.builds(
        Commit, TEXT, st.dictionaries(TEXT, TEXT, max_size=2), st.dictionaries(TEXT, SELECTIONS, max_size=2), TEXT, WHOLE
    ),
    Committed: st.builds(Committed, TEXT),
    Seal: st.builds(Seal, TEXT, NAMES, LEFT_OUT, TEXT),
    Sealed: st.builds(Sealed, TEXT, WHOLE, WHOLE, WHOLE, WHOLE),
    Survey: st.builds(Survey, TEXT, NAMES, LEFT_OUT),
    Surveyed: st.builds(
        Surveyed,
        st.dictionaries(TEXT, COUNTS, max_size=2),
        st.dictionaries(TEXT, NAMES, max_size=2),
        SHAPE.map(tuple),
        COUNTS,
    ),
    Train: st.builds(
        Train,
        *(TEXT, RECIPES, TEXT, TEXT, NAMES, TEXT, NAMES, st.dictionaries(TEXT, FETCHED, max_size=2), NAMED, TEXT, LEFT_OUT),
        *(st.booleans(), st.booleans()),
    ),
    Trained: st.builds(Trained, TEXT, COUNTS, NAMED, HEADS),
    Failure: st.builds(Failure, TEXT, TEXT, st.booleans()),
}


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
