"""The menu, and how a name with settings becomes a method."""

import json
from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fedunlearn.dotted import resolve
from fedunlearn.errors import FedUnlearnError, InputError, check_names, raised, unknown
from fedunlearn.importance import LOSSES, STATISTICS
from fedunlearn.methods.activation_mask import ActivationMask
from fedunlearn.methods.base import NEEDS, Method, Want
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
        raise InputError(f"{unknown('method', name, METHODS)}; one of your own is written 'their.module:Class'")
    known = [f.name for f in fields(kind)] if is_dataclass(kind) else []
    if (strange := (settings or {}).keys() - known) and "__dataclass_fields__" not in vars(kind):
        raise InputError(
            f"method {name}: has no setting {min(strange)!r}: its class is no dataclass; put @dataclass(frozen=True) before it"
        )
    check_names("setting", settings or {}, known, f"method {name}")
    try:
        hints = get_type_hints(kind) if known else {}
    except Exception as error:  # names that are imported for type checkers only, say
        raise InputError(f"method {name!r}: the types of its settings cannot be read: {raised(error)}") from error
    own = kind not in METHODS.values()  # those of the menu say themselves which words they know
    given = {k: _value(v, hints[k], f"method {name}: {k}", own) for k, v in (settings or {}).items()}
    try:
        method: Method = kind(**given)
    except FedUnlearnError:
        raise
    except TypeError as error:  # an abstract class, or one whose arguments are not its fields
        raise InputError(f"method {name!r} cannot be made: {error}") from error
    except Exception as error:
        raise InputError(f"method {name!r} cannot be made: {raised(error)}") from error
    if own:
        _check(method, name)
    return method


def _check(method: Method, name: str) -> None:
    """Refuse a class of the user's own whose attributes are not what `Method` says they are."""
    if not (isinstance(called := getattr(method, "name", None), str) and called.strip() and called.isprintable()):
        raise InputError(f'method {name!r}: has no name; give its class one, such as name = "{type(method).__name__.lower()}"')
    if called in METHODS:
        raise InputError(f"method {name!r}: is called {called!r}, as one of the menu is; give its class another name")
    for setting, value in settings_of(method).items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise InputError(
                f"method {name}: its setting {setting} is {value!r} ({type(value).__name__}), expected plain data, which "
                f"travels: a number, text, true or false, None, or lists of those"
            ) from None
    wanted = {"evidence": method.evidence, "own": method.own}
    for classes in ((), ("a class",)):
        try:
            wanted[f"wants({classes})"] = method.wants(classes)
        except Exception as error:
            raise InputError(f"method {name}: wants({classes}) raised {raised(error)}") from error
    for what, want in wanted.items():
        if not isinstance(want, Want | None):
            raise InputError(f"method {name}: {what} is {want!r}, expected a Want, such as Want('squares'), or None")
        if want is not None:
            check_names("statistic", [want.statistic], STATISTICS, f"method {name}: {what}")
            check_names("loss", [want.loss], LOSSES, f"method {name}: {what}")
            if want.statistic == "moment" and what != "own":
                why = "which one model cannot hand on to another; measure it as `own`"
                raise InputError(f"method {name}: {what} is of 'moment', {why}")
    if not isinstance(needs := method.needs, Set) or isinstance(needs, str):
        raise InputError(f"method {name}: needs is {needs!r}, expected a frozenset of what stands in fedunlearn.methods.NEEDS")
    check_names("need", needs, NEEDS, f"method {name}")


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


def _value(given: Any, hint: Any, what: str, words: bool) -> Any:
    """Settings may come as text. What may be text anyway, or is of a kind that is not read here, is the method's to refuse.

    Args:
        given: the setting.
        hint: its type.
        what: what it is, to be said in an error.
        words: refuse one that is none of its `Literal`.

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
    known = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    if given not in known and all(kind in KINDS or (words and get_origin(kind) is Literal) for kind in kinds):
        expected = [KINDS[kind] for kind in kinds if kind in KINDS] + [repr(word) for word in known]
        raise InputError(f"{what} is {given!r}, expected {' or '.join(expected)}")
    return given
