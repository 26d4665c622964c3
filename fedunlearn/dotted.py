"""Plug points of the user's own: `their.module:name`, resolved only where the user wrote it (never from a message)."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from hashlib import blake2s
from pathlib import Path
from types import ModuleType
from typing import Any

from fedunlearn.errors import InputError, raised, unknown


def importable(folder: str) -> None:
    """Have modules that lie in a folder found, before others of the same name."""
    if folder not in sys.path:
        sys.path.insert(0, folder)


def resolve(path: str, what: str, beside: str = "") -> Callable[..., Any]:
    """The callable behind `their.module:name`.

    Args:
        path: module and attribute, joined by a colon.
        what: what it is for, to say in an error ("net factory").
        beside: a folder whose own module of that name is taken, and is no other folder's: several sites in one process may each
            have a `mine.py`.

    Returns:
        The callable.

    Raises:
        InputError: the path is malformed, the module cannot be imported, or the name is missing or not callable.
    """
    module_name, colon, attribute = path.partition(":")
    if not (module_name and colon and attribute):
        raise InputError(f"{what} {path!r}: expected 'their.module:name'")
    if module_name.endswith(".py") or "/" in module_name:
        raise InputError(
            f"{what} {path!r}: {module_name!r} is a file, expected a module's name, '{Path(module_name).stem}:{attribute}', "
            f"whose folder is the current one or on PYTHONPATH"
        )
    try:
        module = _own(module_name, beside) or importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises while it is imported is theirs to read
        lacks = isinstance(error, ModuleNotFoundError) and error.name == module_name.partition(".")[0]
        hint = "; its folder must be the current one, or on PYTHONPATH" if lacks else ""
        raise InputError(f"{what} {path!r}: importing {module_name!r} failed: {raised(error)}{hint}") from error
    if not hasattr(module, attribute):
        public = [n for n, found in vars(module).items() if callable(found) and not n.startswith("_")]
        raise unknown(f"name in module {module_name!r}", attribute, public, where=f"{what} {path!r}")
    found = getattr(module, attribute)
    if not callable(found):
        raise InputError(f"{what} {path!r}: is a {type(found).__name__}, expected something to call")
    return found  # type: ignore[no-any-return]


def _own(name: str, beside: str) -> ModuleType | None:
    """The module of a file in a folder, under a name that is that file's alone; None where there is none."""
    file = Path(beside, f"{name}.py").resolve()
    if not beside or "." in name or not file.is_file():
        return None
    alone = f"{name}_{blake2s(str(file).encode(), digest_size=8).hexdigest()}"
    if alone in sys.modules:
        return sys.modules[alone]
    spec = importlib.util.spec_from_file_location(alone, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[alone] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[alone]
        raise
    return module


def call(path: str, what: str, *args: Any, beside: str = "", **kwargs: Any) -> Any:
    """Call the user's function and say whose it is when it raises.

    Args:
        path: `their.module:name`.
        what: what it is for, to say in an error.
        *args: passed on.
        beside: as in `resolve`.
        **kwargs: passed on.

    Returns:
        What the user's function returns.

    Raises:
        InputError: it cannot be resolved, or it raised.
    """
    function = resolve(path, what, beside)
    try:
        return function(*args, **kwargs)
    except Exception as error:
        raise InputError(f"{what} {path!r} raised {raised(error)}") from error
