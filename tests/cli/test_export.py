"""What is exported can be told again: the same bytes every time, and by its tensors which version of which model it is."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fedunlearn.runtime import Family
from tests.cli.conftest import Run


@pytest.fixture
def exported(run: Run, folder: Path, tmp_path: Path) -> Path:
    file = tmp_path / "eastern.safetensors"
    assert run("export", folder, "eastern", file)[0] == 0
    return file


def identified(run: Run, folder: Path, file: Path) -> tuple[int, list[dict[str, object]]]:
    status, text, _ = run("identify", folder, file, "--json")
    return status, json.loads(text)["found"]


def test_one_version_is_exported_as_the_same_bytes(run: Run, folder: Path, exported: Path) -> None:
    for _ in range(8):  # three keys of metadata in the library's order are alike in eight tries once in 6 ** 7
        before = exported.read_bytes()
        assert run("export", folder, "eastern", exported, "--force")[0] == 0
        assert exported.read_bytes() == before
    with safe_open(exported, framework="pt") as file:
        said = file.metadata()
    family = Family.open(folder)
    version = family.heads["eastern"]
    assert said == {"fedunlearn_model": "eastern", "fedunlearn_version": version, "classes": ",".join("0123456789")}
    held = family.store("east").read(version).weights
    assert {n: (t.dtype, t.tolist()) for n, t in load_file(exported).items()} == {
        n: (t.dtype, t.tolist()) for n, t in held.items()
    }


def test_a_file_is_told_by_its_tensors_whatever_became_of_its_version(run: Run, folder: Path, exported: Path) -> None:
    version = Family.open(folder).heads["eastern"]

    def told() -> tuple[object, ...]:
        status, found = identified(run, folder, exported)
        assert status == 0
        assert [(one["model"], one["version"]) for one in found] == [("eastern", version)]
        return tuple(found[0][k] for k in ("line", "state", "by"))

    assert told() == (0, "current", None)
    assert run("unlearn", folder, "leave", "--no-reference")[0] == 0
    assert told() == (0, "superseded", 1)
    new = exported.with_name("new.safetensors")
    run("export", folder, "eastern", new)
    assert [(x["line"], x["state"]) for x in identified(run, folder, new)[1]] == [(1, "current")]
    run("rollback", folder, "--keep-exclusion")
    assert told() == (0, "current", None)
    assert [(x["line"], x["state"], x["by"]) for x in identified(run, folder, new)[1]] == [(1, "superseded", 2)]
    assert run("unlearn", folder, "leave", "--no-reference")[0] == 0
    assert run("seal", folder, "--yes")[0] == 0
    assert told() == (0, "sealed", 4)
    said = " ".join(run("identify", folder, exported)[1].split())
    assert f"eastern {version[:12]}" in said
    assert "ledger line 0" in said
    assert "ledger line 4" in said


def test_every_kind_of_heir_is_told(run: Run, folder: Path, tmp_path: Path) -> None:
    """Federated, distributed, trained on, averaged, and with a head of its own."""
    heads = Family.open(folder).heads
    for model, version in heads.items():
        assert run("export", folder, model, tmp_path / model)[0] == 0
        _, found = identified(run, folder, tmp_path / model)
        assert {(x["model"], x["version"]) for x in found} == {(m, v) for m, v in heads.items() if v == version}
        assert {x["state"] for x in found} == {"current"}


def test_a_candidate_and_what_a_departed_place_had_are_told(run: Run, folder: Path, exported: Path) -> None:
    words = ("--classes", "0", "--set", "alpha=50", "--set", "lam=1", "--no-reference")
    assert run("unlearn", folder, *words)[0] == 1
    held = Family.open(folder).ledger.lines[-1].body["pending"]
    model = next(iter(held))
    file = exported.with_name("candidate.safetensors")
    assert run("export", folder, model, file, "--version", held[model][:12])[0] == 0
    assert [(x["model"], x["line"], x["state"]) for x in identified(run, folder, file)[1]] == [(model, 1, "held back")]
    assert run("export", folder, "eastern", exported, "--force")[0] == 0
    assert run("depart", folder, "east", "--yes")[0] == 0
    assert [(x["state"], x["by"]) for x in identified(run, folder, exported)[1]] == [("lost", 2)]


def test_other_weights_are_no_version_whatever_they_say_of_themselves(run: Run, folder: Path, exported: Path) -> None:
    weights = load_file(exported)
    with safe_open(exported, framework="pt") as file:
        said = file.metadata()
    bare = exported.with_name("bare.safetensors")
    save_file(weights, bare)
    assert identified(run, folder, bare)[0] == 0  # its tensors tell it
    name = "head.weight"
    for wrong in (
        {**weights, name: torch.nextafter(weights[name], torch.tensor(9.0))},
        {**weights, name: weights[name].flip(0)},
        {**weights, name: weights[name].double()},
        {n: t for n, t in weights.items() if n != name},
        {**weights, "more": torch.zeros(1)},
    ):
        save_file(wrong, bare, metadata=said)
        status, text, _ = run("identify", folder, bare)
        assert (status, "no version of a model of" in " ".join(text.split())) == (1, True)
    save_file(weights, bare, metadata={**said, "fedunlearn_version": "0" * 64})
    status, text, _ = run("identify", folder, bare)
    assert (status, f"says that it is eastern {'0' * 12}" in " ".join(text.split())) == (1, True)


def test_what_is_no_file_of_weights_is_wrong_input(run: Run, folder: Path, exported: Path) -> None:
    assert run("identify", folder, exported.with_name("none"))[0] == 2
    exported.write_bytes(exported.read_bytes()[:-1])
    status, _, said = run("identify", folder, exported)
    assert (status, "not a safetensors file" in " ".join(said.split())) == (2, True)


def test_an_edit_that_was_rolled_back_and_erased_is_not_said_to_know(run: Run, folder: Path, tmp_path: Path) -> None:
    before, edited = tmp_path / "before", tmp_path / "edited"
    run("export", folder, "eastern", before)
    for words in (("leave",), ("--classes", "5", "--case", "five")):
        was = Family.open(folder).heads["eastern"]
        run("unlearn", folder, *words, "--method", "logit_mask", "--no-reference", "--accept-untested", "for the test")
        assert Family.open(folder).heads["eastern"] != was
    run("export", folder, "eastern", edited)
    run("rollback", folder, "--keep-exclusion")
    assert run("seal", folder, "--request", "leave", "--yes")[0] == 0
    assert [(x["state"], x["by"]) for x in identified(run, folder, before)[1]] == [("sealed", 4)]
    assert [(x["state"], x["by"]) for x in identified(run, folder, edited)[1]] == [("superseded", 3)]


def test_nothing_is_called_current_by_a_ledger_that_was_cut(run: Run, folder: Path, exported: Path) -> None:
    whole = (folder / "ledger.jsonl").read_bytes()
    assert run("unlearn", folder, "leave", "--no-reference")[0] == 0
    (folder / "ledger.jsonl").write_bytes(whole)
    words = "lacks ledger lines that places have acknowledged"
    status, _, said = run("export", folder, "eastern", exported, "--force")
    assert (status, words in " ".join(said.split())) == (2, True)
    status, text, _ = run("identify", folder, exported)
    assert (status, words in " ".join(text.split())) == (1, True)
    assert words in " ".join(run("show", folder, "--requests")[1].split())
    assert words in json.loads(run("show", folder, "--requests", "--json")[1])["cut"]
    assert words in json.loads(run("show", folder, "--json")[1])["cut"]
    assert words in " ".join(run("plan", folder, "leave")[2].split())
