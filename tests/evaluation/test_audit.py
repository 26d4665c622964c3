"""The audit tells doing nothing from retraining and convicts forgetting too much; retraining it acquits."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedunlearn.data import Rows
from fedunlearn.data.rows import joined
from fedunlearn.evaluation import Material
from fedunlearn.evaluation.shadows import Shadows, Unlearn, train_shadows
from fedunlearn.evaluation.tiers import evaluate
from fedunlearn.evaluation.trial import Effort, Nets, Trial
from tests.evaluation.conftest import RECIPE, Known, learn, make, material, spoil


def test_the_audit_separates_doing_nothing_from_retraining(by_sample: Known, shadows: Shadows) -> None:
    effort = Effort(shadows=shadows)
    found = evaluate(
        "audit", Nets(by_sample.head, by_sample.before, by_sample.before, by_sample.retrained), material(by_sample, ()), effort
    )
    of = found["metrics"]["ulira"]
    assert of["attack"] == "LiRA (shadow models not unlearned: weaker)"
    assert (of["shadows"], of["variance"]) == (24, "shared by all rows")
    assert of["after"] == of["before"]
    assert of["after"]["auc"]["low"] > 0.9
    assert of["retrained"]["auc"]["low"] < 0.5 < of["retrained"]["auc"]["high"]
    assert of["after"]["tpr"]["0.001"].startswith("not resolvable: ")
    json.dumps(found, allow_nan=False)


def test_the_audit_unlearns_the_shadows_by_the_method_under_test(by_sample: Known, shadows: Shadows) -> None:
    said: list[str] = []
    effort = Effort(shadows=shadows, unlearn=spoil)
    of = evaluate(
        "audit", Nets(by_sample.head, by_sample.before, by_sample.ruined), material(by_sample, ()), effort, said.append
    )
    assert of["metrics"]["ulira"]["attack"] == "U-LiRA"
    assert of["metrics"]["ulira"]["before"]["auc"]["low"] > 0.9  # judged by shadows that forgot nothing
    assert of["metrics"]["ulira"]["after"]["auc"]["low"] > 0.6
    assert sum("unlearning" in s for s in said) == len(shadows)


def audited(known: Known, shadows: Shadows, folder: Path, after: torch.nn.Module, unlearn: Unlearn) -> dict[str, Any]:
    rows = material(known, ())
    innocents = train_shadows(folder, rows.population_without, make, RECIPE, 8)
    assert not set(innocents.rows.keys) & set(known.forgotten.keys)
    effort = Effort(shadows=shadows, unlearn=unlearn, innocents=innocents)
    found = evaluate("audit", Nets(known.head, known.before, after, known.retrained), rows, effort)
    json.dumps(found, allow_nan=False)
    return found["metrics"]  # type: ignore[no-any-return]


def test_the_audit_compares_with_models_that_never_saw_it(by_sample: Known, shadows: Shadows, tmp_path: Path) -> None:
    """Doing nothing is told from retraining; a retrained model from another is not."""
    nothing = audited(by_sample, shadows, tmp_path, by_sample.before, lambda net, forget, keep, held: net)
    assert nothing["ulira_from_retrained"]["after"]["auc"]["low"] > 0.9
    for control in ("retrained", "retrained_2", "retrained_3"):
        auc = nothing["ulira_from_retrained"][control]["auc"]
        assert auc["low"] < 0.5 < auc["high"]
    assert nothing["klom"]["edited"]["p50"] > nothing["klom"]["innocents_to_innocents"]["p50"]
    assert (nothing["klom"]["models"], nothing["klom"]["innocents"]) == (12, 8)


@pytest.mark.slow
def test_the_audit_acquits_retraining_and_convicts_forgetting_too_much(
    by_sample: Known, shadows: Shadows, tmp_path: Path
) -> None:
    again = audited(
        by_sample, shadows, tmp_path, by_sample.retrained[1], lambda net, forget, keep, held: learn(keep, len(forget))
    )
    assert again["ulira_from_retrained"]["after"]["auc"]["low"] < 0.5 < again["ulira_from_retrained"]["after"]["auc"]["high"]
    over = audited(by_sample, shadows, tmp_path, by_sample.ruined, spoil)
    assert over["ulira_from_retrained"]["after"]["auc"]["low"] > 0.6
    assert over["klom"]["edited"]["p50"] > again["klom"]["edited"]["p50"]


def test_shadows_forget_as_many_others_as_samples_and_keep_something(by_sample: Known, by_class: Known) -> None:
    """Of a class all others; of samples as many; where nothing else was trained on, calibration rows are kept."""

    def peers(known: Known, rows: Material) -> Rows:
        return Trial(Nets(known.head, known.before, known.before), rows, Effort(), lambda _: None).parts["peers"]

    whole, some = material(by_class, ("0",)), material(by_sample, ())
    assert peers(by_class, whole).keys == whole.parts["others"].keys
    assert len(peers(by_sample, some)) == len(some.forgotten) < len(some.parts["others"])
    site = replace(some, forgotten=joined([some.forgotten, some.retained]), retained=some.retained.take([]))
    assert set(peers(by_sample, site).keys) <= set(site.test.keys)
