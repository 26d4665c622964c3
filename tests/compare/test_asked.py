"""Methods, settings and requests of a comparison, from words."""

import json

import pytest

from fedunlearn.compare import Choice, choices_of, requests_of
from fedunlearn.errors import InputError
from fedunlearn.methods import make


def test_methods_settings_and_requests_from_words() -> None:
    found = choices_of("fiun, ssd", ["fiun.alpha=10", "ssd.layers=last"])
    assert [c.label for c in found] == ["fiun", "ssd", "logit_mask"]
    assert json.loads(json.dumps(found[0].to_json()))["settings"]["alpha"] == 10
    assert found[1].to_json()["settings"]["layers"] == "last"
    assert [c.label for c in choices_of("logit_mask")] == ["logit_mask"]
    assert [(r.id, r.classes) for r in requests_of("3, 7+0")] == [("3", ("3",)), ("0+7", ("0", "7"))]
    assert requests_of("") == ()


def test_one_method_may_be_compared_with_itself_under_names_of_ones_own() -> None:
    found = choices_of(
        "steer, last=fiun, all = fiun, tests.methods.test_methods:Numbered", ["last.layers=last", "all.layers=all"]
    )
    assert [c.label for c in found] == ["steer", "last", "all", "tests.methods.test_methods:Numbered", "logit_mask"]
    assert [c.method for c in found[1:3]] == [make("fiun", {"layers": layers}) for layers in ("last", "all")]
    assert [c.label for c in choices_of("mask=logit_mask")] == ["mask"]


def test_what_draws_at_random_draws_with_each_familys_seed_unless_it_was_told_one() -> None:
    own, told, other = choices_of("random_mask,fisher_noise,fiun", ["fisher_noise.seed=4"])[:3]
    assert own.to_json()["settings"]["seed"] == "the family's"
    assert [own.at(seed).method for seed in (0, 3)] == [make("random_mask", {"seed": seed}) for seed in (0, 3)]
    assert told.to_json()["settings"]["seed"] == 4
    assert (told.at(3), other.at(3)) == (told, other)
    assert own.at(0).identity == Choice("random_mask", make("random_mask")).identity  # so that what was kept of seed 0 is taken
    assert own.at(1).identity != own.at(0).identity


@pytest.mark.parametrize(
    ("methods", "settings", "expected"),
    [
        ("fium", [], r"unknown method 'fium'; did you mean 'fiun'\?"),
        (
            "fiun,steer",
            ["fium.alpha=1"],
            r"--set fium.alpha=1: unknown method 'fium'; did you mean 'fiun'\? known: fiun, steer",
        ),
        ("fiun", ["fiun.alpa=1"], r"method fiun: unknown setting 'alpa'; did you mean 'alpha'\?"),
        ("fiun", ["alpha=1"], r"--set alpha=1: expected method.key=value, for example --set fiun.alpha=10"),
        ("fiun", ["fiun.alpha"], r"--set fiun.alpha: expected method.key=value"),
        ("fiun", ["ssd.alpha=1"], r"--set ssd.alpha=1: unknown method 'ssd'"),
        ("fiun,ssd,fiun", [], r"--methods fiun,ssd,fiun: two are called 'fiun'; give each a name of its own: a=fiun,b=fiun"),
        ("a=fiun,a=ssd", [], r"two are called 'a'; give each a name of its own: a=fiun,b=ssd"),
        (
            "fiun",
            ["fiun.layers=last", "fiun.layers=all"],
            r"--set fiun.layers=all: fiun.layers is 'last' already; .* a=fiun,b=fiun",
        ),
        ("steer=fiun", [], r"--methods steer=fiun: 'steer' is another method of the menu; call it by another name"),
        ("=fiun", [], r"--methods =fiun: expected names, or a name of yours before one: last=fiun"),
        ("last=", [], r"--methods last=: expected names"),
        ("last=fium", [], r"unknown method 'fium'; did you mean 'fiun'\?"),
        ("last=fiun", ["fiun.layers=last"], r"--set fiun.layers=last: unknown method 'fiun'.*known: last"),
    ],
)
def test_what_is_wrong_with_methods_and_settings_is_said(methods: str, settings: list[str], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        choices_of(methods, settings)
