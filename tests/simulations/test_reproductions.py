"""The reproductions of the four papers run at test size and compare with what is published; switches are what they say."""

import json
import sys
from argparse import ArgumentTypeError
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from fedunlearn.errors import InputError
from fedunlearn.importance import measure
from fedunlearn.methods import FIUn
from fedunlearn.methods.dampening import dampen
from fedunlearn.methods.drawn import Draw
from fedunlearn.methods.fisher_mask import FisherMask
from fedunlearn.methods.masks import units
from fedunlearn.methods.ssd import SSD
from tests.simulations.test_simulations import FOLDER, run

SCRIPTS = ("reproduce_fiun", "reproduce_ssd", "reproduce_lfssd", "reproduce_fishermask")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the folder can be imported."""
    monkeypatch.syspath_prepend(FOLDER)


def methods(rows: list[dict[str, Any]], cell: str) -> dict[str, list[dict[str, Any]]]:
    """Rows of a cell by method; nothing has failed, and both clocks have run."""
    of = [r for r in rows if r["cell"] == cell]
    assert of
    assert all(r["status"] != "failed" for r in of), of
    assert all(r["unlearn_seconds"] > 0 and r["retrain_seconds"] > 0 for r in of)
    return {m: [r for r in of if r["method"] == m] for m in dict.fromkeys(r["method"] for r in of)}


def test_fiun(tmp_path: Path) -> None:
    found = methods(run("reproduce_fiun.py", tmp_path)["rows"], "2 roots, 50 % overlap")
    assert set(found) == {"fiun, alpha 1", "fiun, auto", "fiun, alpha 1, divided by 5", "steer", "logit mask"}
    for of in found.values():
        assert {r["heir"]: r["depth"] for r in of} == {"first": 0, "second": 0, "heir-1": 1}
        assert all(not r["holds_class"] for r in of if r["heir"] == "heir-1")
        assert all(r["retrained_forgotten"] == 0 for r in of if r["target"] == "absent")
    assert all(r["forgotten_after"] == 0 for r in found["logit mask"] if r["target"] == "absent")


def test_ssd(tmp_path: Path) -> None:
    rows = run("reproduce_ssd.py", tmp_path)["rows"]
    assert set(methods(rows, "a class")) == {
        "ssd, alpha 10",
        "ssd, alpha 10, batch-mean squares of 320, first 32",
        "logit mask",
    }
    (sub,) = methods(rows, "a sub-class")["ssd, alpha 10"]
    assert sub["target"] == "as_retrained"
    assert 60 < sub["rows_forgotten"] < 120  # the threes that were trained on, not the pair
    assert sub["retrained_forgotten"] < sub["forgotten_before"]


def test_lfssd(tmp_path: Path) -> None:
    rows = run("reproduce_lfssd.py", tmp_path)["rows"]
    assert set(methods(rows, "a class")) == {"lfssd, alpha 10", "lfssd, auto", "logit mask"}
    (random,) = methods(rows, "1 % of the rows")["lfssd, alpha 10"]
    assert random["target"] == "as_retrained"
    assert random["rows_forgotten"] == 9


def test_fishermask(tmp_path: Path) -> None:
    rows = run("reproduce_fishermask.py", tmp_path)["rows"]
    (none,) = methods(rows, "ratio 0%")["mask 0%"]
    assert (none["forgotten_after"], none["retained_after"]) == (none["forgotten_before"], none["retained_before"])
    (masked,) = methods(rows, "ratio 25%")["mask 25%"]
    assert (masked["forgotten_after"], masked["retained_after"]) != (masked["forgotten_before"], masked["retained_before"])


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.usefixtures("scripts")
def test_every_published_number_is_compared_with_a_cell_that_is_run(name: str) -> None:
    module, metrics = import_module(name), import_module("reproduced").METRICS
    cells = module.cells() if name == "reproduce_fiun" else module.CPU
    assert len({c.name for c in cells}) == len(cells)
    for claim in module.PAPER.claims:
        assert claim.cell in {c.name for c in cells}
        assert claim.metric in metrics


@pytest.mark.usefixtures("scripts")
def test_claims_are_answered_from_heirs_that_knew_and_a_missing_cell_is_said() -> None:
    table = import_module("reproduced")
    row = {
        "cell": "c", "seed": 0, "method": "m", "request": "r", "class": "0", "heir": "h", "target": "absent",
        "status": "committed", "forgotten_before": 1.0, "forgotten_after": 0.25, "rows_forgotten": 100,
        "retrained_forgotten": 0.0, "retained_before": 0.9, "retained_after": 0.8, "mask_retained": 0.9,
        "retrained_retained": 0.95, "rows_retained": 100, "unlearn_seconds": 1.0, "retrain_seconds": 4.0,
        "measure_seconds": 0.5, "rows_read": 40, "rows_again": 800, "bytes_up": 1234,
    }  # fmt: skip
    knew_not = {**row, "heir": "deep", "forgotten_before": 0.4, "forgotten_after": 0.4}
    claim = {"says": "s", "value": "0 %", "theirs": "t", "cell": "c"}
    rows = [row, knew_not]
    for metric, ours in {
        "left": "m: 25.0; retrained: 0.0",
        "lost": "m: 10.0; retrained: -5.0",
        "saved": "m: 75.0; retrained: -",
    }.items():
        assert f"{metric}: {ours} |" in table.claims({"published": [{**claim, "metric": metric}], "rows": rows})
    assert "left: not run" in table.claims({"published": [{**claim, "metric": "left", "cell": "d"}], "rows": rows})
    assert (
        "| 1 of 2 | 100.0 | 25.0 | 25.0 | 90.0 | 10.0 | 0.0 | 2 of 2 | 1.00 | 0.50 | 4.00 | 0.250 | 40 | 800 | 1.2 |"
        in table.details(rows)
    )


@pytest.mark.usefixtures("scripts")
def test_some_cells_take_the_place_of_their_rows_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("reproduction")
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    came, was = {"versions": {}, "commit": "b", "host": "h"}, {"versions": {}, "commit": "a", "host": "h"}
    fresh = [{"cell": "two", "new": True}]
    assert module.beside("x", fresh, [came], ["one", "two"]) == (fresh, [came])
    kept = [{"cell": c, "new": False} for c in ("one", "two", "gone")]
    (tmp_path / "x.json").write_text(json.dumps({**was, "rows": kept}))
    assert module.beside("x", fresh, [came], ["one", "two"]) == ([kept[0], fresh[0]], [came, was])


@pytest.mark.usefixtures("scripts")
def test_scoring_is_taken_out_of_both_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("reproduction")
    monkeypatch.setattr(module, "_scoring", lambda nest, request: 0.5)
    subject = import_module("single").class_cell((), classes="0").subject(0)
    row = {"request": "0", "seconds": 3.0, "evaluation_seconds": 1.0, "measure_seconds": 1.5, "retrain_seconds": 9.0}
    ran, failed = module.clocked([row, {**row, "seconds": None, "evaluation_seconds": None}], "c", subject, None)
    assert [ran[f"{w}_seconds"] for w in ("unlearn", "measure", "retrain")] == [1.5, 1.5, 8.0]
    assert failed["unlearn_seconds"] is None


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("roots", [1, 2, 3])
def test_divided_evidence_is_divided_once_for_each_further_root(roots: int) -> None:
    divided = import_module("switches").DividedFIUn()
    evidence = [Draw(divided, seed).evidence("b") for seed in range(roots)]
    (ours,), (plain,) = divided.merge(evidence), FIUn().merge(evidence)
    for name, tensor in plain.means.items():
        torch.testing.assert_close(ours.means[name] * 5 ** (roots - 1), tensor)


@pytest.mark.usefixtures("scripts")
def test_batch_mean_squares_of_single_rows_are_ssd_and_of_more_are_not() -> None:
    kind = import_module("switches").BatchMeanSSD
    draw = Draw(kind(), 3)
    weights = draw.weights()
    case = replace(draw.heir()[1], home=draw.home(weights))
    assert case.home is not None
    forgotten, rest, net = case.home.forgotten, case.home.retained, case.home.net
    x, y = torch.cat([forgotten.x, rest.x]), torch.cat([forgotten.y, rest.y])
    exact = [measure(net, *rows, head=case.head).mean("squares") for rows in ((forgotten.x, forgotten.y), (x, y))]
    by_one = kind(batch=1, alpha=1.0).edit(weights, case, {})
    torch.testing.assert_close(by_one, dampen(weights, exact[0], exact[1], 1.0, 1.0))
    by_all = kind(batch=len(y), alpha=1.0).edit(weights, case, {})
    assert any(not torch.equal(by_all[n], by_one[n]) for n in weights)


@pytest.mark.usefixtures("scripts")
def test_moved_factors_are_the_same_of_every_tensor_but_elsewhere() -> None:
    kind = import_module("switches").MovedSSD
    drawn, case = Draw(kind(), 2).heir()
    ones = {n: torch.ones_like(t, dtype=torch.float64) for n, t in drawn.items()}
    strength = {"alpha": 1.0, "lam": 0.5}
    plain, moved = (of.edit(ones, case, strength) for of in (SSD(), kind()))
    for name in ones:
        torch.testing.assert_close(moved[name].flatten().sort().values, plain[name].flatten().sort().values)
    assert any(not torch.equal(moved[n], plain[n]) for n in ones)
    assert any(bool((plain[n] != 1).any()) for n in ones)


@pytest.mark.usefixtures("scripts")
def test_batches_are_read_class_by_class_and_cut_short() -> None:
    kind, y = import_module("switches").BatchMeanSSD, torch.tensor([1, 0, 1, 0, 1, 0, 0])
    assert kind(batch=4).read(y).tolist() == [1, 3, 5, 6, 0, 2, 4]
    drawn = kind(batch=4, first=2).read(y).tolist()  # of rows in a random order
    assert len(set(drawn)) == len(drawn) == 4
    assert drawn == kind(batch=4, first=2).read(y.flip(0)).tolist()


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_a_whole_mask_takes_its_ratio_and_what_the_librarys_mask_takes_first(ratio: float) -> None:
    kind = import_module("switches").WholeFisherMask
    drawn, case = Draw(kind(), 1).heir()
    weights = {n: torch.ones_like(t) for n, t in drawn.items()}
    own = {n: t + case.merged[n].mean() for n, t in case.own.means.items()}  # most units matter more to the rest
    case = replace(case, own=replace(case.own, means=own))
    masked = kind(ratio).edit(weights, case, {"ratio": ratio})
    narrow = FisherMask(ratio=ratio, per_heir=True).edit(weights, case, {"ratio": ratio})
    layers = [n for n, t in weights.items() if t.dim() > 1 and n in case.merged]
    (told,) = kind(ratio).strengths(case)
    scores = torch.cat([(units(case.merged[n]) - units(own[n])).flatten() for n in layers])
    assert told == {"ratio": ratio, "more": float((scores > 0).double().mean()), "alike": float((scores == 0).double().mean())}
    whole = {n: units(masked[n]) == 0 for n in layers}
    total = sum(units(weights[n]).numel() for n in layers)
    assert sum(int(z.sum()) for z in whole.values()) == round(ratio * total)
    assert all(bool(whole[n][units(narrow[n]) == 0].all()) for n in layers)


@pytest.mark.usefixtures("scripts")
def test_parts_share_all_the_work_and_leave_families_whole() -> None:
    part = import_module("common").Part
    jobs = [(family, step) for step in range(3) for family in "abcde"]
    for of in (1, 2, 3, 7):
        shares = [part.read(f"{number}/{of}").share(jobs, lambda job: job[0]) for number in range(1, of + 1)]
        assert sorted(job for share in shares for job in share) == sorted(jobs)
        families = [family for share in shares for family in {job[0] for job in share}]
        assert len(families) == len(set(families))


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/2"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is no part; give its number and how many there are, such as 2/8"):
        import_module("common").Part.read(text)


@pytest.mark.usefixtures("scripts")
def test_a_cell_that_is_not_there_is_refused_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["reproduce_fiun.py", "--cells", "center"])
    fiun = import_module("reproduce_fiun")
    with pytest.raises(InputError, match=r"--cells: unknown cell 'center'; did you mean 'centre'\?"):
        fiun.reproduce("", fiun.PAPER, {"cpu": fiun.cells(), "test": fiun.TEST, "gpu": fiun.larger()})
