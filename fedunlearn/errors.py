"""The kinds of error a user can meet. Each message says the thing, its value, what was expected and what to do."""

import difflib
import sysconfig
import traceback
from collections.abc import Collection, Iterable
from pathlib import Path

NOT_THEIRS = ("<", *(f"{p}/" for p in (Path(__file__).parent, sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))))


class FedUnlearnError(Exception):
    """Base of every error this package raises on purpose; the command line exits with `exit_status`."""

    exit_status = 1


class InputError(FedUnlearnError):
    """Something the user wrote is wrong: a name, a key, a value, a file."""

    exit_status = 2


class StoreError(InputError):
    """A file of a family's folder is missing, damaged, or not ours."""


class BusyError(FedUnlearnError):
    """Another command is, or has meanwhile been, at work on the same family or folder; nothing was done: try again."""


class ShapeError(FedUnlearnError):
    """Names, shapes or values of tensors that should agree do not."""


class ExcludedError(FedUnlearnError):
    """Rows that a committed request has excluded were about to be trained on."""


class TrainingError(FedUnlearnError):
    """A training in several processes failed; nothing of it was kept."""


class SiteError(FedUnlearnError):
    """One or more sites failed or refused; nothing was committed."""


class OvertakenError(SiteError):
    """A place has acknowledged a ledger line that the ledger of whoever asks lacks."""


def unknown(kind: str, name: object, known: Iterable[str], where: str = "") -> InputError:
    """The error for a name that is not in a menu: says the nearest right name and lists the menu.

    Args:
        kind: what the name names, for example "class" or "method".
        name: the name that was asked for.
        known: every right name.
        where: where the name stood, for example "topologies/x.yaml: models.triage.from".

    Returns:
        The error, to be raised by the caller.
    """
    menu = sorted({str(k) for k in known})
    close = difflib.get_close_matches(str(name), menu, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    shown = ", ".join(menu[:20]) + (f", ... ({len(menu)} in all)" if len(menu) > 20 else "")
    place = f"{where}: " if where else ""
    return InputError(f"{place}unknown {kind} {str(name)!r}; {hint}known: {shown or 'none'}")


def check_names(kind: str, names: Iterable[str], known: Collection[str], where: str = "") -> None:
    """Refuse names that are not in a menu; arguments are those of `unknown`.

    Raises:
        InputError: the first that is not.
    """
    for name in names:
        if name not in known:
            raise unknown(kind, name, known, where)


def few(names: Iterable[object], most: int = 5) -> str:
    """Names as a list: all of them, or as many as `most` and how many more there are."""
    every = list(map(str, names))
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def raised(error: BaseException) -> str:
    """What code of the user's own raised, and where in that code, as far as it is to be seen."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(NOT_THEIRS)]
    at = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{at}"
