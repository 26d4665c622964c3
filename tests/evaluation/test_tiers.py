"""Every metric of a tier is taken or says why not; known nets land where the definitions say."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedunlearn.data import Exclusions, Rows, Selection, SiteData
from fedunlearn.data.rows import joined
from fedunlearn.errors import InputError, ShapeError
from fedunlearn.evaluation.backdoor import patch
from fedunlearn.evaluation.closeness import kl
from fedunlearn.evaluation.limits import judge_metrics
from fedunlearn.evaluation.material import Material
from fedunlearn.evaluation.outputs import logits
from fedunlearn.evaluation.relearn import Tuning
from fedunlearn.evaluation.tiers import METRICS, NEEDS, TIERS, costs, evaluate
from fedunlearn.evaluation.trial import Effort, Nets
from fedunlearn.nets import load, weights_of
from fedunlearn.tensors import Head
from tests.evaluation.conftest import CLASSES, FORGOTTEN, Known, make, material

EFFORT = Effort(tuning=Tuning(steps=60, lr=0.05, every=5))


def nets(known: Known, after: torch.nn.Module, seeds: int = 3) -> Nets:
    return Nets(known.head, known.before, after, known.retrained[:seeds], known.masked)


@pytest.fixture(scope="module")
def quick(by_class: Known) -> dict[str, Any]:
    """Over-forgotten as the candidate."""
    return evaluate("quick", nets(by_class, by_class.ruined), material(by_class))


@pytest.fixture(scope="module")
def full(by_class: Known) -> dict[str, Any]:
    rows = replace(material(by_class), trigger=patch((8, 8), "7"))
    return evaluate("full", nets(by_class, by_class.masked), rows, EFFORT)


def test_the_known_nets_land_where_the_quick_metrics_say(quick: dict[str, Any]) -> None:
    m = quick["metrics"]
    accuracy = {net: {part: e["value"] for part, e in of.items()} for net, of in m["accuracy"].items()}
    assert accuracy["before"]["forgotten"] > 0.7
    assert accuracy["before"]["forgotten_training"] == 1
    assert accuracy["mask"]["forgotten"] == accuracy["retrained"]["forgotten"] == 0
    floor, tow = m["average_gap"]["retrained_to_retrained"]["mean"], m["tow"]
    assert m["average_gap"]["mask"] < 0.05  # accuracies alone cannot tell it from a retrained model
    assert floor < 0.02 < m["average_gap"]["before"]
    assert m["average_gap"]["after"] > m["average_gap"]["before"]  # 0 % on the class, and worse than doing nothing
    assert tow["mask"] > 0.9 > tow["before"] > tow["after"]
    for part in ("forgotten", "retained", "test"):
        kl = m["kl_to_retrained"][part]
        assert kl["after"] > kl["retrained_to_retrained"]["mean"]
    assert m["kl_to_retrained"]["forgotten"]["before"] > 3 * m["kl_to_retrained"]["forgotten"]["retrained_to_retrained"]["mean"]
    assert m["completeness"]["forgotten"]["before"] < 0.3 < m["completeness"]["forgotten"]["retrained_to_retrained"]["mean"]
    assert m["jsd_to_retrained"]["test"]["mask"] < m["jsd_to_retrained"]["test"]["after"] < 0.7
    assert m["accuracy_by_class"]["mask"][FORGOTTEN]["value"] == 0
    assert m["accuracy_by_class"]["mask"].keys() == set(CLASSES)


def test_a_class_that_is_lost_besides_is_named_whatever_the_mean_says(by_class: Known) -> None:
    other = next(c for c in CLASSES if c != FORGOTTEN)
    lost = deepcopy(by_class.masked)
    with torch.no_grad():
        lost.get_parameter(by_class.head.names[1])[CLASSES.index(other)] = -1e4
    found = evaluate("quick", nets(by_class, lost), material(by_class))["metrics"]
    of = found["worst_class"]
    assert of.keys() == {"after", "mask", "retrained", "retrained_2", "retrained_3"}
    assert of["after"]["class"] == other
    before, after = (found["accuracy_by_class"][net][other]["value"] for net in ("before", "after"))
    assert after == 0
    assert of["after"]["fell"]["value"] == pytest.approx(before)
    assert of["after"]["fell"]["low"] > 0.3 > of["mask"]["fell"]["value"]
    wrong, untested = judge_metrics({"worst_class.after.fell": {"at_most": 0.2}}, "absent", {"quick": {
        "metrics": found, "not_measurable": {},
    }})  # fmt: skip
    assert untested == []
    assert "worst_class.after.fell is" in wrong[0]


def test_divergence_is_from_the_retrained_models_and_a_mean_over_them(by_class: Known, quick: dict[str, Any]) -> None:
    rows = by_class.test.of([FORGOTTEN])
    by_hand = [kl(logits(net, rows), logits(by_class.masked, rows)) for net in by_class.retrained]
    assert quick["metrics"]["kl_to_retrained"]["forgotten"]["mask"] == pytest.approx(sum(by_hand) / 3)
    other_way = kl(logits(by_class.masked, rows), logits(by_class.retrained[0], rows))
    assert abs(other_way - sum(by_hand) / 3) > 0.1


def test_the_known_nets_land_where_the_full_metrics_say(full: dict[str, Any]) -> None:
    m = full["metrics"]
    assert full["not_measurable"] == {}
    probe = m["probe"]
    assert probe["after"]["recovery"] == probe["before"]["recovery"]
    assert probe["after"]["by_class"] == {FORGOTTEN: probe["after"]["recovery"]}
    assert probe["after"]["above_retrained"]["low"] > 0
    assert probe["retrained_2"]["above_retrained"]["low"] < 0
    assert "above_retrained" not in probe["retrained"]
    assert m["prototypes"]["mask"]["above_retrained"]["value"] > 0
    assert m["cka"]["after"]["to_before"]["body.3"] == pytest.approx(1)
    assert m["cka"]["after"]["to_retrained"]["body.3"] < m["cka"]["retrained_2"]["to_retrained"]["body.3"] + 0.1
    assert m["fisher_residual"].keys() == {"after", "mask", "retrained", "retrained_2", "retrained_3"}
    assert m["relearn_retained"]["before"]["steps"] == 0
    assert m["relearn_retained"]["retrained"]["steps"] == "never reached in 60 steps"
    assert m["relearn_shots"]["before"]["ain"].startswith("below ")
    assert m["relearn_shots"]["retrained_2"]["ain"] == "neither came back in 60 steps"
    assert "ain" not in m["relearn_shots"]["retrained"]
    loss = {net: of["loss"]["auc"] for net, of in m["population_membership"].items()}
    assert loss["before"]["low"] > 0.5
    assert loss["retrained"]["low"] < 0.5 < loss["retrained"]["high"]
    assert m["population_membership"]["before"]["logistic"]["forgotten_called_members"]["value"] > 0.5
    assert m["backdoor"]["after"]["stamped"]["value"] < 0.5


def test_all_is_plain_data_and_every_metric_is_accounted_for(quick: dict[str, Any], full: dict[str, Any]) -> None:
    for found in (quick, full):
        json.dumps(found, allow_nan=False)
        assert found["metrics"].keys() | found["not_measurable"].keys() == costs(found["tier"]).keys()
        assert not found["metrics"].keys() & found["not_measurable"].keys()
        assert found["seconds"].keys() >= found["metrics"].keys()


@pytest.mark.parametrize("tier", TIERS)
def test_without_rows_and_models_the_reasons_are_given(by_class: Known, tier: str) -> None:
    nothing = Rows.empty(CLASSES)
    bare = Material((FORGOTTEN,), nothing, nothing, nothing, nothing)
    found = evaluate(tier, Nets(by_class.head, by_class.before, by_class.masked), bare)
    if tier == "quick":
        assert found["metrics"] == {}
        assert found["not_measurable"]["accuracy"] == "no rows are here"
        assert found["not_measurable"]["tow"] == "no retrained model was given; no rows are here"
    if tier == "full":
        assert found["metrics"] == {}
        assert found["not_measurable"]["probe"] == "no calibration rows of class 3, test rows of class 3 are here"
        assert found["not_measurable"]["backdoor"] == "nothing that is known of was planted; no held-out test rows are here"
    if tier == "audit":
        assert found["not_measurable"]["ulira"].startswith("no pool of shadow models was given; no training row of what is")


def test_a_home_that_only_inherited_the_class_is_judged_on_what_it_has(by_class: Known) -> None:
    """No training row of the class, no retrained model: probes and shots on held-out rows still tell."""
    heir = replace(material(by_class), forgotten=by_class.forgotten.take([]))
    found = evaluate("full", Nets(by_class.head, by_class.before, by_class.masked), heir, EFFORT)
    assert found["not_measurable"]["population_membership"].startswith(
        "no training row of what is forgotten here, expected two or more"
    )
    assert found["metrics"]["probe"]["after"]["recovery"]["value"] > 0.8
    assert found["metrics"]["probe"]["after"]["above_retrained"] == "no retrained model was given"
    assert found["metrics"]["relearn_shots"]["before"]["steps"] == 0
    assert "to_retrained" not in found["metrics"]["cka"]["after"]


def test_too_few_rows_to_learn_one_attack_from_do_not_hide_the_others(by_class: Known) -> None:
    few = replace(material(by_class), retained=material(by_class).retained.take([0, 1, 2]))
    attacks = evaluate("full", Nets(by_class.head, by_class.before, by_class.masked), few, EFFORT)["metrics"][
        "population_membership"
    ]
    assert attacks["before"]["loss"]["auc"]["low"] > 0.5
    assert "membership: 3 members" in attacks["before"]["logistic"]["not_measured"]


def test_requests_about_samples_have_no_held_out_rows_of_their_own(by_sample: Known) -> None:
    found = evaluate(
        "full", Nets(by_sample.head, by_sample.before, by_sample.ruined, by_sample.retrained), material(by_sample, ()), EFFORT
    )
    assert "the request names no class" in found["not_measurable"]["probe"]
    assert "those that the method measured" in found["not_measurable"]["fisher_residual"]
    quick = evaluate(
        "quick", Nets(by_sample.head, by_sample.before, by_sample.ruined, by_sample.retrained), material(by_sample, ())
    )
    gap = quick["metrics"]["average_gap"]
    assert (
        gap["after"] > 0.05 + gap["retrained_to_retrained"]["mean"]
    )  # 0 % where a retrained model has a third: over-forgotten
    assert (
        quick["metrics"]["accuracy"]["after"]["forgotten"]["value"]
        == 0
        < quick["metrics"]["accuracy"]["retrained"]["forgotten"]["low"]
    )


def test_a_single_retrained_model_has_no_floor(by_class: Known) -> None:
    found = evaluate("quick", nets(by_class, by_class.masked, 1), material(by_class))
    assert (
        found["metrics"]["tow"]["retrained_to_retrained"] == "one retrained model: no floor; give several, of different seeds"
    )


def test_nets_that_give_nan_are_not_judged(by_class: Known) -> None:
    broken = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    broken[1].weight.data[:] = float("nan")
    with pytest.raises(ShapeError, match="cannot be scored"):
        evaluate("quick", nets(by_class, broken), material(by_class))


def test_nets_in_training_mode_are_refused(by_class: Known) -> None:
    with pytest.raises(InputError, match="after in training mode, where outputs are others"):
        evaluate("quick", nets(by_class, deepcopy(by_class.before).train()), material(by_class))


def test_every_need_is_known_and_progress_tells_the_cost(by_class: Known) -> None:
    assert {n for m in METRICS.values() for n in m.needs} == NEEDS.keys()
    assert {m.tier for m in METRICS.values()} == set(TIERS)
    said: list[str] = []
    evaluate("quick", nets(by_class, by_class.masked), material(by_class), progress=said.append)
    assert said[0] == "quick 1 of 8: accuracy (one forward pass over at most `most` rows of each set)"
    with pytest.raises(InputError, match="unknown tier 'fast'"):
        evaluate("fast", nets(by_class, by_class.masked), material(by_class))


def test_material_of_a_place(by_class: Known, tmp_path: Path) -> None:
    """Forgotten rows are found among all, also after they were excluded; excluded rows are no rows that stay."""
    one, two = joined([by_class.forgotten, by_class.retained.take(range(50))]), by_class.retained.take(range(50, 90))
    two = replace(two, keys=one.keys[:40])  # each set counts its rows for itself
    excluded = Exclusions({"r1": Selection(classes=(FORGOTTEN,))})
    data = SiteData("here", {"a": one, "b": two}, {"test": by_class.test}, lambda: excluded)
    head = Head("head", ("3", "5", "7"))
    found = Material.at(data, head, (FORGOTTEN, "9"), gone=("7",))
    assert len(found.forgotten) == len(by_class.forgotten)
    assert set(found.retained.labels) == {"5"}
    assert set(found.parts["test"].labels) == {"5"}
    assert len(found.parts["forgotten"]) == len(by_class.test.of([FORGOTTEN]))
    assert len(found.calibration) == 0
    assert len(found.population) == len(found.forgotten) + len(found.retained) + len(found.test.without(["7"]))
    assert "7" not in {*found.population.labels, *found.population_without.labels}
    sevens = Material.at(data, head, (), {"a": Selection(("3",))}, gone=("3", "7"))  # of a site, after everybody forgot it
    assert {*sevens.parts["others"].keys} <= {*sevens.population.keys}
    still = Material.at(replace(data, excluded=lambda: Exclusions({})), head, (FORGOTTEN,))  # not yet committed
    assert (still.forgotten.keys, len(still.retained.of(["3"]))) == (found.forgotten.keys, 0)
    some = Material.at(data, head, (), {"a": Selection(samples=(f"a/{one.keys[0]}",))}, shards={"a": ("3", "5")})
    assert some.forgotten.keys == (f"a/{one.keys[0]}",)
    assert set(some.retained.labels) <= {"3", "5"}
    assert len(Material.at(data, head, (FORGOTTEN,), shards={"a": ()}).retained) == 0
    assert some.parts["forgotten"] is some.forgotten


def test_models_that_never_saw_what_is_forgotten_know_its_class_where_other_rows_of_it_stay(by_class: Known) -> None:
    half = len(by_class.forgotten) // 2
    one, two = (by_class.forgotten.take(range(*span)) for span in ((0, half), (half, 2 * half)))
    data = SiteData("here", {"a": one, "b": joined([two, by_class.retained])}, {"test": by_class.test})
    head = Head("head", by_class.test.classes)
    every = Material.at(data, head, (FORGOTTEN,)).population_without
    some = Material.at(data, head, (FORGOTTEN,), {"a": Selection((FORGOTTEN,))}).population_without
    assert FORGOTTEN not in every.labels
    assert len(some.of([FORGOTTEN])) == half + len(by_class.test.of([FORGOTTEN]))
    assert not {f"a/{key}" for key in one.keys} & {*some.keys}


def test_a_model_without_an_output_for_the_class_is_probed_all_the_same(by_class: Known) -> None:
    """A transfer's head cannot name it; the features below may know it."""
    head = Head("head", tuple(c for c in CLASSES if c != FORGOTTEN))
    child = make(0, 9)
    weights = {n: t[[i for i in range(10) if i != 3]] if n in head.names else t for n, t in weights_of(by_class.before).items()}
    load(child, weights).eval()
    shards = {"a": by_class.forgotten, "b": by_class.retained}
    data = SiteData("here", shards, {"calibration": by_class.calibration, "test": by_class.test})
    found = evaluate("full", Nets(head, child, child), Material.at(data, head, (FORGOTTEN,)), EFFORT)
    assert found["not_measurable"]["relearn_shots"].startswith("the model has no output for class 3")
    assert found["metrics"]["probe"]["after"]["recovery"]["value"] > 0.8
    assert found["metrics"]["probe"]["after"]["rest"]["value"] > 0.8
    assert found["metrics"]["cka"]["rows"] == len(by_class.test.of([FORGOTTEN]))


def test_big_sets_are_drawn_from_and_intervals_say_so(by_class: Known) -> None:
    found = evaluate("quick", nets(by_class, by_class.masked), material(by_class), Effort(most=50))
    assert set(found["rows"].values()) == {50}
    accuracy = found["metrics"]["accuracy"]["before"]["test"]
    assert accuracy["n"] == 50
    assert accuracy["high"] - accuracy["low"] > 0.1
    again = evaluate("quick", nets(by_class, by_class.masked), material(by_class), Effort(most=50))
    assert again["metrics"] == found["metrics"]


def test_rows_in_two_parts_and_of_other_heads_are_refused(by_class: Known) -> None:
    with pytest.raises(InputError, match="a row is in two of"):
        replace(material(by_class), retained=by_class.forgotten)
    with pytest.raises(InputError, match="expected one head for all"):
        replace(material(by_class), test=by_class.test.for_head(("3", "5")))
    other = Nets(Head("head", ("a", "b")), by_class.before, by_class.masked)
    with pytest.raises(InputError, match=r"the head names \['a', 'b'\]"):
        evaluate("quick", other, material(by_class))
