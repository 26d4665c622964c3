"""Rows that are still there are known again: by the same keys, in the same parts, whatever else became of the set."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st

from fedunlearn.data import Rows, held_out, shard
from fedunlearn.data.register import Recalled, Register
from fedunlearn.errors import InputError, StoreError

N = 24
NAMES = tuple(f"p{i:02}" for i in range(N))


def rows(named: bool = False, classes: Sequence[str] = "abc") -> Rows:
    """Some inputs are there twice."""
    x = torch.arange(N).div(2, rounding_mode="floor").float()[:, None].repeat(1, 2)
    return Rows(x, torch.arange(N) // 2 % len(classes), NAMES if named else tuple(map(str, range(N))), tuple(classes))


def as_read(of: Rows, order: Sequence[int]) -> Rows:
    """Some of the rows, in some order, as a file gives them: without names, under their positions of now."""
    found = of.take(order)
    return Rows(found.x, found.y, found.keys if of.keys == NAMES else tuple(map(str, range(len(found)))), found.classes)


def parts(of: Rows, gone: frozenset[str] = frozenset()) -> dict[str, list[str]]:
    train, calibration, test = held_out(of, 0.2, 0.3, 7)
    dealt = {**shard(train, ("north", "south"), seed=3), "calibration": calibration, "test": test}
    return {name: [k for k in part.keys if k not in gone] for name, part in dealt.items()}


def inputs(found: Recalled) -> dict[str, list[float]]:
    return {k: x.tolist() for k, x in zip(found.rows.keys, found.rows.x, strict=True) if k not in found.gone}


@given(st.permutations(range(N)), st.integers(1, N), st.booleans())
def test_rows_that_are_left_keep_their_keys_and_their_parts(order: list[int], left: int, named: bool) -> None:
    before = rows(named)
    found = Register.of(before).recall(as_read(before, order[:left]), "here")
    assert (found.new, len(found.gone)) == (0, N - left)
    assert torch.equal(found.rows.y, before.y)
    assert found.rows.keys == before.keys
    was = inputs(Recalled(before))
    assert all(was[k] == x for k, x in inputs(found).items())
    assert parts(found.rows, found.gone) == parts(before, found.gone)
    if named:
        assert found.gone == set(NAMES) - {NAMES[i] for i in order[:left]}


@given(st.integers(0, 5), st.integers(0, N))
def test_rows_that_have_come_are_counted_and_left_out(new: int, at: int) -> None:
    before = rows()
    x = torch.cat([before.x[:at], torch.full((new, 2), -1.0), before.x[at:]])
    y = torch.cat([before.y[:at], torch.zeros(new, dtype=torch.int64), before.y[at:]])
    found = Register.of(before).recall(Rows(x, y, tuple(map(str, range(len(y)))), before.classes), "here")
    assert (found.new, found.gone) == (new, frozenset())
    assert torch.equal(found.rows.x, before.x)
    assert found.rows.keys == before.keys


@given(st.permutations(range(N)), st.integers(1, N))
def test_numbers_that_are_names_keep_naming_their_rows_in_any_order(order: list[int], left: int) -> None:
    """As a data base gives them; of rows with one input the one that is gone is the one whose number is gone."""
    plain = rows()
    numbers = tuple(str(1000 + 3 * i) for i in range(N))
    before = Rows(plain.x, plain.y, numbers, plain.classes)
    for first, then in ((before, before.take(order[:left])), (before.take(order), before.take(sorted(order[:left])))):
        found = Register.of(first).recall(then, "here")
        assert found.new == 0
        assert found.gone == set(numbers) - set(then.keys)
        was = inputs(Recalled(first))
        assert all(was[k] == x for k, x in inputs(found).items())


def test_a_class_that_is_gone_leaves_the_others_their_outputs() -> None:
    before = rows()
    rest = before.without(["a"]).for_head("bc")
    found = Register.of(before).recall(as_read(rest, range(len(rest))), "here")
    assert found.rows.classes == before.classes
    assert found.gone == {k for k, label in zip(before.keys, before.labels, strict=True) if label == "a"}


def test_names_go_before_inputs_but_not_before_classes() -> None:
    before = rows(named=True)
    changed = Rows(before.x + 1, before.y, before.keys, before.classes)
    found = Register.of(before).recall(changed, "here")
    assert (found.new, found.gone) == (0, frozenset())
    assert torch.equal(found.rows.x, changed.x)
    y = before.y.clone()
    y[3] = (y[3] + 1) % 3
    relabelled = Register.of(before).recall(Rows(before.x, y, before.keys, before.classes), "here")
    assert (relabelled.new, relabelled.gone) == (1, {NAMES[3]})


def test_another_set_is_refused() -> None:
    before = rows()
    with pytest.raises(InputError, match="here: none of the 24 rows is one of the 24 that models were trained on"):
        Register.of(before).recall(Rows(before.x + 100, before.y, before.keys, before.classes), "here")
    empty = Register.of(before).recall(Rows.empty("abc"), "here")
    assert len(empty.gone) == N


@pytest.mark.parametrize("named", [False, True])
def test_of_an_erased_row_nothing_is_kept_and_it_is_new_when_it_comes_back(named: bool, tmp_path: Path) -> None:
    before = rows(named)
    register = Register.of(before).without([before.keys[5]])
    twins = Register.of(before).marks.count(Register.of(before).marks[5]) - 1  # whose input is the same, and who are not erased
    assert register.to_bytes().count(Register.of(before).marks[5].encode()) == twins
    assert not named or NAMES[5].encode() not in register.to_bytes()
    (tmp_path / "main.json").write_bytes(register.to_bytes())
    found = Register.read(tmp_path / "main.json").recall(before, "here")
    assert found.new == len(found.gone) == 1
    assert parts(found.rows, found.gone) == parts(before, frozenset([before.keys[5]]))


@pytest.mark.parametrize("damage", [b"{", b"", b'{"named": true}'])
def test_a_damaged_register_is_no_register(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "main.json"
    path.write_bytes(damage or Register.of(rows()).to_bytes().replace(b'"a"', b'"z"'))
    with pytest.raises(StoreError, match=r"main.json: not a register of rows .* take it from a backup"):
        Register.read(path)
