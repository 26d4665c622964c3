"""What every simulation shares: its arguments, and where its numbers come from."""

import argparse
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def arguments(what: str | None) -> argparse.Namespace:
    """`--size test|cpu`, `--json`, and `--write` to keep the result under `results/`."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--size", choices=("test", "cpu"), default="cpu", help="test: seconds; cpu: minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--write", action="store_true", help="keep the result under results/")
    return parser.parse_args()


def origin(*packages: str) -> dict[str, Any]:
    """Versions (of these packages, too), commit and host of a result."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/simulations/results"],  # made, not making
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    names = ("fedunlearn", "torch", "numpy", "scikit-learn", *packages)
    host = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"
    found = {n: version(n) for n in names if _installed(n)}
    return {"versions": found, "commit": commit.stdout.strip() + "-dirty" * bool(changed.stdout.strip()), "host": host}


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def keep(name: str, result: dict[str, Any]) -> Path:
    """Write a result where the documents take their numbers from."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
