"""A lineage cannot exist wrong."""

import pytest
from hypothesis import given

from fedunlearn.errors import InputError
from fedunlearn.lineage import Lineage, Model, ordered
from tests.lineage.families import lineages


def model(name: str, *parents: str, born: str = "incremental", kept: bool = True) -> Model:
    return Model(name, "home", born, ("a",), parents, kept=kept)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ((model("a"), model("a")), "more than one model is named 'a'"),
        ((model("alpha"), model("b", "alpa")), "model 'b': unknown parent 'alpa'; did you mean 'alpha'"),
        ((model("alpha-1", "alpha"), model("other")), "unknown parent 'alpha'; known: other"),  # not itself, which is no parent
        ((model("a", "c"), model("b", "a"), model("c", "b")), "inherit in a cycle: .*a.* -> .*b.* -> .*c"),
        ((model("b", "a"), model("a")), "'b' is listed before its parent 'a'"),
    ],
)
def test_wrong_lineages_are_refused(models: tuple[Model, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Lineage(models)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: model(""), "name and home must not be empty"),
        (lambda: model("a", "a"), "is its own parent"),
        (lambda: model("a", "b", "b"), "parents names 'b' more than once"),
        (lambda: model("a", born="federate"), "unknown kind of birth 'federate'; did you mean 'federated'"),
        (lambda: Model("a", "home", "incremental", ()), "its head has no names"),
        (lambda: Model("a", "home", "incremental", ("x", "x")), "head names 'x' more than once"),
    ],
)
def test_wrong_models_are_refused(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


@given(lineages())
def test_json_and_back(lineage: Lineage) -> None:
    assert Lineage.from_json(lineage.to_json()) == lineage


def test_order_puts_parents_first_and_otherwise_keeps_the_file() -> None:
    assert ordered({"c": ("a",), "b": (), "a": ()}) == ("b", "a", "c")
    with pytest.raises(InputError, match=r"cycle: x -> y -> x|cycle: y -> x -> y"):
        ordered({"x": ("y",), "y": ("x",)})


def test_heads_are_shared_until_a_transfer_replaces_them() -> None:
    lineage = Lineage((model("a"), model("b", "a"), model("t", "b", born="transfer"), model("u", "t"), model("z")))
    assert lineage.shares_head("a", "b")
    assert lineage.shares_head("t", "u")
    assert not lineage.shares_head("a", "t")
    assert not lineage.shares_head("b", "u")
    assert not lineage.shares_head("a", "z")


def test_kept_parents_look_past_retired_models() -> None:
    lineage = Lineage((model("a"), model("b", "a", kept=False), model("c", "b", kept=False), model("d", "c", "a")))
    assert lineage.kept_parents("d") == ("a",)
    assert lineage.kept_parents("a") == ()


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(InputError, match="unknown model 'sharde'; did you mean 'shared'"):
        Lineage((model("shared"),))["sharde"]
