"""Families that grow, come from elsewhere, or are too big for a screen: extend, import, show."""

import io
import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml

from fedunlearn.cli.draw import lineage_tree
from fedunlearn.cli.picture import draw_picture
from fedunlearn.errors import InputError
from fedunlearn.lineage import Lineage, Model, Shard
from fedunlearn.runtime import Family
from tests.cli.conftest import Run
from tests.conftest import snapshot


def test_extend_trains_on_from_the_versions_of_now(run: Run, folder: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.yaml"
    more.write_text(yaml.safe_dump({"models": {"next": {"born": "incremental", "from": ["eastern"], "site": "east"}}}))
    start = Family.open(folder).heads["eastern"]
    assert run("unlearn", folder, "--classes", "0", "--no-reference")[0] == 0
    after = Family.open(folder).heads["eastern"]
    assert after != start
    status, text, _ = run("extend", folder, more)
    assert status == 0
    assert "next" in text
    assert Family.open(folder).lineage["next"].started == {"eastern": after}
    assert run("rollback", folder, "--keep-exclusion")[0] == 0
    assert f"started from eastern {after[:12]}" in run("show", folder)[1]  # the version it came from is no longer the current
    before = snapshot(folder)
    status, _, said = run("extend", folder, more)
    assert status == 2
    assert "models.next: the family has one already" in " ".join(said.split())
    assert snapshot(folder) == before


def test_extend_says_what_started_from_a_model_that_still_holds_what_was_to_be_forgotten(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    assert run("unlearn", folder, "--classes", "1", "--no-reference", "--set", "alpha=1e9")[0] == 1
    more = {n: {"born": "incremental", "from": [n], "site": "east"} for n in ("eastern", "triage")}
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"models": {f"{n}-2": m for n, m in more.items()}}))
    _, _, said = run("extend", folder, tmp_path / "more.yaml")
    text = " ".join(said.split())
    assert "eastern-2: started from models that still hold what r-" in text
    assert "asked to forget (class 1), and hold it, too: ask again, and all are reached" in text
    assert "triage-2" not in text.partition("eastern-2: started")[2]


def test_import_makes_a_family_of_checkpoints(run: Run, folder: Path, tmp_path: Path) -> None:
    for model in ("eastern", "parallel"):
        assert run("export", folder, model, tmp_path / f"{model}.safetensors")[0] == 0
    digits = [str(c) for c in range(10)]
    zoo = {
        "name": "zoo",
        "data": {"set": "digits"},
        "net": {"name": "mlp", "hidden": 64},
        "models": {
            "eastern": {"file": "eastern.safetensors", "site": "east", "head": digits},
            "copy": {"file": "parallel.safetensors", "base_model": "clinic/eastern", "site": "west", "head": digits},
        },
    }
    (tmp_path / "lineage.yaml").write_text(yaml.safe_dump(zoo))
    status, text, _ = run("import", tmp_path / "lineage.yaml", "--out", tmp_path / "zoo", "--json")
    assert status == 0
    assert {m["name"]: m["parents"] for m in json.loads(text)["models"]} == {"eastern": [], "copy": ["eastern"]}
    assert run("plan", tmp_path / "zoo", "--classes", "0")[0] == 0
    zoo["models"]["copy"] |= {"file": "whole.pt"}  # type: ignore[index]
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    (tmp_path / "lineage.yaml").write_text(yaml.safe_dump(zoo))
    status, _, said = run("import", tmp_path / "lineage.yaml", "--out", tmp_path / "zoo2")
    assert status == 2
    assert "whole.pt" in said
    assert "state_dict()" in said
    del zoo["models"]["copy"]["file"]  # type: ignore[index]
    zoo["models"]["copy"] = {"born": "incremental", "site": "west"}  # type: ignore[index]
    (tmp_path / "lineage.yaml").write_text(yaml.safe_dump(zoo))
    status, _, said = run("import", tmp_path / "lineage.yaml", "--out", tmp_path / "zoo3")
    assert status == 2
    assert "models.copy: has no file, it would be trained" in " ".join(said.split())


def test_a_data_folder_is_named_once(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.setenv("FEDUNLEARN_DATA", "")
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "spots.npz", x=rng.random((60, 4, 4), dtype=np.float32), y=np.arange(60) % 3)
    plain = {
        "name": "spots",
        "data": {"set": "spots.npz"},
        "net": {"name": "mlp", "hidden": 8},
        "models": {"one": {"born": "incremental", "site": "a"}},
    }
    (tmp_path / "spots.yaml").write_text(yaml.safe_dump(plain))
    words = ("train", tmp_path / "spots.yaml", "--out", tmp_path / "family")
    status, _, said = run(*words)
    assert status == 2
    assert "pass --data DIR, or set FEDUNLEARN_DATA" in " ".join(said.split())
    status, _, said = run(*words, "--data", tmp_path / "nowhere")
    assert status == 2
    assert "no such folder" in said
    assert run(*words, "--data", tmp_path / "data")[0] == 0
    assert run("unlearn", tmp_path / "family", "--classes", "0", "--no-reference", "--data", tmp_path / "data")[0] in (0, 1)


def test_flower_trains_what_the_loop_trains(run: Run, tmp_path: Path) -> None:
    assert run("train", "federation", "--out", tmp_path / "loop")[0] == 0
    assert run("train", "federation", "--out", tmp_path / "flower", "--backend", "flower")[0] == 0
    loop, flower = Family.open(tmp_path / "loop"), Family.open(tmp_path / "flower")
    assert loop.lineage == flower.lineage
    a, b = (f.store("server").read(f.heads["global"]).weights for f in (loop, flower))
    assert all(torch.allclose(a[n], b[n], rtol=1e-4, atol=1e-6) for n in a)


def star(heirs: int, links: int) -> Lineage:
    shard = (Shard("s", "main", {"0": 1}),)
    models = [Model("root", "s", "incremental", ("0",), (), shard)]
    models += [Model(f"star-{i}", f"h{i}", "transfer", ("a",), ("root",), shard) for i in range(heirs)]
    names = ["root", *(f"chain-{i}" for i in range(links))]
    models += [Model(n, "s", "incremental", ("0",), (p,), shard) for p, n in pairwise(names)]
    return Lineage(tuple(models))


def drawn(lineage: Lineage, whole: bool = False, notes: dict[str, str] | None = None) -> list[str]:
    from rich.console import Console

    console = Console(width=500, file=io.StringIO(), record=True)
    tree, folded = lineage_tree(lineage, {}, notes or {}, whole=whole)
    console.print(tree)
    for line in folded:
        console.print(line)
    return console.export_text().splitlines()


def test_big_families_are_folded_and_nothing_is_hidden_without_a_word() -> None:
    lineage = star(40, 49)
    short = drawn(lineage)
    assert len(short) < 12
    assert any("star-0 ... star-39" in line and "40 models alike" in line for line in short)
    assert any("models in the middle of chains left out" in line for line in short)
    assert any("chain-48" in line for line in short)
    assert len(drawn(lineage, whole=True)) == 1 + len(lineage.models)
    noted = drawn(lineage, notes={"star-7": "pending", "chain-20": "pending"})
    assert any("star-7 " in line and "pending" in line for line in noted)
    assert any("chain-20 " in line and "pending" in line for line in noted)
    assert len(drawn(star(3, 3))) == 8


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_a_picture_of_the_lineage(ending: str, tmp_path: Path) -> None:
    draw_picture(star(5, 4), tmp_path / "deep" / f"lineage.{ending}", pending=("star-1",))
    data = (tmp_path / "deep" / f"lineage.{ending}").read_bytes()
    assert data[:4] in (b"<?xm", b"\x89PNG", b"%PDF")
    if ending == "svg":
        assert b"chain-3" in data
        assert b"#cc3311" in data


def test_a_picture_of_no_known_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lineage.gif: expected a file that ends in .svg, .png, .pdf"):
        draw_picture(star(1, 1), tmp_path / "lineage.gif")
