"""Topologies, imports and site files of an enemy: a scenario, or an error that names the file; soon, and in little memory."""

import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings, strategies as st

from fedunlearn.errors import InputError
from fedunlearn.nets import build
from fedunlearn.scenario import load, open_site
from tests.conftest import ROOT
from tests.hostile.spoil import changed, lawful, spoiled, text_of

SHIPPED = sorted((ROOT / "topologies").glob("*.yaml"))
IMPORTS = {
    "name": "zoo", "data": {"set": "digits"}, "net": {"name": "mlp", "hidden": 8},
    "models": {"base": {"file": "base.pt", "head": ["0", "1"], "site": "north"}, "tuned": {
        "file": "tuned.safetensors", "base_model": "base", "head": ["0", "1"], "how": "transfer"}},
}  # fmt: skip
SITE = {
    "name": "north", "store": "store", "data": {"set": "digits", "limit": 5}, "net": {"name": "mlp"}, "policy": "ask",
    "methods": ["mine:Method"], "evidence": {"at_least": 5, "clip": 1.0, "noise": 0.5},
}  # fmt: skip


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("yaml") / "some.yaml"


def opened(path: Path) -> None:
    """As a topology, and all that is asked of it before anything is opened; and as a site's file."""

    def told() -> None:
        scenario = load(path)
        for name in scenario.models:
            scenario.outputs(name)
        _ = (scenario.places, scenario.sets, scenario.parents, [a.request(n) for n, a in scenario.requests.items()])

    lawful(told, path)
    lawful(lambda: open_site(path), path)


@pytest.mark.parametrize("plain", [*(yaml.safe_load(p.read_text()) for p in SHIPPED), IMPORTS, SITE], ids=lambda p: p["name"])
def test_any_value_anywhere(plain: dict[str, Any], path: Path) -> None:
    @settings(max_examples=25, derandomize=True)
    @given(st.data())
    def law(data: st.DataObject) -> None:
        path.write_text(text_of(data.draw(changed(plain)), deep=600), errors="surrogatepass")
        opened(path)

    law()


@settings(max_examples=60, derandomize=True)
@given(data=st.data())
def test_any_bytes(data: st.DataObject, path: Path) -> None:
    path.write_bytes(data.draw(spoiled(data.draw(st.sampled_from(SHIPPED)).read_bytes())))
    opened(path)


def laughs(levels: int, kind: str) -> str:
    """Each level names the one before nine times: nine to the levels values out of a few lines."""
    last = {"list": "a0: &a0 [x]", "merge": "a0: &a0 {x: 1}"}[kind]
    lines = [last]
    for i in range(1, levels + 1):
        nine = ", ".join([f"*a{i - 1}"] * 9)
        lines.append(f"a{i}: &a{i} [{nine}]" if kind == "list" else f"a{i}: &a{i} {{<<: [{nine}]}}")
    return "\n".join(lines)


HUGE = {
    "a billion laughs": laughs(12, "list"),
    "a billion laughs by merging": laughs(12, "merge"),
    "an alias in itself": "a: &a [*a]",
    "nested lists": "[" * 1000,
    "nested mappings": "{a: " * 1000,
    "nested blocks": "\n".join(" " * i + "a:" for i in range(1000)),
    "nested sequences": "- " * 2000,
    "digits": f"name: {'9' * 20_000}",
    "digits of base 60": f"name: 1{':59' * 50_000}",
    "many keys": "\n".join(f"k{i}: 1" for i in range(2000)),
    "many documents": "--- a\n" * 1000,
    "not UTF-8": "name: \udcff\udcfe",
    "a directive": "%YAML 9.9\n---\na: 1",
    "a key twice": "name: a\nname: b",
    "a list for a key": "? [a]\n: 1",
    "a date for a key": "2020-01-01: 1",
    "code": "!!python/object/apply:os.mkdir [escaped]",
    "bytes": "name: !!binary aGVsbG8=",
    "a set": "name: !!set {a}",
}


@pytest.mark.parametrize("what", HUGE)
def test_what_would_take_for_ever_or_all_memory(what: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    path.write_bytes(HUGE[what].encode("utf-8", "surrogateescape"))
    if laughing := "laughs" in what:
        tracemalloc.start()
    try:
        for read in (load, open_site):
            with pytest.raises(InputError, match=r"some\.yaml"):
                read(path)
        assert not laughing or tracemalloc.get_traced_memory()[1] < 2**20 + 1000 * path.stat().st_size
    finally:
        tracemalloc.stop()
    assert not (path.parent / "escaped").exists()


def test_aliases_of_little_are_fine(path: Path) -> None:
    path.write_text(
        "name: some\ndata: {set: digits}\nnet: {name: mlp}\nmodels:\n  x: &x {born: incremental, site: a}\n  z: *x\n"
    )
    assert {n: m.sites for n, m in load(path).models.items()} == {"x": ("a",), "z": ("a",)}


def test_a_chain_as_long_as_a_short_form_makes_it(path: Path) -> None:
    """What follows parents to the first must not run out of stack."""
    models = {"step": {"increments": {"count": 1000}, "epochs": 1, "site": "north"}}
    plain = {**IMPORTS, "models": models}
    path.write_text(json.dumps(plain))
    scenario = load(path)
    assert scenario.outputs("step-1000") == ("main", ())
    assert scenario.net_of("step-1000") == ""


def test_short_forms_do_not_make_more_models_than_a_machine_holds(path: Path) -> None:
    clients = {f"m{i}": {"federation": {"clients": 10_000}} for i in range(11)}
    chains = {f"m{i}": {"increments": {"count": 10_000}, "site": "a"} for i in range(11)}
    for models in (clients, chains):
        path.write_text(json.dumps({**IMPORTS, "models": models}))
        with pytest.raises(InputError, match=r"some\.yaml: models: .* in all, expected at most"):
            load(path)


NETS: list[dict[str, Any]] = [
    {"name": "mlp", "hidden": 10**15},
    {"name": "mlp", "hidden": -1},
    {"name": "mlp", "hidden": 10**30},
    {"name": "mlp", "hidden": "x"},
    {"name": "mlp", "hidden": float("nan")},
    {"name": "cnn", "channels": 10**12},
]


@pytest.mark.parametrize("net", NETS, ids=str)
def test_a_net_that_no_machine_holds(net: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"net {net['name']}"):
        build(net, (1, 8, 8), 2)
