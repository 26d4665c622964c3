"""What open questions use of their own: the whole Fisher and what it masks, a transformer, classes of unequal size."""

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from fedunlearn.importance import measure
from fedunlearn.importance.reference import loop
from fedunlearn.nets import build, head_of
from tests.simulations.test_simulations import FOLDER


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the folders can be imported."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.syspath_prepend(FOLDER / "families")


def test_the_diagonal_of_the_whole_fisher_is_the_exact_one() -> None:
    net = build({"name": "mlp", "hidden": 6}, (8, 8), 3).eval()
    x, names = torch.rand(150, 8, 8), [n for n, p in net.named_parameters() if p.dim() == 2]
    exact = measure(net, x, None, head=head_of(net, "abc"), loss="own").mean("squares")
    whole = import_module("joint_mask").fisher(net, x, names)
    assert torch.allclose(whole, whole.T)
    assert torch.allclose(whole.diag(), torch.cat([exact[n].flatten() for n in names]), rtol=1e-4, atol=1e-12)
    assert float(torch.linalg.eigvalsh(whole).min()) > -1e-9


def test_the_transformer_is_measured_exactly() -> None:
    net = build({"factory": "open_nets:vit", "width": 8, "layers": 2}, (28, 28), 3).eval()
    x, y = torch.rand(5, 28, 28), torch.tensor([0, 1, 2, 0, 1])
    found = measure(net, x, y, head=head_of(net, "abc")).sums["squares"]
    exact = loop(net.double(), x.double(), y).sums["squares"]
    assert found.keys() == exact.keys()
    assert all(torch.allclose(found[n], exact[n], rtol=1e-3, atol=1e-9) for n in exact)


def test_each_weight_adds_most_to_what_is_chosen_already() -> None:
    greedy = import_module("joint_mask").greedy
    both = torch.tensor([[2.0, -1.9, 0.0], [-1.9, 1.9, 0.0], [0.0, 0.0, 0.5]])  # the first two undo one another
    assert greedy(both).tolist() == [0, 2]
    assert greedy(both.diag().diag()).tolist() == [0, 1, 2]
    some = torch.randn(30, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gain, chosen = some + some.T, list[int]()
    for best in greedy(gain).tolist():
        grown = {i: float(gain[[*chosen, i]][:, [*chosen, i]].sum()) for i in range(30) if i not in chosen}
        assert best == max(grown, key=lambda i: grown[i])
        chosen.append(best)
    assert 0 < len(chosen) < 30


def test_classes_are_of_unequal_size_in_what_is_trained_on_alone() -> None:
    sets = import_module("open_sets")
    counts = {p: torch.tensor(getattr(sets, f"unequal_{p}")("train")[1]).bincount() for p in (10, 100, 1000)}
    whole = counts[100]
    for percent in (10, 1000):
        others = counts[percent].double().index_select(0, torch.tensor([c for c in range(10) if c != 3])).mean()
        assert float(counts[percent][3] / others) == pytest.approx(percent / 100, rel=0.15)
        assert bool((counts[percent] <= whole).all())
    assert all((getattr(sets, f"unequal_{p}")("test")[1] == sets.wrong_0("test")[1]).all() for p in (10, 1000))


def test_a_result_is_kept_where_tables_find_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("common"), "RESULTS", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["open_questions.py", "--size", "test", "--question", "unequal", "--write"])
    import_module("open_questions").main()
    kept = json.loads((tmp_path / "open_unequal.json").read_text())
    answer = import_module("open_questions_answers").answer(kept)
    assert "| 300 % |" in answer
