"""Numbers in prose are those of the results; a reading has no other."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

TABLE = """
| class | setting | left | lost, mask | worst |
|---|---|---|---|---|
| 1 | a | 4.84 | **0.0, 42.4 (0 of 3)** | eastern, 5: 17.6* [12.5, 24.1] |
| 2 | a | 1.25 | 1.5, -3.0 (3 of 3) | - |
| 2 | b | 1,234 | - | shared: 0.0 |

In words between.

| class | left | seconds |
|---|---|---|
| 1 | 9 | 7.5 |
"""


@pytest.fixture
def prose(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "simulations")
    import prose

    return prose


def marked(way: str, shown: str) -> str:
    return f"It is <!-- n: {way} -->{shown}<!-- /n -->."


@pytest.mark.parametrize(
    ("way", "shown", "right"),
    [
        ("t | 1 | left", "0.0", "4.8"),
        ("t | 1 | left", "7", "5"),
        ("t | 2 | a | left", "9.99", "1.25"),
        ("t | a | most left", "0.0", "4.8"),
        ("t | a | least left", "0.0", "1.2"),
        ("t | 1 | lost, mask [2]", "0.0", "42.4"),
        ("t | 1 | seconds", "0.0", "7.5"),
        ("t | a | least lost, mask [2]", "0.0", "-3.0"),
        ("t | 1 | worst", "0.0", "17.6"),
        ("t | 2 | most worst", "5.0", "0.0"),
        ("t | 2 | b | left", "0", "1,234"),
    ],
)
def test_a_number_is_what_its_table_has_with_the_decimals_that_stand_there(
    prose: Any, way: str, shown: str, right: str
) -> None:
    assert prose.filled(marked(way, shown), {"t": TABLE}) == marked(way, right)
    assert prose.filled(marked(way, right), {"t": TABLE}) == marked(way, right)


def test_a_number_of_a_result_file(prose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"two": {"ratios": [1.0, 1.894]}}))
    monkeypatch.setattr(prose, "RESULTS", tmp_path)
    assert prose.filled(marked("r.json | two.ratios.1", "0.00"), {}) == marked("r.json | two.ratios.1", "1.89")
    with pytest.raises(SystemExit, match=r"two.none -->: not a number of a result"):
        prose.filled(marked("r.json | two.none", "0.0"), {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (marked("t | 3 | left", "1"), "0 rows have these cells"),
        (marked("t | 2 | left", "1"), "2 rows have these cells, 2 of them a number; name one row, or write `most left`"),
        (marked("t | 1 | right", "1"), "no column 'right'; there are 'class', 'setting', 'left'"),
        (marked("u | 1 | left", "1"), "no table 'u' with a column; tables are t"),
        (marked("t | 1 | left", "about 5"), "expected a number between the marks"),
        ("It is\n<!-- n: t | 1 | left -->4.8<!-- /n -->.", "a line begins with"),
        ("It is <!-- n: t | 1 | left -->4.8.", "not closed"),
        ("Readings. It leaves 5 % of it.", "It leaves 5 % of it"),
        ("**Readings.** It is\n1.5 as long.", "1.5 as long"),
        ("Readings. " + marked("t | 1 | left", "4.8") + " And 12 points.", "And 12 points"),
    ],
)
def test_what_no_result_says_fails_and_is_named(prose: Any, text: str, said: str) -> None:
    with pytest.raises(SystemExit) as failed:
        prose.filled(text, {"t": TABLE})
    assert said in str(failed.value)


def test_settings_counts_and_what_is_no_reading_may_stand(prose: Any) -> None:
    text = "At most 5 % may be left.\n\nReadings. With `0.5` and at most `5 %`, three of 12 heirs and 165 rows.\n\n| 7.5 % |\n"
    assert prose.filled(text, {"t": TABLE}) == text
