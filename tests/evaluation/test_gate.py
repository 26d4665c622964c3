"""The gate objects to what is wrong and to what was not tested."""

import re
from typing import Any

import pytest
import torch
from torch import nn

from fedunlearn.data import Rows
from fedunlearn.errors import InputError, ShapeError
from fedunlearn.evaluation import Gate, Scores, accuracy, score


def scores(forgotten: float | None, retained: float | None) -> Scores:
    return Scores(forgotten, retained, 10, 90)


BEFORE = scores(0.9, 0.95)


@pytest.mark.parametrize(
    ("target", "after", "retrained", "wrong", "untested"),
    [
        ("absent", scores(0.04, 0.94), None, None, None),
        ("absent", scores(0.06, 0.94), None, "6.0% of the forgotten rows are still recognised", None),
        ("absent", scores(None, 0.94), None, None, "no row of what is forgotten can be scored"),
        ("absent", scores(0.0, 0.89), None, "accuracy on the rest fell by 6.0%, from 95.0% to 89.0%", None),
        ("absent", scores(0.0, None), None, None, "no held-out row of the rest"),
        ("as_retrained", scores(0.8, 0.95), scores(0.85, 0.9), None, None),
        ("as_retrained", scores(0.0, 0.95), scores(0.85, 0.9), "0.0% .* a retrained model recognises 85.0%: 85.0% apart", None),
        ("as_retrained", scores(0.8, 0.95), None, None, "no retrained model to compare with"),
        ("as_retrained", scores(None, 0.95), scores(0.8, 0.9), None, "no row of what is forgotten can be scored"),
        ("not_expressible", scores(None, 0.95), None, None, None),
        ("not_expressible", scores(None, 0.8), None, "accuracy on the rest fell by 15.0%", None),
    ],
)
def test_judgements(target: str, after: Scores, retrained: Scores | None, wrong: str | None, untested: str | None) -> None:
    found = Gate().judge(target, BEFORE, after, retrained)
    for texts, expected in zip(found, (wrong, untested), strict=True):
        assert len(texts) == (expected is not None)
        assert expected is None or re.search(expected, texts[0])


def test_each_class_is_judged_by_itself() -> None:
    after = Scores(0.04, 0.95, 100, 900, {"a": 0.0, "b": 0.4, "c": None})
    wrong, untested = Gate().judge("absent", BEFORE, after, None)
    assert wrong == ["40.0% of the forgotten rows of class b are still recognised (at most 5.0%)"]
    assert untested == ["not tested: no row of class c can be scored at its home"]
    again = Scores(0.9, 0.95, 100, 900, {"a": 0.05, "b": 0.9, "c": 0.9})
    wrong, _ = Gate().judge("as_retrained", BEFORE, after, again)
    assert len(wrong) == 1
    assert "class b are recognised, a retrained model recognises 90.0%" in wrong[0]


def test_what_retraining_costs_is_not_held_against_an_edit() -> None:
    """The retrained model itself must pass, however much worse it is on the rest."""
    again = scores(0.3, 0.8)
    assert Gate().judge("as_retrained", BEFORE, again, again) == ([], [])
    wrong, _ = Gate().judge("as_retrained", BEFORE, scores(0.3, 0.7), again)
    assert wrong == ["accuracy on the rest fell by 10.0%, from a retrained model's 80.0% to 70.0% (at most 5.0%)"]
    assert Gate().judge("absent", BEFORE, scores(0.0, 0.8), again)[0]  # there it is not the target


def test_a_class_without_a_source_left_must_be_absent_whatever_the_others_are() -> None:
    after = Scores(0.45, BEFORE.retained, 20, 20, {"a": 0.1, "b": 0.8})
    again = Scores(0.4, BEFORE.retained, 20, 20, {"a": 0.02, "b": 0.78})
    assert Gate().judge("as_retrained", BEFORE, after, again) == ([], [])
    wrong, _ = Gate().judge("as_retrained", BEFORE, after, again, absent=("a",))
    assert wrong == ["10.0% of the forgotten rows of class a are still recognised (at most 5.0%)"]


def test_where_accuracy_cannot_tell_an_edit_from_none_it_is_said() -> None:
    gate, before = Gate(), scores(0.9, 0.95)
    assert gate.unresolved("as_retrained", before, scores(0.5, 0.95)) == []
    assert gate.unresolved("absent", before, scores(0.9, 0.95)) == []
    assert gate.unresolved("as_retrained", before, None) == []
    (said,) = gate.unresolved("as_retrained", before, scores(0.85, 0.95))
    assert said.startswith("accuracy cannot tell: before the edit, 90.0% of the forgotten rows were recognised")


def test_a_model_that_gives_nan_is_not_scored() -> None:
    net = nn.Sequential(nn.Linear(3, 3))
    net[0].weight.data[:] = float("nan")
    rows = Rows(torch.eye(3), torch.tensor([0, 1, 0]), ("i", "j", "k"), ("a", "b", "c"))
    with pytest.raises(ShapeError, match="outputs are NaN or infinite; it cannot be scored"):
        accuracy(net, rows)


def found(metrics: dict[str, Any], missing: dict[str, str] | None = None, tier: str = "full") -> dict[str, Any]:
    return {tier: {"metrics": metrics, "not_measurable": missing or {}}}


PROBED = {
    "probe": {"after": {"recovery": {"value": 0.6, "low": 0.5, "high": 0.7, "n": 9}, "above_retrained": "no retrained model"}},
    "cka": {"after": {"to_before": {"body.3": 0.4, "body": 0.9}}, "rows": 8},
    "relearn_shots": {"after": {"best": 1.0, "curve": [[0, 1.0]]}},
}


@pytest.mark.parametrize(
    ("way", "limit", "wrong", "untested"),
    [
        ("probe.after.recovery", {"at_most": 0.6}, None, None),
        ("probe.after.recovery", {"at_most": 0.5}, r"^probe.after.recovery is 0.6 \(at most 0.5\)$", None),
        ("probe.after.recovery.high", {"at_most": 0.6}, "recovery.high is 0.7", None),
        ("probe.after.recovery", {"at_least": 0.7}, r"is 0.6 \(at least 0.7\)", None),
        ("cka.after.to_before.body.3", {"at_most": 0.5}, None, None),
        ("cka.after.to_before.body", {"at_most": 0.5}, "body is 0.9", None),
        ("probe.after.above_retrained", {"at_most": 1}, None, "^not tested: probe.after.above_retrained: no retrained model$"),
        ("probe.aftr.recovery", {"at_most": 1}, None, "found no 'aftr'; did you mean 'after'"),
        ("probe.after", {"at_most": 1}, None, "holds several numbers: recovery, above_retrained"),
        ("relearn_shots.after.curve", {"at_most": 1}, None, "is no number"),
        ("relearn_shots.after.best.low", {"at_most": 1}, None, "there is nothing below 1.0"),
        (
            "backdoor.after.stamped",
            {"at_most": 1},
            None,
            "not tested: backdoor.after.stamped: nothing that is known of was planted",
        ),
        ("tow.after", {"at_least": 0}, None, "tow.after: it was not evaluated; its home did not answer"),
    ],
)
def test_limits_on_metrics(way: str, limit: dict[str, float], wrong: str | None, untested: str | None) -> None:
    told = found(PROBED, {"backdoor": "nothing that is known of was planted"})
    said = Gate(metrics={way: limit}).judge("absent", BEFORE, scores(0.0, 0.95), None, told)
    for texts, expected in zip(said, (wrong, untested), strict=True):
        assert len(texts) == (expected is not None)
        assert expected is None or re.search(expected, texts[0])


def test_what_can_only_be_said_of_outputs_is_not_due_without_them() -> None:
    ways = ("relearn_shots.after.best", "kl_to_retrained.forgotten.after", "kl_to_retrained.test.after", "probe.after.recovery")
    gate = Gate(metrics={way: {"at_most": 1} for way in ways})
    told = found({}, {"relearn_shots": "no output"}) | found({"kl_to_retrained": {}}, tier="quick")
    _, untested = gate.judge("not_expressible", BEFORE, scores(None, 0.95), None, told)
    assert [text.split(":")[1] for text in untested] == [" kl_to_retrained.test.after", " probe.after.recovery"]
    assert gate.tiers == ("quick", "full")
    assert Gate(metrics={"ulira.after.auc": {"at_most": 1}}).tiers == ("quick", "audit")
    assert Gate().tiers == ("quick",)


def test_what_no_request_waits_for_names_the_command_that_tests_it() -> None:
    gate = Gate(metrics={"ulira.after.auc": {"at_most": 0.6}, "probe.after": {"at_most": 1}})
    told = found({}, {"ulira": "no pool of shadow models was given"}, tier="audit")
    _, (audit, full) = gate.judge("absent", BEFORE, scores(0.0, 0.95), None, told)
    assert re.match("not tested: ulira.after.auc: no pool .*; no request trains shadow models; `fedunlearn report", audit)
    assert "--tier audit` does, and measures the candidate, and --accept-untested" in audit
    assert "fedunlearn report" not in full
    measured = found({"ulira": {"after": {"auc": {"value": 0.7}}}}, tier="audit")
    assert gate.judge("absent", BEFORE, scores(0.0, 0.95), None, measured)[0] == ["ulira.after.auc is 0.7 (at most 0.6)"]


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ({"probes.after.recovery": {"at_most": 1}}, "gate.metrics: unknown metric 'probes'; did you mean 'probe'"),
        ({"probe": {"at_most": 1}}, "'probe': holds several numbers; say which, for example 'probe.after'"),
        ({"tow.after": {}}, "tow.after: no limit; give at_most, at_least, or both"),
        ({"tow.after": {"at_lest": 1}}, "tow.after: unknown limit 'at_lest'; did you mean 'at_least'"),
        ({"tow.after": {"at_least": float("nan")}}, "at_least is nan, expected a number"),
        ({"tow.after": {"at_least": True}}, "at_least is True, expected a number"),
    ],
)
def test_limits_that_can_never_be_judged_are_refused(metrics: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Gate(metrics=metrics)


def test_limits_are_fractions() -> None:
    with pytest.raises(InputError, match="forgotten_at_most is 5, expected a fraction from 0 to 1"):
        Gate(forgotten_at_most=5)


def test_accuracy_over_nothing_is_none_not_zero() -> None:
    net = nn.Sequential(nn.Identity())
    rows = Rows(torch.eye(3), torch.tensor([0, 1, 0]), ("i", "j", "k"), ("a", "b", "c"))
    net.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    assert accuracy(net, rows) == pytest.approx(2 / 3)
    assert accuracy(net, rows.take([])) is None
    assert score(net, rows.take([2]), rows.take([0, 1]), ("a", "c")) == Scores(0.0, 1.0, 1, 2, {"a": 0.0, "c": None})


@pytest.mark.parametrize("wrong", [float("nan"), -7.0, 1.5])
def test_what_is_no_accuracy_is_never_judged(wrong: float) -> None:
    for found in ((wrong, 0.5, 1, 1, {}), (0.5, wrong, 1, 1, {}), (0.5, 0.5, 1, 1, {"a": wrong}), (0.5, 0.5, -1, 1, {})):
        with pytest.raises(ShapeError, match="expected fractions"):
            Scores(*found)
