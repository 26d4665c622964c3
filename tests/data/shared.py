"""Public sets that lie beside some checkouts; tests that use them are skipped elsewhere."""

from pathlib import Path

import pytest

from fedunlearn.data import data_folder

BESIDE = Path(__file__).parents[3] / "shared" / "data"


def shared(name: str) -> Path:
    """The folder that holds a file, or a skip that says what is missing."""
    for folder in (data_folder(), BESIDE):
        if folder is not None and (folder / name).is_file():
            return folder
    pytest.skip(f"no {name}: set FEDUNLEARN_DATA to a folder that holds it")
