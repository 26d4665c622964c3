"""Options that several commands take."""

import os
from pathlib import Path
from typing import Annotated

import typer

from fedunlearn.data.folder import VARIABLE
from fedunlearn.errors import InputError


def _data(folder: Path | None) -> Path | None:
    """What `--data` says holds for everything that this command opens."""
    if folder is not None:
        if not folder.is_dir():
            raise InputError(f"--data {folder}: no such folder")
        os.environ[VARIABLE] = str(folder.resolve())
    return folder


Json = Annotated[bool, typer.Option("--json", help="one JSON object instead of text")]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="folder of data sets and checkpoints; FEDUNLEARN_DATA by default", callback=_data),
]
