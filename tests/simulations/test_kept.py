"""What is run later joins a result only where it is of the same families."""

from pathlib import Path
from typing import Any

import pytest

from fedunlearn.errors import InputError
from tests.conftest import ROOT


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The module, which reads and writes in a folder with a copy of one result."""
    monkeypatch.syspath_prepend(ROOT / "simulations")
    import common
    import kept

    found = kept.read(ROOT / "simulations" / "results" / "compare_questions.json")
    for module in (kept, common):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    kept.write("compare_questions", found)
    return kept


def only(result: dict[str, Any], *methods: str, **changed: float) -> dict[str, Any]:
    """The same result of some methods alone, with other numbers."""
    rows = [row | changed for row in result["rows"] if row["method"] in methods]
    return result | {"methods": [m for m in result["methods"] if m["label"] in methods], "rows": rows}


def test_a_method_that_is_run_again_takes_the_place_of_its_rows_alone(kept: Any, tmp_path: Path) -> None:
    earlier = kept.read(tmp_path / "compare_questions.json")
    again = kept.beside("compare_questions", only(earlier, "steer", forgotten_after=0.5))
    assert {r["forgotten_after"] for r in again["rows"] if r["method"] == "steer"} == {0.5}
    assert [r for r in again["rows"] if r["method"] != "steer"] == [r for r in earlier["rows"] if r["method"] != "steer"]


def test_rows_of_another_family_stand_beside_none_of_this(kept: Any, tmp_path: Path) -> None:
    earlier = kept.read(tmp_path / "compare_questions.json")
    with pytest.raises(InputError, match=r"forgotten_before was .*another family; run all methods"):
        kept.beside("compare_questions", only(earlier, "steer", forgotten_before=0.123))
    every = [m["label"] for m in earlier["methods"]]
    anew = kept.beside("compare_questions", only(earlier, *every, forgotten_before=0.123))
    assert {r["forgotten_before"] for r in anew["rows"]} == {0.123}
