"""All commands, by what they are for, as `--help` lists them.

Exit status: 0 done, 1 held back by the gate, failed at a site, or busy, 2 wrong input.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import typer
from rich.markup import escape

from fedunlearn.cli import INTERRUPTED, TERMINATED, site
from fedunlearn.cli.compare import compare
from fedunlearn.cli.console import err
from fedunlearn.cli.export import export, identify
from fedunlearn.cli.families import bank, demo, extend, import_, train
from fedunlearn.cli.forgetting import plan, rollback, seal, unlearn
from fedunlearn.cli.log import log
from fedunlearn.cli.options import every
from fedunlearn.cli.report import report
from fedunlearn.cli.show import show
from fedunlearn.cli.upkeep import depart, fsck, gc, settle
from fedunlearn.errors import FedUnlearnError, InputError

COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Begin and extend a family": (demo, train, extend, import_, bank),
    "Forget": (plan, unlearn, rollback, seal),
    "See and prove": (show, report, log, export, identify),
    "Keep in order": (settle, fsck, gc, depart),
    "Compare methods": (compare,),
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Unlearning for families of models that inherit from one another.",
)
app.callback()(every)
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(command.__name__.rstrip("_"), rich_help_panel=panel)(command)
app.add_typer(site.app, name="site", rich_help_panel="At a site")


def main() -> None:
    """Run a command, turn our errors into one message and an exit status."""
    sys.path.insert(0, str(Path.cwd()))  # factories and methods of the user's own
    try:
        app()
    except FedUnlearnError as error:
        err.print(f"[bold red]error:[/bold red] {escape(str(error))}")
        sys.exit(error.exit_status)
    except SystemExit as end:
        if end.code in (INTERRUPTED, TERMINATED):
            err.print(
                "interrupted: nothing holds but what the ledger says (fedunlearn show). Where its last line is this command's, "
                "fedunlearn settle finishes it; otherwise run the command again to go on"
            )
        raise
    except OSError as error:  # a full disk, a folder that may not be written, a file where a folder should be
        err.print(f"[bold red]error:[/bold red] {escape(f'{error.filename}: {error.strerror}')}")
        sys.exit(InputError.exit_status)
