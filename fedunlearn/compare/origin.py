"""Where a result comes from: versions, commit, host."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("fedunlearn", "torch", "numpy", "scikit-learn")
MADE = (":!/simulations/results", ":!/simulations/figures")  # by what is measured; a change there changes nothing of it
UNKNOWN = "unknown"
HERE = Path(__file__).parents[1]


def origin(*packages: str) -> dict[str, Any]:
    """Versions (of these packages, too), commit of this package (if it lies in a repository of its own) and host."""
    found = {name: number for name in (*PACKAGES, *packages) if (number := _version(name))}
    host = [platform.machine(), f"{os.cpu_count()} cores", platform.system()]
    if torch.cuda.is_available():  # then it computed there
        host.append(torch.cuda.get_device_name())
    return {"versions": found, "commit": _commit(), "host": ", ".join(host)}


def joined(origins: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The origin of a result that was made in several runs: everything that they differ in, side by side."""
    several = list(origins)
    names = dict.fromkeys(name for one in several for name in one["versions"])
    return {
        "versions": {n: _each(" / ", (o["versions"][n] for o in several if n in o["versions"])) for n in names},
        "commit": _each(", ", (o["commit"] for o in several)),
        "host": _each(" / ", (o["host"] for o in several)),
    }


def aged(commits: Iterable[str]) -> str:
    """How many steps are of another commit than today's, in words; nothing where there is none, or no commit is known.

    Args:
        commits: of each step that is kept.
    """
    now = _commit()
    others = [one for one in commits if now != one and UNKNOWN not in (now, one)]
    if not others:
        return ""
    said = f"{len(others)} step{'s are' if len(others) > 1 else ' is'} kept from commit {', '.join(dict.fromkeys(others))}"
    return f"{said}; this is {now} (with another --out, they are taken anew)"


def _each(between: str, texts: Iterable[str]) -> str:
    return between.join(dict.fromkeys(one for text in texts for one in text.split(between)))  # some are joined themselves


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    if shutil.which("git") is None or _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return UNKNOWN  # installed: a repository around it is somebody else's
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", *MADE)
    return f"{_git('rev-parse', '--short', 'HEAD')}" + "-dirty" * bool(changed)


def _git(*words: str) -> str | None:
    done = subprocess.run(["git", "-C", str(HERE), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
