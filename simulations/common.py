"""What every simulation shares: its arguments, what it prints, and where its results are kept."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedunlearn.compare import origin as origin
from fedunlearn.scenario import Scenario
from fedunlearn.scenario.build import open_site_data

RESULTS = Path(__file__).parent / "results"
SHARD = "main"  # what a site's rows of a topology's set are called


def arguments(what: str | None) -> argparse.Namespace:
    """`--size test|cpu`, `--json`, and `--write` to keep the result under `results/`."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--size", choices=("test", "cpu"), default="cpu", help="test: seconds; cpu: minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--write", action="store_true", help="keep the result under results/")
    return parser.parse_args()


def trained_on(scenario: Scenario, seed: int, site: str) -> list[str]:
    """Rows of a site that models are trained on, by the names that requests call them; the seed deals them."""
    return [f"{site}/{SHARD}/{key}" for key in open_site_data(scenario.seeded(seed), RESULTS)[site].all(SHARD).keys]


def keep(name: str, result: dict[str, Any]) -> Path:
    """Write a result where the documents take their numbers from."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def finish(args: argparse.Namespace, name: str, result: dict[str, Any], table: Callable[[], str]) -> None:
    """Keep a result under its name if that is asked for, and print it: as JSON, or as its table."""
    if args.write:
        keep(name, result)
    print(json.dumps(result, indent=1) if args.json else table())
