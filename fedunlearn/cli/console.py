"""Where text goes: results to standard output, progress and errors to standard error; asking before what is for good."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from fedunlearn.errors import InputError

WIDE = 130  # columns where the output is not a terminal

out = Console(width=None if Console().is_terminal else WIDE, highlight=False)
err = Console(stderr=True, width=None if Console(stderr=True).is_terminal else WIDE, highlight=False)


def one_line(text: str) -> str:
    """What somebody wrote, so that it cannot pass for a line of ours: line ends and control characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Says what is being done: a spinner on a terminal, a line each elsewhere."""
    with err.status("starting") as status:

        def say(text: str) -> None:
            status.update(text)
            if not err.is_terminal:
                err.print(text, markup=False)

        yield say


def print_json(plain: Any) -> None:
    """One JSON object on standard output."""
    print(json.dumps(plain, indent=1))


def confirm(words: str, yes: bool) -> None:
    """What cannot be undone is asked about, unless it was said to be meant."""
    if not yes:
        if not sys.stdin.isatty():
            raise InputError(f"{words}; say --yes to do it")
        typer.confirm(f"{words}. Go on?", abort=True)
