"""A key that signs what is written."""

from pathlib import Path

import pytest

from fedunlearn.store.signing import KEY
from tests.store.forging import new_key


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(KEY, str(tmp_path / "key.pem"))
    return new_key(tmp_path / "key.pem")
