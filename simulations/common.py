"""What every simulation shares: its arguments, what it prints, and where its results are kept."""

import argparse
import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch

from fedunlearn.compare import origin as origin
from fedunlearn.runtime.backend import Progress
from fedunlearn.scenario import Scenario
from fedunlearn.scenario.build import open_site_data

RESULTS = Path(__file__).parent / "results"
SHARD = "main"  # what a site's rows of a topology's set are called
Job = TypeVar("Job")
torch.backends.cudnn.deterministic = True  # so that a method that is run later meets the very family of its seed, on a GPU too


@dataclass(frozen=True)
class Part:
    """One of several parts of a simulation, which run beside each other, each in a process of its own.

    Args:
        number: which one, from 1.
        of: how many there are.
    """

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> "Part":
        """From words like 2/8."""
        number, _, of = text.partition("/")
        if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
            raise argparse.ArgumentTypeError(f"{text!r} is no part; give its number and how many there are, such as 2/8")
        return cls(int(number), int(of))

    def share(self, jobs: Sequence[Job], family: Callable[[Job], Hashable]) -> list[Job]:
        """The jobs of this part; those of one family stay together, since only one process may work on it."""
        families = {f: i for i, f in enumerate(dict.fromkeys(map(family, jobs)))}
        return [job for job in jobs if families[family(job)] % self.of == self.number - 1]


ALL = Part(1, 1)


def within(say: Progress, where: str) -> Progress:
    """Somebody who is told the same, and before it where it is said of."""
    return lambda text: say(where + text)


def splits(parser: argparse.ArgumentParser) -> None:
    """Add `--part`."""
    parser.add_argument(
        "--part", type=Part.read, default=ALL, metavar="K/N",
        help="do only the K-th of N parts and keep what comes out, beside others; a run without --part then gathers",
    )  # fmt: skip


def arguments(
    what: str | None, sizes: Sequence[str] = ("test", "cpu"), parts: bool = False, cells: bool = False
) -> argparse.Namespace:
    """`--size`, `--json`, and `--write` to keep the result under `results/`; `--seeds` and `--part` where it can be split."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--size", choices=tuple(sizes), default="cpu", help="test: seconds; cpu: minutes; gpu: larger nets")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--write", action="store_true", help="keep the result under results/")
    if parts:
        parser.add_argument("--seeds", type=int, default=3)
        splits(parser)
    if cells:
        parser.add_argument(
            "--cells", nargs="*", default=(), help="some of them only; --write keeps the rows of the others as they are"
        )
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


def on_disk() -> TemporaryDirectory[str]:
    """A folder to measure in: here, not in memory, where fsync costs nothing. Git ignores what a cut-off run leaves of it."""
    return TemporaryDirectory(prefix="runs-", dir=".")


def finish(args: argparse.Namespace, name: str, result: dict[str, Any], table: Callable[[], str]) -> None:
    """Keep a result under its name if that is asked for, and print it: as JSON, or as its table."""
    if args.write:
        keep(name, result)
    print(json.dumps(result, indent=1) if args.json else table())
