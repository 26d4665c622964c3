"""The menu, and how a name with settings becomes a method."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from fedunlearn.dotted import resolve
from fedunlearn.errors import InputError, check_names, unknown
from fedunlearn.methods.activation_mask import ActivationMask
from fedunlearn.methods.base import Method
from fedunlearn.methods.baselines import Distil, FineTune, FisherNoise, GradientAscent, RandomMask
from fedunlearn.methods.damp import Damp
from fedunlearn.methods.fisher_mask import FisherMask
from fedunlearn.methods.fiun import FIUn
from fedunlearn.methods.lfssd import LFSSD
from fedunlearn.methods.logit_mask import LogitMask
from fedunlearn.methods.pour import Pour
from fedunlearn.methods.rewrite import Rewrite
from fedunlearn.methods.ssd import SSD
from fedunlearn.methods.steer import Steer
from fedunlearn.source import text_of

METHODS: dict[str, type[Method]] = {
    "steer": Steer,
    "rewrite": Rewrite,
    "fiun": FIUn,
    "ssd": SSD,
    "lfssd": LFSSD,
    "fisher_mask": FisherMask,
    "activation_mask": ActivationMask,
    "logit_mask": LogitMask,
    "pour": Pour,
    "damp": Damp,
    "random_mask": RandomMask,
    "fisher_noise": FisherNoise,
    "fine_tune": FineTune,
    "gradient_ascent": GradientAscent,
    "distil": Distil,
}

KINDS = {bool: "true or false", int: "a whole number", float: "a number", NoneType: "none"}  # that are read from text


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
    check_names("setting", settings or {}, known, f"method {name}")
    hints = get_type_hints(kind) if known else {}
    try:
        method: Method = kind(**{k: _value(v, hints[k], f"method {name}: {k}") for k, v in (settings or {}).items()})
    except TypeError as error:  # an abstract class, or one whose arguments are not its fields
        raise InputError(f"method {name!r} cannot be made: {error}") from error
    if not isinstance(getattr(method, "name", None), str):
        raise InputError(f'method {name!r}: has no name; give its class one, such as name = "{kind.__name__.lower()}"')
    if METHODS.get(method.name, kind) is not kind:
        raise InputError(f"method {name!r}: is called {method.name!r}, as one of the menu is; give its class another name")
    return method


def menu_name(method: Method) -> str:
    """What `make` makes a method of again: its name in the menu, or "their.module:Class"."""
    kind = type(method)
    return method.name if METHODS.get(method.name) is kind else f"{kind.__module__}:{kind.__qualname__}"


def code_of(method: Method) -> dict[str, str]:
    """Which code a method that is not in the menu is: its `class`, and the hash of the `text` of its files and its bases'."""
    name = menu_name(method)
    return {"class": name, "text": text_of(kind.__module__ for kind in type(method).__mro__)} if ":" in name else {}


def settings_of(method: Method) -> dict[str, Any]:
    """A method's settings as plain data; `make(name, settings)` is the inverse."""
    return {f.name: getattr(method, f.name) for f in fields(method)} if is_dataclass(method) else {}


def _value(given: Any, hint: Any, what: str) -> Any:
    """Settings may come as text. What may be text anyway, or is of a kind that is not read here, is the method's to refuse.

    Raises:
        InputError: it reads as none of its kinds.
    """
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if not isinstance(given, str):
        return given
    if bool in kinds and given.lower() in ("true", "false"):
        return given.lower() == "true"
    if NoneType in kinds and given.lower() == "none":
        return None
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(given)
            except ValueError:
                continue
    if all(kind in KINDS for kind in kinds):
        raise InputError(f"{what} is {given!r}, expected {' or '.join(KINDS[kind] for kind in kinds)}")
    return given
