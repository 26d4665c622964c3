"""What somebody else's code raised is told with the place in that code, and with none of ours or of a library's."""

from pathlib import Path

import pytest

from fedunlearn.dotted import call
from fedunlearn.errors import InputError, raised


def test_the_last_line_of_ones_own_code_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_that_raises.py").write_text("import json\n\n\ndef read(text):\n    return json.loads(text)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"raised JSONDecodeError: .* \(mine_that_raises.py, line 5\)$"):
        call("mine_that_raises:read", "loader", "{")


def test_an_error_from_nowhere_is_told_without_a_place() -> None:
    assert raised(ValueError("no")) == "ValueError: no"
