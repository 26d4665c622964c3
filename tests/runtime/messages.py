"""Every kind of message, drawn at random: any text, number, shape and bit that it may hold."""

import math
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from fedunlearn.data import Selection
from fedunlearn.evaluation import Scores
from fedunlearn.importance import Importance
from fedunlearn.methods import Evidence
from fedunlearn.runtime.codec import DTYPES
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
FRACTIONS = st.none() | st.floats(0, 1)
SCORES = st.builds(Scores, FRACTIONS, FRACTIONS, WHOLE, WHOLE, st.dictionaries(TEXT, FRACTIONS, max_size=2))
FETCHED = st.builds(Fetched, NAMED, HEADS, TEXT)
EVIDENCE = st.builds(Evidence, NAMED, WHOLE, TEXT, st.none() | st.floats(0, 1e300))
LOTS = st.lists(st.builds(Lot, TEXT, TEXT, SELECTIONS), max_size=2).map(tuple)
SHARDS = st.lists(st.tuples(TEXT, NAMES), max_size=2).map(tuple)
PARTS = st.lists(st.tuples(TEXT, NAMES, NAMES), max_size=2).map(tuple)
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
        *(TEXT, NAMES),
    ),
    Measured: st.builds(Measured, TEXT, importances(), WHOLE, MAYBE),
    Deposit: st.builds(Deposit, TEXT, TEXT, TEXT, st.none() | FETCHED),
    Deposited: st.builds(Deposited, TEXT, WHOLE),
    Score: st.builds(Score, TEXT, TEXT, QUESTIONS, PARTS, st.none() | FETCHED),
    Scored: st.builds(Scored, TEXT, HEADS, SHAPES, SCORES, SCORES, WHOLE),
    Apply: st.builds(
        Apply,
        *(TEXT, TEXT, TEXT, SETTINGS, st.lists(EVIDENCE, max_size=2).map(tuple), st.none() | EVIDENCE, PARTS, QUESTIONS),
        *(SCORES, st.none() | SCORES, st.tuples(NUMBER, NUMBER), LOTS, LOTS),
    ),
    Applied: st.builds(Applied, TEXT, TEXT, st.none() | STRENGTHS, TEXT, CURVES, SCORES, st.none() | SCORES, WHOLE, WHOLE),
    Evaluate: st.builds(
        Evaluate,
        *(TEXT, TEXT, TEXT, TEXT, QUESTIONS, SHARDS, NAMES, st.dictionaries(TEXT, FETCHED, max_size=2)),
        st.none() | st.builds(Audit, RECIPES, WHOLE, TEXT, SETTINGS, STRENGTHS, TEXT),
    ),
    Evaluated: st.builds(Evaluated, TEXT, TEXT, SETTINGS),
    Commit: st.builds(
        Commit, TEXT, st.dictionaries(TEXT, TEXT, max_size=2), st.dictionaries(TEXT, SELECTIONS, max_size=2), NAMES
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
