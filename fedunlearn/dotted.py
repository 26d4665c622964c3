"""Plug points of the user's own: `their.module:name`, resolved only where the user wrote it (never from a message)."""

import importlib
from collections.abc import Callable
from typing import Any

from fedunlearn.errors import InputError, raised, unknown


def resolve(path: str, what: str) -> Callable[..., Any]:
    """The callable behind `their.module:name`.

    Args:
        path: module and attribute, joined by a colon.
        what: what it is for, to say in an error ("net factory").

    Returns:
        The callable.

    Raises:
        InputError: the path is malformed, the module cannot be imported, or the name is missing or not callable.
    """
    module_name, colon, attribute = path.partition(":")
    if not (module_name and colon and attribute):
        raise InputError(f"{what} {path!r}: expected 'their.module:name'")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises while it is imported is theirs to read
        raise InputError(f"{what} {path!r}: importing {module_name!r} failed: {raised(error)}") from error
    if not hasattr(module, attribute):
        raise unknown(f"name in module {module_name!r}", attribute, vars(module), where=f"{what} {path!r}")
    found = getattr(module, attribute)
    if not callable(found):
        raise InputError(f"{what} {path!r}: is a {type(found).__name__}, expected something to call")
    return found  # type: ignore[no-any-return]


def call(path: str, what: str, *args: Any, **kwargs: Any) -> Any:
    """Call the user's function and say whose it is when it raises.

    Args:
        path: `their.module:name`.
        what: what it is for, to say in an error.
        *args: passed on.
        **kwargs: passed on.

    Returns:
        What the user's function returns.

    Raises:
        InputError: it cannot be resolved, or it raised.
    """
    function = resolve(path, what)
    try:
        return function(*args, **kwargs)
    except Exception as error:
        raise InputError(f"{what} {path!r} raised {raised(error)}") from error
