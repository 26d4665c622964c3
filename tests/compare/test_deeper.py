"""What a tier adds: the numbers that assessing finds, and words where there are none."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.compare import Choice, Subject, as_csv, compare, notes, overview
from fedunlearn.compare.cells import summary_of
from fedunlearn.compare.deeper import DEEPER
from fedunlearn.compare.work import Nest
from fedunlearn.errors import InputError
from fedunlearn.evaluation import Gate
from fedunlearn.methods.logit_mask import LogitMask
from fedunlearn.runtime import InProcess, unlearn
from fedunlearn.scenario import Scenario, assess, retrained, workers
from tests.compare.conftest import CHOICES, REQUESTS, Failing, timeless
from tests.compare.test_cells import row
from tests.runtime.test_evaluating import Nothing

KEYS = [d.key for d in DEEPER]
SOME = (Choice("nothing", Nothing()), Choice("logit_mask", LogitMask()), Choice("failing", Failing()))


def taken(work: Path, tiny: Scenario, tier: str, choices: Sequence[Choice] = SOME, **more: Any) -> dict[str, Any]:
    return compare([Subject(tiny, REQUESTS[:1])], choices, (0,), work, tier=tier, **more)


def of(result: dict[str, Any], method: str, heir: str) -> dict[str, Any]:
    (found,) = (r for r in result["rows"] if (r["method"], r["heir"]) == (method, heir))
    return dict(found)


def test_a_tier_adds_its_numbers_and_changes_nothing_else(result: dict[str, Any], tiny: Scenario, work: Path) -> None:
    found = taken(work, tiny, "quick", CHOICES[-1:])
    plain = [r for r in result["rows"] if (r["method"], r["request"], r["seed"]) == ("logit_mask", "0", 0)]
    added = dict.fromkeys([*KEYS, "not_measured"])
    assert timeless([{**r, **added} for r in found["rows"]]) == timeless([{**r, **added} for r in plain])
    assert all(r[k] is None for r in result["rows"] for k in KEYS)
    assert {r["not_measured"] for r in result["rows"]} == {""}
    for heir in ("first", "second"):
        one = of(found, "logit_mask", heir)
        assert 0 < one["tow"] <= 1
        assert [one[k] for k in KEYS[1:]] == [None] * len(KEYS[1:])
        assert one["not_measured"] == ""
    even = of(found, "logit_mask", "even")
    assert (even["tow"], even["not_measured"]) == (None, "tow: it was not edited")
    assert "ToW" in overview(found).header
    assert "probe above retrained" not in overview(found).header
    assert any("not measured: 1 models: tow: it was not edited" in note for note in notes(found))
    nest = Nest.of(work, tiny, 0)
    assert len({nest.after(REQUESTS[0], True, SOME[0], tier) for tier in ("", "quick", "full")}) == 3


def test_without_a_retrained_family_it_says_so_and_gives_no_number(tiny: Scenario, work: Path) -> None:
    found = taken(work, tiny, "quick", CHOICES[-1:], reference=False)
    one = of(found, "logit_mask", "first")
    assert (one["tow"], one["not_measured"]) == (None, "tow: no retrained model was given")


def test_what_fails_to_be_measured_is_words(tiny: Scenario, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise InputError("the shelf is empty")

    monkeypatch.setattr("fedunlearn.compare.deeper.assess", broken)
    found = taken(work, tiny, "quick", (Choice("nothing", Nothing()),))
    nothing = of(found, "nothing", "first")
    assert nothing["status"] == "untouched"
    assert (nothing["tow"], nothing["not_measured"]) == (None, "tow: the shelf is empty")


@pytest.mark.slow
def test_the_full_tier_tells_the_mask_from_what_was_forgotten_and_is_what_assessing_finds(tiny: Scenario, work: Path) -> None:
    taken(work, tiny, "quick")
    nest = Nest.of(work, tiny, 0)
    twins = {p.name for p in (nest.family / "reference").iterdir()}
    found = taken(work, tiny, "full")
    assert {p.name for p in (nest.family / "reference").iterdir()} == twins  # nothing was retrained twice
    with nest.copy() as family:
        backend = InProcess(workers(nest.scenario, family), simulation=True)
        unlearn(family, REQUESTS[0], "logit_mask", backend, retrained=retrained(family, nest.scenario, REQUESTS[0], backend))
        by_hand = assess(family, family.ledger.lines[-1], "full", backend)["first"]
    one = of(found, "logit_mask", "first")
    assert one["tow"] == by_hand["quick"]["metrics"]["tow"]["after"]
    full = by_hand["full"]["metrics"]
    assert one["probe_above_retrained"] == full["probe"]["after"]["above_retrained"]["value"]
    assert one["relearned"] == full["relearn_retained"]["after"]["best"]
    assert one["relearned_retrained"] == full["relearn_retained"]["retrained"]["best"]
    assert one["membership_auc"] == full["population_membership"]["after"]["loss"]["auc"]["value"]
    assert one["membership_auc_retrained"] == full["population_membership"]["retrained"]["loss"]["auc"]["value"]
    assert one["forgotten_after"] == 0
    assert one["probe_above_retrained"] == of(found, "nothing", "first")["probe_above_retrained"]  # the mask edits no feature
    failed = of(found, "failing", "first")
    assert [failed[k] for k in KEYS] == [None] * len(KEYS)
    assert [failed["status"], failed["not_measured"]] == ["failed", ""]
    assert {d.header for d in DEEPER} <= set(overview(found).header)
    assert set(KEYS) <= set(as_csv(found).splitlines()[0].split(","))


def test_a_line_has_the_mean_and_the_worst_model_and_counts_a_model_of_several_classes_once() -> None:
    said = (("a", 0, 0.9, 0.0, ""), ("a", 1, 0.7, 0.1, ""), ("b", 0, 0.5, None, "relearned: no rows"))
    rows = [
        row(**{"class": c}, heir=heir, seed=seed, tow=tow, relearned=back, not_measured=why)
        for heir, seed, tow, back, why in said
        for c in ("0", "1")
    ]
    line = summary_of(rows, {"t": Gate()})[0]
    assert line["deeper"]["tow"] == pytest.approx({"value": 0.7, "n": 3, "name": "b", "worst": 0.5})
    assert line["deeper"]["relearned"] == pytest.approx({"value": 0.05, "n": 2, "name": "a", "worst": 0.05})
    assert line["deeper"]["probe_above_retrained"] is None
    assert line["not_measured"] == [[1, "relearned: no rows"]]


def test_an_unknown_tier_is_refused_before_anything_is_trained(tiny: Scenario, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--tier: unknown tier 'fll'.*did you mean 'full'"):
        taken(tmp_path, tiny, "fll")
    assert not list(tmp_path.iterdir())
