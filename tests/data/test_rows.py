"""Rows keep their keys; splits and shards are disjoint and complete by construction."""

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, strategies as st

from fedunlearn.data import SHARDINGS, Exclusions, Rows, Selection, SiteData, held_out, shard
from fedunlearn.errors import ExcludedError, InputError, StoreError
from fedunlearn.plain import stamped

CLASSES = ("a", "b", "c")


def rows(labels: list[int]) -> Rows:
    return Rows(torch.zeros(len(labels), 2), torch.tensor(labels, dtype=torch.int64),
                tuple(f"k{i}" for i in range(len(labels))), CLASSES)  # fmt: skip


labels = st.lists(st.integers(0, 2), max_size=60)


def test_inputs_whose_sum_overflows_are_finite_all_the_same() -> None:
    huge = torch.full((4, 1), torch.finfo(torch.float32).max)
    assert len(Rows(huge, torch.zeros(4, dtype=torch.int64), tuple("abcd"), CLASSES)) == 4
    huge[3] = float("inf")
    with pytest.raises(InputError, match="inputs are NaN or infinite"):
        Rows(huge, torch.zeros(4, dtype=torch.int64), tuple("abcd"), CLASSES)


@given(labels, st.floats(0, 0.5), st.floats(0, 0.5), st.integers(0, 9))
def test_train_calibration_and_test_are_apart_and_complete(of: list[int], a: float, b: float, seed: int) -> None:
    parts = held_out(rows(of), a, b, seed)
    keys = [k for p in parts for k in p.keys]
    assert sorted(keys) == sorted(rows(of).keys)


@given(labels, st.sampled_from(SHARDINGS), st.integers(0, 9), st.lists(st.sampled_from(CLASSES), unique=True))
def test_shards_are_disjoint_and_honour_without(of: list[int], how: str, seed: int, lacks: list[str]) -> None:
    dealt = shard(rows(of), ("x", "y", "z"), how, seed=seed, without={"x": lacks})
    keys = [k for p in dealt.values() for k in p.keys]
    assert sorted(keys) == sorted(rows(of).keys)
    assert not set(dealt["x"].counts()) & set(lacks)


@given(labels, st.integers(0, 9))
def test_iid_is_even_and_by_label_is_not_mixed(of: list[int], seed: int) -> None:
    even = shard(rows(of), ("x", "y", "z"), "iid", seed=seed)
    for c in CLASSES:
        counts = [p.counts().get(c, 0) for p in even.values()]
        assert max(counts) - min(counts) <= 1
    for c in CLASSES:
        assert sum(c in p.counts() for p in shard(rows(of), ("x", "y"), "by_label", seed=seed).values()) <= 1


def test_splits_are_the_same_for_the_same_seed_and_differ_for_another() -> None:
    of = rows([0, 1, 2] * 20)
    assert held_out(of, 0.2, 0.3, 1)[2].keys == held_out(of, 0.2, 0.3, 1)[2].keys
    assert held_out(of, 0.2, 0.3, 1)[2].keys != held_out(of, 0.2, 0.3, 2)[2].keys


def test_rows_for_a_head_are_labelled_by_name() -> None:
    found = rows([0, 1, 2, 1]).for_head(("c", "b"))
    assert found.y.tolist() == [1, 0, 1]
    assert found.keys == ("k1", "k2", "k3")


@pytest.mark.parametrize(
    ("x", "y", "keys", "message"),
    [
        (torch.zeros(2, 1), torch.tensor([0]), ("a",), "2 inputs, 1 labels and 1 keys"),
        (torch.zeros(2, 1), torch.tensor([0, 0]), ("a", "a"), "sample keys repeat"),
        (torch.zeros(1, 1), torch.tensor([5]), ("a",), "labels run from 5 to 5, but there are 3 classes"),
        (torch.full((1, 1), float("nan")), torch.tensor([0]), ("a",), "inputs are NaN or infinite"),
    ],
)
def test_wrong_rows_are_refused(x: torch.Tensor, y: torch.Tensor, keys: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Rows(x, y, keys, CLASSES)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"how": "idd"}, "unknown sharding 'idd'; did you mean 'iid'"),
        ({"without": {"xx": ["a"]}}, "data.without: unknown site 'xx'; did you mean 'x'"),
        ({"without": {"x": ["aa"]}}, "data.without.x: unknown class 'aa'; did you mean 'a'"),
        ({"concentration": 0.0}, "concentration is 0.0, expected above 0"),
    ],
)
def test_wrong_shardings_are_refused(asked: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        shard(rows([0, 1]), ("x", "y"), seed=0, **asked)  # type: ignore[arg-type]


def test_excluded_rows_are_left_out_by_the_loader_and_refused_by_the_guard() -> None:
    excluded = Exclusions({"r-1": Selection(classes=("a",)), "r-2": Selection(samples=("main/k3",))})
    site = SiteData("north", {"main": rows([0, 1, 2, 1])}, {}, lambda: excluded)
    assert site.training("main").keys == ("k1", "k2")
    assert site.training("main", ("b",)).keys == ("k1",)
    assert site.all("main").keys == ("k0", "k1", "k2", "k3")
    excluded.check("main", site.training("main"))
    with pytest.raises(ExcludedError, match=r"training on 1 excluded rows of shard 'main' .*'k0'.* request r-1"):
        excluded.check("main", site.all("main"))


def test_an_empty_selection_is_all_rows_and_another_shard_is_none_of_them() -> None:
    assert Exclusions({"r": Selection()}).keep("main", rows([0, 1])).keys == ()
    assert Exclusions({"r": Selection(samples=("other/k0",))}).keep("main", rows([0, 1])).keys == ("k0", "k1")


def test_selected_rows_must_exist() -> None:
    site = SiteData("north", {"main": rows([0, 1])})
    assert site.selected("main", Selection(samples=("main/k1",))).keys == ("k1",)
    with pytest.raises(InputError, match=r"unknown sample .north/main/k9.; north/main has 2 rows"):
        site.selected("main", Selection(samples=("main/k9",)))
    with pytest.raises(InputError, match="unknown shard 'man'; did you mean 'main'"):
        site.all("man")
    for called in ("k9", "main/k9"):  # by its set, where there are several
        held = replace(rows([0]), keys=(called,))
        tested = SiteData("north", {"main": rows([0, 1])}, held_out={"test": held})
        with pytest.raises(InputError, match=r"sample 'north/main/k9' is held out, for test: no model was trained on it"):
            tested.selected("main", Selection(samples=("main/k9",)))


def test_a_damaged_mirror_stops_training(tmp_path: Path) -> None:
    path = tmp_path / "place.json"
    whole = stamped({"exclusions": {"r": {"classes": ["a"], "samples": []}}})
    path.write_bytes(whole)
    assert Exclusions.read(path).by_request == {"r": Selection(("a",))}
    for damaged in (whole[:40], whole.replace(b'"a"', b'"b"')):
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=r"not a mirror of the ledger .* run `fedunlearn settle` before training"):
            Exclusions.read(path)


@given(labels, st.lists(st.sampled_from(CLASSES), unique=True), st.integers(0, 9), st.randoms())
def test_rows_are_picked_as_a_plain_loop_would(of: list[int], some: list[str], n: int, chance: Random) -> None:
    whole = rows(of)
    named = [CLASSES[i] for i in of]
    assert whole.labels == tuple(named)
    assert whole.counts() == {c: named.count(c) for c in CLASSES if c in named}
    assert whole.of(some).keys == tuple(f"k{i}" for i, c in enumerate(named) if c in some)
    assert whole.without(some).keys == tuple(f"k{i}" for i, c in enumerate(named) if c not in some)
    order = chance.sample(range(len(of)), len(of) // 2)
    assert whole.take(order).keys == tuple(f"k{i}" for i in order)
    assert whole.take(order).y.tolist() == [of[i] for i in order]
    headed = whole.for_head((*some, "new"))
    assert [(k, (*some, "new")[j]) for k, j in zip(headed.keys, headed.y.tolist(), strict=True)] == [
        (f"k{i}", c) for i, c in enumerate(named) if c in some
    ]
    assert whole.first(n).keys == tuple(f"k{i}" for i, c in enumerate(named) if named[:i].count(c) < n)


@given(labels, st.lists(st.sampled_from((*CLASSES, "d"))), st.lists(st.sampled_from(("main/k0", "main/k7", "m/k1", "k2"))))
def test_selections_pick_as_a_plain_loop_would(of: list[int], some: list[str], samples: list[str]) -> None:
    whole = rows(of)
    picked = Selection(tuple(some), tuple(samples)).picks("main", whole)
    assert picked == [
        i
        for i, (key, label) in enumerate(zip(whole.keys, whole.labels, strict=True))
        if (f"main/{key}" in samples if samples else not some or label in some)
    ]
