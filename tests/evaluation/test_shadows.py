"""A pool is trained once, goes on where it stopped, and is named by what it is made from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedunlearn.data import Rows
from fedunlearn.errors import InputError, StoreError
from fedunlearn.evaluation.shadows import train_shadows
from fedunlearn.nets import weights_of
from fedunlearn.tensors import equal
from tests.evaluation.conftest import CLASSES, RECIPE, Known, make

SHORT = replace(RECIPE, epochs=1)


def few(known: Known) -> Rows:
    return known.retained.take(range(40))


def test_every_row_is_in_half_of_the_models_whatever_rows_are_beside_it(by_sample: Known, tmp_path: Path) -> None:
    pool = train_shadows(tmp_path, few(by_sample), make, SHORT, 8)
    assert pool.inside.sum(0).tolist() == [4] * 40
    assert 8 < int(pool.inside[0].sum()) < 32
    other = train_shadows(tmp_path, few(by_sample).take(range(10, 40)), make, SHORT, 8)
    assert torch.equal(other.inside, pool.inside[:, 10:])


def test_a_pool_is_trained_once_grows_and_goes_on_after_a_crash(by_sample: Known, tmp_path: Path) -> None:
    said: list[str] = []
    small = train_shadows(tmp_path, few(by_sample), make, SHORT, 4, said.append)
    assert len(said) == 4
    train_shadows(tmp_path, few(by_sample), make, SHORT, 4, said.append)
    assert len(said) == 4
    big = train_shadows(tmp_path, few(by_sample), make, SHORT, 6, said.append)
    assert said[4:] == ["shadow 5 of 6: training", "shadow 6 of 6: training"]
    assert torch.equal(big.inside[:4], small.inside)
    before = weights_of(big.net(2))
    next(big.folder.glob("002*")).unlink()
    with pytest.raises(StoreError, match=r"002\.safetensors: not a readable shadow model"):
        big.net(2)
    train_shadows(tmp_path, few(by_sample), make, SHORT, 6, said.append)
    assert said[6:] == ["shadow 3 of 6: training"]
    assert equal(weights_of(big.net(2)), before)


def test_another_recipe_row_or_net_is_another_pool(by_sample: Known, tmp_path: Path) -> None:
    rows = few(by_sample)
    changed = replace(rows, x=rows.x + 1)
    pools = [
        train_shadows(tmp_path, rows, make, SHORT, 4),
        train_shadows(tmp_path, rows, make, replace(SHORT, lr=0.01), 4),
        train_shadows(tmp_path, changed, make, SHORT, 4),
        train_shadows(tmp_path, rows, lambda seed: make(seed + 1), SHORT, 4),
    ]
    assert len({p.folder for p in pools}) == 4
    named = replace(SHORT, name="other", home="there", parents=("x",))  # which changes no weight
    assert train_shadows(tmp_path, rows, make, named, 4).folder == pools[0].folder


def test_each_model_forgets_the_targets_it_was_trained_on_and_no_other(by_sample: Known, tmp_path: Path) -> None:
    rows, asked = few(by_sample), []
    pool = train_shadows(tmp_path, rows, make, SHORT, 4)
    targets = rows.take([3, 1, 7])

    def unlearn(net: torch.nn.Module, forget: Rows, keep: Rows, held: Rows) -> torch.nn.Module:
        asked.append((set(forget.keys), set(keep.keys), set(held.keys)))
        return net

    margins, inside = pool.margins(targets, unlearn)
    assert margins.shape == inside.shape == (4, 3)
    for k, (forget, keep, held) in enumerate(asked):
        trained = {key for key, there in zip(rows.keys, pool.inside[k].tolist(), strict=True) if there}
        assert forget == trained & set(targets.keys)
        assert keep == trained - set(targets.keys)
        assert held == set(rows.keys) - trained - set(targets.keys)
        assert [key in trained for key in targets.keys] == inside[k].tolist()


def test_what_no_pool_can_be_is_refused(by_sample: Known, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="5 models, expected an even number of 4 or more"):
        train_shadows(tmp_path, few(by_sample), make, SHORT, 5)
    with pytest.raises(InputError, match="the recipe's head is"):
        train_shadows(tmp_path, few(by_sample), make, replace(SHORT, head=CLASSES[:3]), 4)
    pool = train_shadows(tmp_path, few(by_sample), make, SHORT, 4)
    with pytest.raises(InputError, match="1 rows are not in the pool"):
        pool.margins(by_sample.test.take([0]))
