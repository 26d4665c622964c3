"""The command line: parse, call, print."""

import signal
import sys
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT  # what Typer exits with after Ctrl-C
TERMINATED = 128 + signal.SIGTERM  # what a service manager or a container sends to stop


def main() -> None:
    """Entry point. What the commands need takes seconds to load: a Ctrl-C meanwhile is no traceback."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        from fedunlearn.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()


def _terminated(_: int, __: FrameType | None) -> None:
    """As after Ctrl-C, what was begun is left in order: temporary files go, processes that were started end."""
    sys.exit(TERMINATED)
