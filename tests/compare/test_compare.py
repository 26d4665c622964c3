"""A comparison is the one path, many times: nothing is lost, nothing is mixed up, and it goes on where it was."""

import csv
import io
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from fedunlearn.compare import Choice, Subject, as_csv, choices_of, compare, failed_everywhere, notes, planned, requests_of
from fedunlearn.compare.work import Nest
from fedunlearn.errors import BusyError, InputError
from fedunlearn.lineage import Request, discover
from fedunlearn.methods import FIUn
from fedunlearn.methods.baselines import RandomMask
from fedunlearn.runtime import Family, InProcess, unlearn
from fedunlearn.scenario import Scenario, open_site_data, retrained, train, workers
from tests.compare.conftest import CHOICES, REQUESTS, SEEDS, timeless


def heirs(work: Path, scenario: Scenario, request: Request) -> list[str]:
    family = Family.open(Nest.of(work, scenario, 0).family)
    return [h.name for h in discover(family.lineage, request).heirs]


def test_a_row_for_every_heir_class_seed_and_method(result: dict[str, Any], tiny: Scenario, work: Path) -> None:
    expected = Counter(
        (request.id, heir, c, str(seed), choice.label)
        for request in REQUESTS
        for heir in heirs(work, tiny, request)
        for c in request.classes
        for seed in SEEDS
        for choice in CHOICES
    )
    rows = list(csv.DictReader(io.StringIO(as_csv(result))))
    assert Counter((r["request"], r["heir"], r["class"], r["seed"], r["method"]) for r in rows) == expected
    assert {r["heir"] for r in rows} == {"first", "second", "even"}


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r.id)
def test_rows_say_what_unlearning_by_hand_says(
    result: dict[str, Any], tiny: Scenario, tmp_path: Path, request_: Request
) -> None:
    scenario = tiny.seeded(1)
    family = train(scenario, tmp_path / "family")
    backend = InProcess(workers(scenario, family))
    twin = retrained(family, scenario, request_, backend)
    record = unlearn(family, request_, FIUn(layers="last"), backend, scenario.gate.gate, retrained=twin)
    for m in record.facts["models"]:
        mine = [
            r
            for r in result["rows"]
            if (r["seed"], r["request"], r["method"], r["heir"]) == (1, request_.id, "fiun", m["name"])
        ]
        assert [r["class"] for r in mine] == list(request_.classes)
        for row in mine:
            for key in (
                "status",
                "born",
                "strength",
                "retained_before",
                "retained_after",
                "mask_retained",
                "retrained_retained",
            ):
                assert row[key] == m[key]
            assert row["forgotten_after"] == m["forgotten_by_class"].get(row["class"])
        assert sum(r["rows_forgotten"] for r in mine) == m["rows_forgotten"]
        for what in ("forgotten_before", "forgotten_after", "retrained_forgotten"):
            right = sum((r[what] or 0) * r["rows_forgotten"] for r in mine)
            assert right == pytest.approx((m[what] or 0) * m["rows_forgotten"])


def test_what_fails_is_a_row_and_leaves_the_model_as_it_was(result: dict[str, Any]) -> None:
    failed = [r for r in result["rows"] if r["method"] == "failing"]
    assert {r["status"] for r in failed} == {"failed"}
    assert all("ZeroDivisionError: as it does" in r["why"] for r in failed)
    for r in failed:
        assert r["forgotten_after"] == r["forgotten_before"]
        assert r["retained_after"] == r["retained_before"]
    untouched = [r for r in result["rows"] if r["method"] == "logit_mask" and r["heir"] == "even"]
    assert {r["status"] for r in untouched} == {"untouched"}
    assert all("no output to mask" in r["why"] for r in untouched)


def test_a_method_that_failed_everywhere_is_named(result: dict[str, Any]) -> None:
    assert failed_everywhere(result) == ["failing"]
    assert failed_everywhere({"rows": []}) == []


def test_a_layer_that_no_net_has_is_refused_before_anything_is_trained(tiny: Scenario, tmp_path: Path) -> None:
    wrong = choices_of("fiun,steer", ["steer.layers=haed"])
    with pytest.raises(InputError, match=r"tiny: method steer: layers: unknown layer or parameter 'haed'; did you mean 'head'"):
        compare([Subject(tiny, REQUESTS)], wrong, (0,), tmp_path)
    assert not list(tmp_path.rglob("*.*"))


def test_simulation_only_is_said_of_methods_that_need_rows_of_others(result: dict[str, Any]) -> None:
    assert {r["method"] for r in result["rows"] if r["simulation"]} == {"ssd"}
    assert {r["status"] for r in result["rows"] if r["method"] == "ssd" and r["target"] == "absent"} <= {"committed", "pending"}


def take(source: Path, there: Path, without: str = "") -> None:
    """Copy a file or folder of another run."""
    there.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, there, ignore=shutil.ignore_patterns(without))
    else:
        shutil.copy(source, there)


def test_a_random_method_is_drawn_anew_for_each_family_and_the_legend_says_so(tiny: Scenario, work: Path) -> None:
    def rows(choice: Choice) -> list[dict[str, Any]]:
        found.append(compare([Subject(tiny, REQUESTS[:1])], (choice,), SEEDS, work))
        return timeless(found[-1]["rows"])

    found: list[dict[str, Any]] = []
    drawn, same = (choices_of("random_mask", ["random_mask.ratio=0.5", *more])[0] for more in ([], ["random_mask.seed=0"]))
    anew = rows(drawn)
    one, other = (rows(Choice("random_mask", RandomMask(ratio=0.5, seed=seed))) for seed in SEEDS)
    assert anew == [r for r in one if r["seed"] == 0] + [r for r in other if r["seed"] == 1]
    assert rows(same) == one != anew
    assert any("random_mask: ratio=0.5, seed=the family's" in note for note in notes(found[0]))
    says = [[note for note in notes(of) if note.startswith("seed")] for of in (found[0], found[-1])]
    assert ["anew at every seed" in note for note in says[0]] == [True]
    assert ["one draw at all seeds" in note for note in says[1]] == [True]
    assert not [note for note in notes(found[-1] | {"seeds": [0]}) if note.startswith("seed")]


class Cut(BaseException):
    """As a key that was pressed: nothing may take it for a failure of a method."""


@pytest.mark.parametrize("at", ["seed 0: training second", "seed 0: retraining", "seed 1: logit_mask on class 0, 7"])
def test_a_run_that_was_cut_off_goes_on_and_ends_as_if_it_had_not_been(
    at: str, result: dict[str, Any], tiny: Scenario, work: Path, tmp_path: Path
) -> None:
    there, subject = tmp_path / "work", Subject(tiny, REQUESTS)
    first, second = (Nest.of(work, tiny, seed).folder for seed in SEEDS)
    if "seed 0: training" not in at:  # what was done until then is taken from the other run
        for name in ("family", "trained.json", "before", "after")[: 2 if "retraining" in at else 4]:
            take(first / name, there / first.name / name, "reference" if "retraining" in at else "")
    take(second, there / second.name)
    if "seed 1" in at:
        nest = Nest.of(there, tiny, 1)
        for path in (nest.after(REQUESTS[1], True, c) for c in CHOICES if c.label in ("ssd", "logit_mask")):
            path.unlink()

    def cutting(text: str) -> None:
        if at in text:
            raise Cut

    with pytest.raises(Cut):
        compare([subject], CHOICES, SEEDS, there, progress=cutting)
    trained = {p: p.read_text() for p in there.glob("*/trained.json")}
    assert len(trained) == (2 if "training second" not in at else 1)
    said: list[str] = []
    again = compare([subject], CHOICES, SEEDS, there, progress=said.append)
    assert "(1 step left, " in said[-1]
    assert timeless(again["rows"]) == timeless(result["rows"])
    before = {k: again[k] for k in again if k not in ("rows", "summary", "commit")}
    assert before == {k: result[k] for k in before}
    assert {p: p.read_text() for p in trained} == trained


def test_what_is_there_is_not_done_again_but_what_failed_is_tried(result: dict[str, Any], tiny: Scenario, work: Path) -> None:
    said: list[str] = []
    clock = planned([Subject(tiny, REQUESTS)], CHOICES, SEEDS, work)
    assert clock.left.total() == len(REQUESTS) * len(SEEDS)
    again = compare([Subject(tiny, REQUESTS)], CHOICES, SEEDS, work, progress=said.append)
    assert again["rows"] == result["rows"]
    assert len(said) == len(REQUESTS) * len(SEEDS)
    assert all("failing on class" in text for text in said)


def test_what_is_kept_is_gathered_without_the_families(
    result: dict[str, Any], tiny: Scenario, work: Path, tmp_path: Path
) -> None:
    """Parts may be run on several machines; their folders without the families are enough."""
    shutil.copytree(work, tmp_path / "work", ignore=shutil.ignore_patterns("family", "copy"))
    choices = [c for c in CHOICES if c.label != "failing"]  # that is tried again
    found = compare([Subject(tiny, REQUESTS)], choices, SEEDS, tmp_path / "work")
    assert found["rows"] == [r for r in result["rows"] if r["method"] != "failing"]
    assert not list(tmp_path.glob("work/*/family"))


def test_another_topology_seed_setting_or_request_is_not_taken_for_this_one(tiny: Scenario, tmp_path: Path) -> None:
    nest, fiun = Nest.of(tmp_path, tiny, 0), CHOICES[0]
    longer = tiny.models["second"].model_copy(update={"epochs": 2})
    other = tiny.model_copy(update={"models": {**tiny.models, "second": longer}})
    gate = tiny.model_copy(update={"gate": tiny.gate.model_copy(update={"forgotten_at_most": 0.5})})
    folders = [Nest.of(tmp_path, *one).folder for one in ((tiny, 0), (tiny, 1), (other, 0), (gate, 0))]
    assert len(set(folders)) == 4
    assert Nest.of(tmp_path, tiny.seeded(5), 0) == nest
    kept = nest.after(REQUESTS[0], True, fiun)
    assert kept == nest.after(Request(classes=("0",), received="2026-11-21"), True, replace(fiun, label="other"))
    assert kept != nest.after(REQUESTS[0], True, Choice("fiun", FIUn(layers="last", alpha=10)))
    assert kept != nest.after(REQUESTS[1], True, fiun)
    assert kept != nest.after(REQUESTS[0], False, fiun)


OWN = {  # a method, its base class in another file, and what that imports
    "mine_of_compare.py": "from base_of_compare import Base\n\nclass Mine(Base):\n    name = 'mine'\n",
    "base_of_compare.py": "from part_of_compare import PART\nfrom fedunlearn.methods.logit_mask import LogitMask as Base\n",
    "part_of_compare.py": "PART = 1\n",
}


@pytest.mark.parametrize("changed", OWN)
def test_a_method_of_the_users_own_that_has_changed_is_run_again(
    changed: str, tiny: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in OWN.items():
        (tmp_path / name).write_text(text)
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (mine, _), nest = choices_of("mine_of_compare:Mine"), Nest.of(tmp_path, tiny, 0)
    before = nest.after(REQUESTS[0], True, mine)
    assert nest.after(REQUESTS[0], True, mine) == before
    (tmp_path / changed).write_text(f"{OWN[changed]}# changed\n")
    assert nest.after(REQUESTS[0], True, mine) != before


def test_two_at_once_do_not_write_over_each_other(tiny: Scenario, tmp_path: Path) -> None:
    nest = Nest.of(tmp_path, tiny, 0)
    nest.folder.mkdir(parents=True)
    with FileLock(nest.folder / "lock"), pytest.raises(BusyError, match="another comparison is at work there"):
        compare([Subject(tiny, REQUESTS)], CHOICES, (0,), tmp_path)
    assert not (nest.family).exists()


def test_without_a_reference_nothing_is_retrained(result: dict[str, Any], tiny: Scenario, work: Path, tmp_path: Path) -> None:
    nest = Nest.of(work, tiny, 0)
    for name in ("family", "trained.json"):
        take(nest.folder / name, tmp_path / nest.folder.name / name, "reference")
    found = compare([Subject(tiny, REQUESTS[:1])], CHOICES[-1:], (0,), tmp_path, False)
    assert all(r["retrained_forgotten"] is r["retrained_retained"] is r["retrain_seconds"] is None for r in found["rows"])
    assert [s["method"] for s in found["summary"]] == ["logit_mask"]
    assert {s["method"] for s in result["summary"]} == {c.label for c in CHOICES} | {"retrained"}
    assert not (tmp_path / nest.folder.name / "family" / "reference").exists()


def test_a_whole_site_is_judged_by_the_retrained_family_and_has_a_row_an_heir(tiny: Scenario, work: Path) -> None:
    north = Request(sites=("north",), id="north")
    found = compare([Subject(tiny, (north,))], CHOICES[:1], (0,), work)
    assert [(r["heir"], r["class"]) for r in found["rows"]] == [(h, "") for h in heirs(work, tiny, north)]
    assert {r["target"] for r in found["rows"]} == {"as_retrained"}
    asked = [r for r in found["rows"] if r["forgotten_after"] is not None]  # only at north its rows can be read
    assert [r["heir"] for r in asked] == ["first"]
    for r in asked:
        far = abs(r["forgotten_after"] - r["retrained_forgotten"]) > tiny.gate.distance_to_retrained_at_most
        assert ("a retrained model recognises" in r["why"]) == far
        assert "not tested: there is no retrained model" not in r["why"]
    line = found["summary"][0]
    assert line["counted"] == 0
    for gap, what, some in (
        ("gap", "forgotten_after", [r for r in asked if r["status"] in ("committed", "pending")]),
        ("gap_before", "forgotten_before", asked),
    ):
        far = [abs(r[what] - r["retrained_forgotten"]) for r in some]
        assert (line[f"worst_{gap}"] or {}).get("value") == max(far, default=None)
        assert (line[gap] or {}).get("value") == (pytest.approx(sum(far) / len(far)) if far else None)  # one heir, so far
    dropped = [r["retained_before"] - r["retained_after"] for r in asked if r["status"] in ("committed", "pending")]
    assert (line["gap_lost"] or {}).get("value") == (pytest.approx(sum(dropped) / len(dropped)) if dropped else None)


def test_rows_that_an_heirs_home_does_not_hold_are_scored_where_they_are_if_the_gate_says_so(
    tiny: Scenario, work: Path
) -> None:
    gate = tiny.gate.model_copy(update={"score_at_roots": True})
    there = tiny.model_copy(update={"gate": gate, "name": "there"})
    found = compare([Subject(there, (Request(sites=("north",), id="north"),))], CHOICES[:1], (0,), work)
    knowing = [r for r in found["rows"] if r["heir"] != "even"]  # that one cannot name every digit
    assert {r["heir"] for r in knowing} == {"first", "second"}
    for r in knowing:
        assert r["forgotten_before"] is not None
        assert r["forgotten_after"] is not None
        assert r["retrained_forgotten"] is not None
        assert r["rows_forgotten"] > 100
    assert {r["rows_forgotten"] for r in knowing} == {knowing[0]["rows_forgotten"]}


def test_samples_that_some_seed_does_not_train_on_are_refused_before_anything_is_trained(
    tiny: Scenario, tmp_path: Path
) -> None:
    trained = {seed: set(open_site_data(tiny.seeded(seed), tmp_path)["north"].shards["main"].keys) for seed in range(3)}
    held = {seed: open_site_data(tiny.seeded(seed), tmp_path)["north"].held_out["test"].keys for seed in range(3)}
    for elsewhere, what in ((set(held[1]), "held out, for test"), (set(trained[0] - trained[1]) - set(held[1]), "")):
        key = sorted(trained[0] & trained[2] & elsewhere)[0]
        subject = Subject(tiny, (REQUESTS[0], Request(samples=(f"north/main/{key}",), id="one")))
        expected = (
            f"tiny, seed 1: request one: .*'north/main/{key}'.*{what}.* rows are dealt anew for each seed.*these: 0, 2\\)"
        )
        with pytest.raises(InputError, match=expected):
            compare([subject], CHOICES, range(3), tmp_path)
    with pytest.raises(InputError, match=r"tiny, seed 0: .*unknown sample 'north/main/none'.*\(of these: none\)"):
        compare([Subject(tiny, (Request(samples=("north/main/none",)),))], CHOICES, SEEDS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_samples_that_only_the_topology_names_do_not_stop_a_comparison_of_classes(tiny: Scenario, tmp_path: Path) -> None:
    """Another seed deals its rows anew, and may hold them out."""
    held = open_site_data(tiny.seeded(1), tmp_path)["north"].held_out["test"].keys
    plain = tiny.model_dump(mode="json", by_alias=True)
    plain["requests"]["rows"] = {"samples": [f"north/main/{held[0]}"]}
    subject = Subject(tiny.model_validate(plain), REQUESTS[:1])
    assert compare([subject], CHOICES[-1:], (1,), tmp_path, reference=False)["rows"]


def test_depth_counts_models_that_the_data_reached(tiny: Scenario, tmp_path: Path) -> None:
    """A parent that has never seen it, at the end of a chain of its own, makes nobody deeper."""
    plain = tiny.model_dump(mode="json", by_alias=True)
    plain["data"]["without"] = {"east": [0], "south": [0]}
    first, second = plain["models"]["first"], plain["models"]["second"]
    chain = {"a": {**first, "site": "south"}, "b": {**second, "from": ["a"], "site": "south"}}
    plain["models"] = {"first": first, **chain, "joined": {**second, "from": ["first", "b"]}}
    rows = compare([Subject(tiny.model_validate(plain), REQUESTS[:1])], CHOICES[-1:], (0,), tmp_path, reference=False)["rows"]
    assert {r["heir"]: r["depth"] for r in rows} == {"first": 0, "joined": 1}


def test_what_cannot_be_compared_is_said_before_anything_is_trained(tiny: Scenario, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tiny: request 00: unknown class '00'; did you mean '0'\?"):
        compare([Subject(tiny, requests_of("00"))], CHOICES, SEEDS, tmp_path)
    for wrong, expected in (
        ({"classes": ("0",), "sites": ("noth",)}, "unknown site 'noth'; did you mean 'north'"),
        ({"classes": ("0",), "since": "fist"}, "unknown model 'fist'; did you mean 'first'"),
        ({"samples": ("noth/main/1",)}, "unknown site 'noth'; did you mean 'north'"),
        ({"samples": ("north/mian/1",)}, "unknown shard 'north/mian'; did you mean 'north/main'"),
    ):
        with pytest.raises(InputError, match=f"tiny: request it: {expected}"):
            compare([Subject(tiny, (Request(**wrong, id="it"),))], CHOICES, SEEDS, tmp_path)
    with pytest.raises(InputError, match="two topologies are called 'tiny'"):
        compare([Subject(tiny, REQUESTS), Subject(tiny, REQUESTS)], CHOICES, SEEDS, tmp_path)
    with pytest.raises(InputError, match="two methods are called 'fiun'"):
        compare([Subject(tiny, REQUESTS)], (CHOICES[0], CHOICES[0]), SEEDS, tmp_path)
    with pytest.raises(InputError, match="a method is called 'retrained', as the line of the retrained families is"):
        compare([Subject(tiny, REQUESTS)], choices_of("retrained=fiun"), SEEDS, tmp_path)
    with pytest.raises(InputError, match="two requests of tiny are called '0'"):
        compare([Subject(tiny, requests_of("0,0"))], CHOICES, SEEDS, tmp_path)
    with pytest.raises(InputError, match="tiny: its topology names no request; say what to forget: --classes 0,1"):
        Subject.of(tiny.model_copy(update={"requests": {}}))
    own = tiny.model_copy(update={"data": tiny.data.model_copy(update={"set": None, "sites": "own"})})
    with pytest.raises(
        InputError, match="tiny: its data says `sites: own`, and a comparison trains its families in this process"
    ):
        compare([Subject(own, REQUESTS)], CHOICES, SEEDS, tmp_path)
    with pytest.raises(InputError, match=r"--classes 0\+,1: expected classes"):
        requests_of("0+,1")
    assert list(tmp_path.iterdir()) == []
