"""Options that several commands take."""

import os
from pathlib import Path
from typing import Annotated

import typer

from fedunlearn.data.folder import VARIABLE
from fedunlearn.errors import InputError
from fedunlearn.runtime.backend import DEADLINE, PATIENT, deadline
from fedunlearn.store.ledger import BY


def _data(folder: Path | None) -> Path | None:
    """What `--data` says holds for everything that this command opens."""
    if folder is not None:
        if not folder.is_dir():
            raise InputError(f"--data {folder}: no such folder")
        os.environ[VARIABLE] = str(folder.resolve())
    return folder


def every(
    patience: Annotated[
        float | None,
        typer.Option(
            "--deadline",
            help=f"seconds that one round of messages may take, with --backend ray or flower; who is later counts as offline "
            f"({PATIENT:g} by default, or {DEADLINE})",
        ),
    ] = None,
) -> None:
    """What every command takes, before its name."""
    if patience is not None:
        os.environ[DEADLINE] = f"{patience:g}"
        deadline()


def _by(name: str | None) -> str | None:
    """What `--by` says goes to every ledger line that this command writes."""
    if name:
        os.environ[BY] = name
    return name


def pairs(settings: list[str] | None) -> dict[str, str]:
    """What `--set` says, by key.

    Raises:
        InputError: one has no `=`, or a key is given twice.
    """
    found: dict[str, str] = {}
    for text in settings or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text}: expected key=value, for example --set alpha=auto")
        if key in found:
            raise InputError(f"--set {text}: {key} is {found[key]!r} already; give it once")
        found[key] = value
    return found


Json = Annotated[bool, typer.Option("--json", help="one JSON object instead of text")]
Reason = Annotated[str | None, typer.Option(help="why; goes to the ledger")]
Yes = Annotated[bool, typer.Option("--yes", help="do not ask")]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="folder of data sets and checkpoints; FEDUNLEARN_DATA by default", callback=_data),
]
Folder = Annotated[Path, typer.Argument(help="a family's folder, for example runs/hospitals")]
Classes = Annotated[str, typer.Option(help="classes to forget, with commas")]
Samples = Annotated[str, typer.Option(help="samples to forget: site/shard/key, with commas")]
Sites = Annotated[str, typer.Option(help="only what these sites contributed, with commas")]
Since = Annotated[str | None, typer.Option(help="only what entered training from this model on")]
Named = Annotated[
    list[str] | None, typer.Argument(help="requests that the scenario names; several are carried out in one pass")
]
MethodName = Annotated[str, typer.Option(help="name of a method, or their.module:Class")]
Trainer = Annotated[
    str, typer.Option("--backend", help="who runs federated rounds: in-process or flower; with --sites-in: in-process or ray")
]
Carrier = Annotated[
    str, typer.Option("--backend", help="where places work: in-process, ray (one actor a place) or flower (see --federation)")
]
Federation = Annotated[
    str | None,
    typer.Option(help="of a Flower deployment: the connection's name in Flower's config.toml; remembered by the folder"),
]
OwnSites = Annotated[
    Path | None,
    typer.Option("--sites-in", help="for `sites: own`: each site opens <folder>/<site>/site.yaml, on its own machine"),
]
Address = Annotated[str | None, typer.Option(help="of a running Ray cluster; by default one is started and stopped")]
AtRoots = Annotated[
    bool,
    typer.Option(
        "--score-at-roots",
        help="have candidates whose home has no test rows scored at sites that trained on the data; weights travel there",
    ),
]
By = Annotated[str | None, typer.Option("--by", help="who does this; the login name by default", callback=_by)]
Settings = Annotated[list[str] | None, typer.Option("--set", help="a setting of the method: key=value; may be repeated")]
