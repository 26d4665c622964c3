"""Representations that are the same are found so; shares of Fisher information are never taken of a method's own rows."""

import pytest
import torch

from fedunlearn.errors import InputError
from fedunlearn.evaluation.alignment import cka, cka_by_layer, layer_outputs
from fedunlearn.evaluation.residual import fisher_residual
from fedunlearn.nets import build, load, weights_of
from tests.evaluation.conftest import FORGOTTEN, Known, make


def random(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(100, 8), (10, 40)])
def test_cka_is_blind_to_rotation_scale_and_shift_alone(shape: tuple[int, int]) -> None:
    x = random(*shape, 0)
    q = torch.linalg.qr(random(shape[1], shape[1], 1)).Q
    for same in (x, 3 * x @ q + 7):
        assert cka(x, same) == pytest.approx(1, abs=1e-6)
    stretched = x @ torch.diag(torch.tensor([30.0] + [1.0] * (shape[1] - 1), dtype=torch.float64))
    assert cka(x, stretched) < 0.9
    assert cka(x, stretched) == pytest.approx(cka(stretched, x), abs=1e-12)


def test_cka_of_few_rows_and_of_few_features_are_one_formula() -> None:
    x, y = random(30, 20, 2), random(30, 40, 3)
    a, b = x - x.mean(0), y - y.mean(0)
    by_features = float((b.T @ a).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm()))
    assert cka(x, y) == pytest.approx(by_features, abs=1e-6)
    assert cka(random(5000, 3, 4), random(5000, 3, 5)) < 0.01


def test_cka_by_layer_tells_the_unedited_from_the_retrained(by_class: Known) -> None:
    rows = by_class.test.of([FORGOTTEN])
    itself = cka_by_layer(by_class.before, by_class.before, rows)
    assert itself.keys() == {"body.1", "body.3", "head"}
    assert all(v == pytest.approx(1, abs=1e-6) for v in itself.values())
    masked = cka_by_layer(by_class.masked, by_class.before, rows)
    again = cka_by_layer(by_class.retrained[0], by_class.before, rows)
    for layer in ("body.1", "body.3"):  # below the mask nothing has changed
        assert masked[layer] == pytest.approx(1, abs=1e-6)
        assert again[layer] < 0.97  # type: ignore[operator]


def test_every_layer_is_seen_whatever_it_gives(by_class: Known) -> None:
    net = build({"name": "text_gru", "vocabulary": 50}, (6,), 3, 0).eval()
    ids = by_class.test.take(range(5))
    rows = type(ids)(torch.ones(5, 6), ids.y % 3, ids.keys, ("a", "b", "c"))
    found = layer_outputs(net, rows)
    assert {n: len(t) for n, t in found.items()} == {"words": 5, "cells": 5, "head": 5}
    assert cka_by_layer(net, net, rows) == {"words": None, "cells": None, "head": None}  # all rows are the same


def test_what_is_left_of_the_fisher_information(by_class: Known) -> None:
    rows, measured = by_class.test.of([FORGOTTEN]), by_class.forgotten.keys
    nothing = fisher_residual(by_class.before, by_class.before, rows, by_class.head, measured)
    assert all(v == pytest.approx(1, abs=1e-6) for v in nothing.values())
    weights = weights_of(by_class.before)
    weights["head.weight"] *= 0
    cut = load(make(0), weights).eval()
    found = fisher_residual(cut, by_class.before, rows, by_class.head, measured)
    assert found["body.1"] == found["body.3"] == 0  # no gradient comes down
    assert found["head"] > 0  # type: ignore[operator]
    assert fisher_residual(by_class.before, cut, rows, by_class.head, measured)["body.1"] is None


def test_a_retrained_model_is_unsure_of_the_class_and_has_more(by_class: Known) -> None:
    """So the share has no bound, and is read beside the retrained model's."""
    for loss in ("labels", "own"):
        share = fisher_residual(by_class.retrained[0], by_class.before, by_class.test.of([FORGOTTEN]), by_class.head, (), loss)
        assert all(v > 1 for v in share.values() if v is not None)


def test_circular_and_empty_comparisons_are_refused(by_class: Known) -> None:
    with pytest.raises(InputError, match="those that the method measured; take other rows"):
        fisher_residual(by_class.before, by_class.before, by_class.forgotten, by_class.head, by_class.forgotten.keys)
    with pytest.raises(InputError, match="0 of 0 rows"):
        fisher_residual(by_class.before, by_class.before, by_class.test.take([]), by_class.head, ())
    with pytest.raises(InputError, match="features of 3 and 4 rows"):
        cka(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(InputError, match="the same for all rows"):
        cka(torch.ones(3, 2), random(3, 2, 0))
    with pytest.raises(InputError, match="1 rows, expected two or more"):
        cka_by_layer(by_class.before, by_class.before, by_class.test.take([0]))
    with pytest.raises(InputError, match="no layer of the same name"):
        cka_by_layer(by_class.before, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), by_class.test)
