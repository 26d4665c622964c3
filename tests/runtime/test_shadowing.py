"""A method on a shadow model does what it does on the path: the class goes, the rest stays, the model given stays as it was."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fedunlearn.data import Exclusions, Rows, open_rows
from fedunlearn.evaluation import Effort, Gate, accuracy
from fedunlearn.evaluation.outputs import mean_loss
from fedunlearn.lineage import Request
from fedunlearn.methods import make
from fedunlearn.methods.base import Strength
from fedunlearn.methods.menu import code_of
from fedunlearn.nets import build, head_of, load, weights_of
from fedunlearn.runtime import Family, InProcess, unlearn
from fedunlearn.runtime.place import shadowing
from fedunlearn.runtime.place.shadowing import forgetting
from fedunlearn.runtime.tasks import Audit
from fedunlearn.scenario import train, workers
from fedunlearn.tensors import Head, Tensors, equal
from fedunlearn.training import Portion, Recipe, fit
from tests.scenario.digits import scenario


@pytest.fixture(scope="module")
def known() -> tuple[nn.Module, Rows]:
    rows = open_rows("digits")
    recipe = Recipe("shadow", "here", (), rows.classes, 6, 0.1, 32, 0)
    net = fit(
        build({"name": "mlp", "hidden": 32}, (8, 8), 10, 0),
        [Portion("here", "main", rows.take(range(1200)), Exclusions({}))],
        recipe,
    )
    return net, rows


@pytest.mark.parametrize(
    ("method", "strength"),
    [("fiun", {"alpha": 1.0, "lam": 0.1}), ("steer", {"factor": 1.3}), ("logit_mask", {}), ("fine_tune", {"epochs": 1.0})],
)
def test_a_shadow_forgets(method: str, strength: Strength, known: tuple[nn.Module, Rows]) -> None:
    net, rows = known
    head, before = head_of(net, rows.classes), {n: t.clone() for n, t in weights_of(net).items()}
    train, test = rows.take(range(1200)), rows.take(range(1200, len(rows)))
    settings: dict[str, Any] = {"layers": "last"} if method == "fiun" else {}
    unlearn = forgetting(make(method, settings), strength, head, ("0",))
    edited = unlearn(net, train.of(["0"]), train.without(["0"]), test).eval()
    assert equal(weights_of(net), before)
    assert (accuracy(net, test.of(["0"])) or 0) > 0.9
    assert (accuracy(edited, test.without(["0"])) or 0) > (accuracy(net, test.without(["0"])) or 0) - 0.1
    if method != "fine_tune":
        assert (accuracy(edited, test.of(["0"])) or 0) < 0.2
    assert not any(torch.isnan(t).any() for t in weights_of(edited).values())


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("fiun", {"alpha": 2.0, "lam": 0.1}),
        ("ssd", {"alpha": 2.0, "lam": 0.1}),
        ("lfssd", {"alpha": 2.0, "lam": 0.1}),
        ("fisher_mask", {"ratio": 0.02}),
        ("activation_mask", {"ratio": 0.05}),
        ("fisher_noise", {"scale": 1e-7}),
        ("steer", {"factor": 1.3}),
        ("rewrite", {}),
    ],
)
def test_a_shadow_is_edited_as_the_heir_was(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """Weighed on the same rows, with the strength that the path took."""
    plain = scenario({"base": {"born": "incremental", "site": "a", "epochs": 6}})
    family = train(plain, tmp_path / "family")
    here = workers(plain, family)
    worker, (head, before) = here["a"], _read(family, "base")
    rows = worker.data.training("main").for_head(head.classes)  # before some may not be read any more
    gate = Gate(forgotten_at_most=1, retained_drop_at_most=1)
    record = unlearn(family, Request(("3",)), make(name, settings), InProcess(here, simulation=True), gate)
    (row,) = record.facts["models"]
    assert row["status"] == "committed"
    net = load(worker.make_net(len(head.classes), ""), before).eval()
    held = worker.data.held_out["calibration"].for_head(head.classes)
    edited = forgetting(make(name, settings), row["strength"], head, ("3",))(net, rows.of(["3"]), rows.without(["3"]), held)
    found, expected = weights_of(edited), _read(family, "base")[1]
    assert not equal(expected, before)
    for n, t in expected.items():
        torch.testing.assert_close(found[n], t, rtol=1e-4, atol=1e-5, msg=f"{name}: {n}")


def _read(family: Family, model: str) -> tuple[Head, Tensors]:
    found = family.store("a").read(family.heads[model])
    return found.head, found.weights


def test_a_shadow_is_steered_off_samples_as_far_as_rows_it_never_saw_say(known: tuple[nn.Module, Rows]) -> None:
    net, rows = known
    head, train = head_of(net, rows.classes), rows.take(range(1200))
    forget, keep, held = train.take(range(60)), train.take(range(60, 1200)), rows.take(range(1200, len(rows)))
    learnt, other = mean_loss(net, forget) or 0.0, mean_loss(net, held.of(forget.counts())) or 0.0
    edited = forgetting(make("steer"), {"factor": 1.0}, head, ())(net, forget, keep, held).eval()
    assert learnt < other
    assert learnt < (mean_loss(edited, forget) or 0.0) < 2 * other
    same = forgetting(make("steer"), {"factor": 1.0}, head, ())(net, forget, keep, forget).eval()
    assert equal(weights_of(same), weights_of(net))  # no worse on rows that it never saw: nothing is to be moved


MINE = """
from fedunlearn.methods.logit_mask import LogitMask

class Mine(LogitMask):
    name = "mine"
"""


def test_shadows_forget_by_a_method_of_ones_own_if_it_is_still_the_one_that_edited_the_heir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine_of_shadows.py"
    file.write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(shadowing, "train_shadows", lambda *_: "a pool")
    recipe = Recipe("shadow", "here", (), ("0", "1"), 1, 0.1, 32, 0)
    parts = {"forgotten_training": [1, 2], "others": [1, 2]}
    rows: Any = SimpleNamespace(parts=parts, population=None, population_without=None, classes=("0",), gone=())
    name, text = "mine_of_shadows:Mine", code_of(make("mine_of_shadows:Mine"))["text"]

    def effort(**given: Any) -> Effort:
        audit = Audit(recipe, 2, **given)
        return shadowing.audit_effort(audit, rows, Head("head", ("0", "1")), lambda: nn.Linear(2, 2), tmp_path, "cpu")

    assert effort(method=name, text=text).unlearn is not None
    assert effort(method="logit_mask").unlearn is not None
    file.write_text(f"{MINE}# changed\n")
    for given, why in (
        ({"method": name, "text": text}, f"the files of {name} here are others now"),
        ({"method": "gone_of_shadows:Mine", "text": text}, "importing 'gone_of_shadows' failed"),
        ({}, "the ledger does not say which code edited the model"),
    ):
        found = effort(**given)
        assert found.unlearn is None
        assert why in found.why
