"""The command line: parse, call, print."""

import sys

INTERRUPTED = 128 + 2  # what Typer exits with after Ctrl-C


def main() -> None:
    """Entry point. What the commands need takes seconds to load: a Ctrl-C meanwhile is no traceback."""
    try:
        from fedunlearn.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()
