"""Where the files of data sets are looked for: beside the topology, then in the data folder."""

import difflib
import os
from pathlib import Path

from fedunlearn.errors import InputError

VARIABLE = "FEDUNLEARN_DATA"


def data_folder() -> Path | None:
    """The folder of data sets that the environment names, if it names one."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else None


def find(name: str, beside: str = "", what: str = "data set") -> Path:
    """A file or folder by name.

    Args:
        name: its path; a relative one is looked up beside the topology, then in the data folder.
        beside: the topology's folder; by default the working directory.
        what: what it is, to say in an error.

    Raises:
        InputError: it is in neither; says where it looked, the nearest name there, and what to do.
    """
    path, folder = Path(name).expanduser(), data_folder()
    places = [Path(beside)] + ([folder] if folder else [])
    tried = [path] if path.is_absolute() else [place / path for place in places]
    for there in tried:
        if there.exists():
            return there
    near = [n for there in tried for n in _near(there)][:1]
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(f"{what} {name!r}: no such file; looked for {', '.join(map(str, tried))}{hint}{_advice(path, folder)}")


def _near(path: Path) -> list[str]:
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    return difflib.get_close_matches(path.name, beside, n=1, cutoff=0.7)


def _advice(path: Path, folder: Path | None) -> str:
    if path.is_absolute():
        return ""
    if folder is None:
        return f"; pass --data DIR, or set {VARIABLE}, to name the folder that holds it"
    if not folder.is_dir():
        return f"; the data folder {folder} does not exist: pass another with --data DIR, or set {VARIABLE}"
    return f"; put it there, or pass another data folder with --data DIR or {VARIABLE}"
