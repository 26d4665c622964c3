"""The menu, and how a name with settings becomes a method."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from fedunlearn.dotted import resolve
from fedunlearn.errors import InputError, unknown
from fedunlearn.methods.base import Method
from fedunlearn.methods.fiun import FIUn
from fedunlearn.methods.logit_mask import LogitMask
from fedunlearn.methods.steer import Steer

METHODS: dict[str, type[Method]] = {"steer": Steer, "fiun": FIUn, "logit_mask": LogitMask}


def make(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """A method by name.

    Args:
        name: one of `METHODS`, or "their.module:Class".
        settings: its settings; numbers may come as text.

    Raises:
        InputError: unknown method or setting, or a value that does not fit.
    """
    if ":" in name:
        kind: Any = resolve(name, "method")
        if not (isinstance(kind, type) and issubclass(kind, Method)):
            raise InputError(f"method {name!r}: expected a subclass of fedunlearn.methods.Method")
    elif name in METHODS:
        kind = METHODS[name]
    else:
        raise unknown("method", name, METHODS)
    known = [f.name for f in fields(kind)] if is_dataclass(kind) else []
    for key in settings or {}:
        if key not in known:
            raise unknown("setting", key, known, where=f"method {name}")
    hints = get_type_hints(kind) if known else {}
    try:
        method: Method = kind(**{k: _value(v, hints[k]) for k, v in (settings or {}).items()})
    except TypeError as error:  # an abstract class, or one whose arguments are not its fields
        raise InputError(f"method {name!r} cannot be made: {error}") from error
    return method


def settings_of(method: Method) -> dict[str, Any]:
    """A method's settings as plain data; `make(name, settings)` is the inverse."""
    return {f.name: getattr(method, f.name) for f in fields(method)} if is_dataclass(method) else {}


def _value(given: Any, hint: Any) -> Any:
    if not isinstance(given, str) or not {float, int} & {hint, *get_args(hint)}:
        return given
    try:
        return float(given)
    except ValueError:
        return given
