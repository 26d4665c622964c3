"""Methods, settings and requests of a comparison, from words."""

import json

import pytest

from fedunlearn.compare import choices_of, requests_of
from fedunlearn.errors import InputError


def test_methods_settings_and_requests_from_words() -> None:
    found = choices_of("fiun, ssd", ["fiun.alpha=10", "ssd.layers=last"])
    assert [c.label for c in found] == ["fiun", "ssd", "logit_mask"]
    assert json.loads(json.dumps(found[0].to_json()))["settings"]["alpha"] == 10
    assert found[1].to_json()["settings"]["layers"] == "last"
    assert [c.label for c in choices_of("logit_mask")] == ["logit_mask"]
    assert [(r.id, r.classes) for r in requests_of("3, 7+0")] == [("3", ("3",)), ("0+7", ("0", "7"))]
    assert requests_of("") == ()


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
    ],
)
def test_what_is_wrong_with_methods_and_settings_is_said(methods: str, settings: list[str], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        choices_of(methods, settings)
