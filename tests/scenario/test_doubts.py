"""What may be wrong with checkpoints of others is said, and what cannot be edited truly is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fedunlearn.errors import InputError, ShapeError
from fedunlearn.lineage import Request, discover, unaccounted
from fedunlearn.nets import build
from fedunlearn.nets.checkpoint import fit_to
from fedunlearn.report import document
from fedunlearn.runtime import Family, InProcess, cases, remaining, seal, unlearn
from fedunlearn.scenario import Scenario, doubts, extend, of_family, train, workers
from tests.cli.conftest import Run, run as run
from tests.scenario.digits import scenario, weights

DIGITS = [str(i) for i in range(10)]
LEAVE = Request(classes=("0",))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of site a, which knows the digits."""
    folder = tmp_path_factory.mktemp("origin")
    origin = train(scenario({"base": {"born": "incremental", "site": "a", "epochs": 6}}), folder / "family")
    save_file(weights(origin, "base"), folder / "base.safetensors")
    return folder / "base.safetensors"


def zoo(file: Path, **models: dict[str, Any]) -> Scenario:
    plain = {name: {"file": str(file), "head": DIGITS, **spec} for name, spec in models.items()}
    return scenario(plain)


def said(family: Family) -> str:
    return "\n".join(doubts(family, family.heads))


def test_a_right_one_raises_none_but_of_held_out_rows(file: Path, tmp_path: Path) -> None:
    (told,) = doubts(train(zoo(file, base={"site": "a"}), tmp_path / "f"), ["base"])
    assert "are held out, as rows that trained no model: where 'base' were trained on all of them" in told
    own = train(scenario({"base": {"born": "incremental", "site": "a"}}), tmp_path / "own")
    assert not doubts(own, own.heads)


def test_names_in_another_order_than_the_outputs_are_noticed(run: Run, file: Path, tmp_path: Path) -> None:
    wrong = ["1", "0", *DIGITS[2:]]
    told = said(train(zoo(file, base={"site": "a", "head": wrong}), tmp_path / "f"))
    assert "base: of the rows of a/main that are said to have trained it, it recognises" in told
    assert "% of class 0" in told
    assert "% of class 1" in told
    assert "% of class 2" not in told
    out = run("unlearn", tmp_path / "f", "--classes", "0", "--no-reference", "--method", "logit_mask")[1]
    assert "recognised less than half of it before, so that it shows little now: base" in out


def test_outputs_that_nothing_taught_are_named_where_they_matter(run: Run, file: Path, tmp_path: Path) -> None:
    models = {"base": {"site": "a"}, "strange": {"head": ["zero", *DIGITS[1:]], "site": "a"}, "orphan": {}}
    family = train(zoo(file, **models), tmp_path / "f")
    assert family.lineage.untaught("base") == ()
    assert family.lineage.untaught("strange") == ("zero",)
    assert family.lineage.untaught("orphan") == tuple(DIGITS)
    assert "strange: no recorded row taught its outputs 'zero', so that no request for them reaches it; no set here" in said(
        family
    )
    assert unaccounted(family.lineage, Request(merges=(LEAVE, Request(classes=("1",)))), {"base"}) == ["orphan"]
    assert unaccounted(family.lineage, LEAVE, {"base", "orphan"}) == []
    assert "note: orphan has an output for what" in run("plan", tmp_path / "f", "--classes", "0")[2]
    unlearn(family, LEAVE, "logit_mask", InProcess(workers(of_family(family), family)))
    told = document(Family.open(family.folder), family.ledger.lines[-1], {})
    assert next(x["text"] for x in told["limits"] if x["about"] == "Not reached").startswith("orphan can name what is to")
    assert [m["name"] for m in told["models"] if m["why"].endswith("nobody here knows what taught that.")] == ["orphan"]


def test_a_new_head_with_names_of_its_parents_is_asked_about(file: Path, tmp_path: Path) -> None:
    child = {"from": ["base"], "how": "transfer"}
    told = said(train(zoo(file, base={"site": "a"}, child=child), tmp_path / "f"))
    assert "child: outputs '0', '1', '2', '3', '4' and 5 more of its new head are called like its parent's" in told


def test_what_comes_after_a_request_was_trained_on_what_it_excludes(file: Path, tmp_path: Path) -> None:
    family = train(zoo(file, base={"site": "a"}), tmp_path / "f")
    unlearn(family, LEAVE, "logit_mask", InProcess(workers(of_family(family), family)))
    late = {"file": str(file), "head": DIGITS, "site": "a"}
    family = extend(Family.open(family.folder), {"models": {"late": late}}, "more.yaml")
    assert family.lineage["late"].data == family.lineage["base"].data
    (case,) = cases(family)
    assert case.left == ("late",)
    assert [h.name for h in remaining(family, discover(family.lineage, LEAVE)).plan.heirs] == ["late"]


def test_sealing_names_who_still_has_the_weights_of_before(run: Run, file: Path, tmp_path: Path) -> None:
    family = train(zoo(file, base={"site": "a"}, copy={}), tmp_path / "f")
    backend = InProcess(workers(of_family(family), family))
    unlearn(family, LEAVE, "logit_mask", backend)
    shutil.copytree(family.folder, tmp_path / "machine")
    assert json.loads(run("seal", tmp_path / "machine", "--yes", "--json")[1])["still_in_force"] == {"copy": "base"}
    out = run("seal", tmp_path / "f", "--yes")[1]
    assert "still in force: copy has the very weights that base had before" in out
    other = train(zoo(file, base={"site": "a"}), tmp_path / "alone")
    unlearn(other, LEAVE, "logit_mask", InProcess(workers(of_family(other), other)))
    seal(Family.open(other.folder), InProcess(workers(of_family(other), other)))
    assert "still in force" not in run("show", tmp_path / "alone")[1]


class Twice(torch.nn.Module):
    """One layer under two names."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(inputs, outputs)
        self.head = self.fc

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 8, 8] -> [N, outputs]."""
        out: torch.Tensor = self.head(x.flatten(1))
        return out


def twice(shape: tuple[int, ...], outputs: int) -> Twice:
    return Twice(shape[0] * shape[1], outputs)


def test_a_tensor_with_two_names_is_refused() -> None:
    with pytest.raises(InputError, match=r"'fc.weight' and 'head.weight' are one tensor, so that an edit of one would be lost"):
        build({"factory": f"{__name__}:twice"}, (8, 8), 10)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64])
def test_whole_numbers_are_no_weights(dtype: torch.dtype) -> None:
    net = build({"name": "mlp", "hidden": 4}, (8, 8), 10)
    held = {n: t.to(dtype) if n.endswith("head.weight") else t for n, t in net.state_dict().items()}
    with pytest.raises(ShapeError, match=rf"is of {dtype} in the file, of torch.float32 in the net \(of quantised weights"):
        fit_to(net, held)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"site": "a", "sites": ["b"]}, "give site or sites, not both"),
        ({"site": "a", "epochs": 3}, "epochs is of a training, and what has a file is not trained here"),
        ({"site": "a", "base_model": "google/vit"}, "'google/vit' is no model of this file: leave it out"),
        ({"site": "a", "basemodel": "x"}, "unknown key 'basemodel'; did you mean 'base_model'"),
    ],
)
def test_what_is_written_down_wrongly_is_refused(model: dict[str, Any], message: str, file: Path) -> None:
    with pytest.raises(InputError, match=message):
        zoo(file, base=model)


def test_without_a_row_no_net_can_be_tried(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no site is named and no set to test on"):
        train(zoo(file, base={}), tmp_path / "f")
    assert not (tmp_path / "f").exists()
