"""A short form means the same as the models it stands for, and its mistakes are said where they were made."""

from typing import Any

import pytest

from fedunlearn.errors import InputError
from fedunlearn.scenario.files import parse
from fedunlearn.scenario.macros import expand

BASE = {"name": "m", "data": {"set": "digits"}, "net": {"name": "mlp"}}
ROOT = {"root": {"born": "incremental", "site": "a"}}


def test_a_federation_and_ranks_name_their_sites() -> None:
    found = expand(
        {"g": {"federation": {"clients": 3, "rounds": 2}, "epochs": 1}, "d": {"from": "g", "ddp": {"ranks": 2}}}, "x"
    )
    assert found["g"] == {"epochs": 1, "rounds": 2, "born": "federated", "clients": ["client-1", "client-2", "client-3"]}
    assert found["d"] == {"from": ["g"], "born": "distributed", "ranks": ["rank-1", "rank-2"]}


def test_a_chain_hangs_together_and_its_name_is_its_end() -> None:
    found = expand(
        {**ROOT, "c": {"from": "root", "increments": {"count": 3}}, "after": {"from": "c", "born": "incremental"}}, "x"
    )
    assert [found[f"c-{i}"]["from"] for i in (1, 2, 3)] == [["root"], ["c-1"], ["c-2"]]
    assert [found[f"c-{i}"]["site"] for i in (1, 2, 3)] == ["c-1", "c-2", "c-3"]
    assert found["after"]["from"] == ["c-3"]


def test_a_chain_that_grows_trains_on_what_it_adds() -> None:
    found = expand({**ROOT, "c": {"from": "root", "increments": {"count": 2, "site": "a", "adds": [["5"], ["6", "7"]]}}}, "x")
    assert found["c-2"] == {"born": "incremental", "site": "a", "from": ["c-1"], "adds": ["6", "7"], "classes": ["6", "7"]}


def test_a_star_shares_its_parent_and_takes_sites_in_turn() -> None:
    star = {"from": "root", "transfers": {"count": 3, "sites": ["a", "b"], "head": ["1", "2"]}}
    found = expand({**ROOT, "s": star}, "x")
    assert [found[f"s-{i}"]["site"] for i in (1, 2, 3)] == ["a", "b", "a"]
    assert all(found[f"s-{i}"]["from"] == ["root"] for i in (1, 2, 3))


def test_a_short_form_equals_the_long_one() -> None:
    short = {**ROOT, "c": {"from": "root", "increments": {"count": 2}, "epochs": 3}}
    long = {
        **ROOT,
        "c-1": {"born": "incremental", "from": ["root"], "site": "c-1", "epochs": 3},
        "c-2": {"born": "incremental", "from": ["c-1"], "site": "c-2", "epochs": 3},
    }
    assert parse({**BASE, "models": short}, "x") == parse({**BASE, "models": long}, "x")


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"g": {"federation": {"clients": 0}}}, r"x: models\.g\.federation\.clients: 0: expected from 1 to"),
        ({"g": {"federation": 3}}, r"models\.g\.federation: 3: expected a mapping, for example \{clients: 10"),
        ({"g": {"federation": {"clients": 2}, "ddp": {"ranks": 2}}}, r"models\.g: names both federation and ddp"),
        ({"g": {"born": "federated", "ddp": {"ranks": 2}}}, r"models\.g\.ddp: 'born' is said by ddp itself"),
        ({"g": {"epochs": 1, "ddp": {"ranks": 2, "epochs": 2}}}, r"models\.g\.ddp: 'epochs' is said by ddp itself"),
        ({"c": {"increments": {"count": 0}}}, r"models\.c\.increments\.count: 0: expected how many models"),
        ({"c": {"increments": {"count": 2, "adds": [["1"]]}}}, r"increments\.adds: expected a list of 2 lists of classes"),
        ({"c": {"increments": {"count": 1, "heads": [["1"]]}}}, r"increments: unknown key 'heads'; did you mean 'adds'"),
        ({"c": {"increments": {"count": 1, "site": "a", "sites": ["b"]}}}, r"give site or sites, not both"),
        ({"c": {"increments": {"count": 1, "sites": "b"}}}, r"increments\.sites: 'b': expected a list of names"),
        ({"c": {"increments": {"count": 1}}, "c-1": {}}, r"models\.c: makes a model 'c-1', but there is one of that name"),
        (
            {"s": {"from": "r", "transfers": {"count": 2, "head": ["1"]}}, "t": {"from": "s", "born": "incremental"}},
            r"models\.t\.from: 's' is a star of models; name one of them, for example s-1",
        ),
    ],
)
def test_mistakes_in_short_forms_are_said(models: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        expand(models, "x")


def spec(**models: Any) -> dict[str, Any]:
    return {**BASE, "nets": {"other": {"name": "cnn"}}, "models": {**ROOT, **models}}


def born(how: str, **more: Any) -> dict[str, Any]:
    places = {"federated": {"clients": ["a"]}, "distributed": {"ranks": ["a"]}}.get(how, {"site": "a"})
    return {"born": how, "from": ["root"], **places, **more}


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        (
            spec(m=born("federated", strategy="fedadm")),
            r"models\.m\.strategy: unknown strategy 'fedadm'; did you mean 'fedadam'",
        ),
        (spec(m=born("federated", keep="none")), r"models\.m.*keep.*none"),
        (spec(m=born("federated", keep={"every": 0})), r"models\.m.*every.*0"),
        (spec(m=born("federated", rounds=3, keep={"every": 5})), r"models\.m.*every.*5"),
        (spec(m=born("incremental", head=["1"])), r"models\.m\.head: it has the outputs of its parents"),
        (spec(m=born("transfer", head=3)), r"models\.m\.head: 3: name every output by its class"),
        (spec(m=born("incremental", replay=5)), r"models\.m\.replay: replays classes that it is not trained on"),
        (spec(m={"born": "incremental", "site": "a", "ewc": 1}), r"models\.m\.ewc: there is no model to hold on to"),
        (spec(m={"born": "incremental", "site": "a", "adds": ["x"]}), r"models\.m\.adds: it starts from nothing: say `head`"),
        (
            spec(h={"born": "incremental", "site": "a", "head": ["1"]}, m={**born("incremental", adds=["1"]), "from": ["h"]}),
            r"models\.m\.adds: it has an output for 1 already",
        ),
        (spec(m=born("incremental", net="othr")), r"models\.m\.net: unknown net 'othr'; did you mean 'other'"),
        (
            spec(m=born("incremental", net="other")),
            r"models\.m: a model has the architecture of its parents, but root is the net",
        ),
        (spec(m=born("incremental", data="letters")), r"models\.m\.data: unknown set 'letters'; known: main"),
        ({**spec(), "data": {"set": "digits", "share": {"rank-*": 2}}}, r"data\.share: unknown site 'rank-\*'; known: a"),
    ],
)
def test_mistakes_about_inheritance_are_said(plain: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(plain, "x")
