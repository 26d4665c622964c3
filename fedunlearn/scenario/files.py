"""Reading a topology, with errors that name file, key, value and the nearest right name."""

import difflib
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from fedunlearn.errors import InputError, StoreError, unknown
from fedunlearn.lineage import BIRTHS, ordered
from fedunlearn.runtime import Family
from fedunlearn.scenario import schema
from fedunlearn.scenario.schema import Data, Scenario

SHIPPED = (Path(__file__).parent.parent / "topologies", Path(__file__).parents[2] / "topologies")
KINDS: dict[str, type[BaseModel]] = {
    "federated": schema.Federated,
    "distributed": schema.Distributed,
    "incremental": schema.Incremental,
    "transfer": schema.Transfer,
}


def load(path: Path) -> Scenario:
    """A scenario from a file.

    Args:
        path: a YAML file. Its folder goes on the import path, so that factories beside it are found.

    Raises:
        InputError: the file is missing or not YAML, or something in it is wrong.
    """
    try:
        plain = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {error}") from error
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return parse(plain, str(path))


def parse(plain: Any, where: str) -> Scenario:
    """A scenario from plain data.

    Args:
        plain: what the YAML says.
        where: the file, to say in errors.

    Raises:
        InputError: something in it is wrong.
    """
    if not isinstance(plain, dict):
        raise InputError(f"{where}: expected a mapping with name, data, net and models, found {type(plain).__name__}")
    for name, model in (plain.get("models") or {}).items() if isinstance(plain.get("models"), dict) else ():
        if isinstance(model, dict) and str(model.get("born")) not in BIRTHS:
            raise unknown("kind of birth", model.get("born"), BIRTHS, where=f"{where}: models.{name}.born")
    try:
        scenario = Scenario.model_validate(plain)
    except ValidationError as error:
        raise InputError("\n".join(_said(e, where) for e in error.errors())) from error
    try:
        ordered(scenario.parents)
        for site in scenario.data.without:
            if site not in scenario.sites:
                raise unknown("site", site, scenario.sites, where="data.without")
        for name, asked in scenario.requests.items():
            asked.request(name)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return scenario


def of_family(family: Family) -> Scenario:
    """The scenario that a family was trained from.

    Raises:
        StoreError: it has none.
    """
    path = family.folder / "scenario.yaml"
    if not path.exists():
        raise StoreError(f"{path}: missing; without it nobody here knows the family's data and net")
    return load(path)


def find_topology(name: str) -> Path:
    """A path, or the name of a topology that comes with the package.

    Raises:
        InputError: there is no such file; says the nearest.
    """
    path = Path(name)
    if path.exists():
        return path
    shipped = {p.stem: p for folder in SHIPPED for p in folder.glob("*.yaml")}
    if path.stem in shipped and path.parent.name in ("", "topologies"):
        return shipped[path.stem]
    raise unknown("topology", name, shipped)


def _said(error: Any, where: str) -> str:
    *_, key = error["loc"] or ("",)
    keys = [str(k) for k in error["loc"] if str(k) not in KINDS]
    path = ".".join(keys)
    if error["type"] == "extra_forbidden":
        known = _fields(keys)
        close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
        return (
            f"{where}: {path}: unknown key {key!r}; "
            + (f"did you mean {close[0]!r}? " if close else "")
            + f"known: {', '.join(known)}"
        )
    if error["type"] == "missing":
        return f"{where}: {path}: missing; a value is needed here"
    return f"{where}: {path}: {error['input']!r}: {error['msg'].removeprefix('Value error, ')}"


def _fields(keys: list[str]) -> list[str]:
    """Right keys at the place of a wrong one."""
    at: dict[str, list[type[BaseModel]]] = {
        "data": [Data],
        "gate": [schema.Limits],
        "requests": [schema.Asked],
        "models": list(KINDS.values()),
    }
    kinds = at.get(keys[0], [Scenario]) if len(keys) > 1 else [Scenario]
    return sorted({field.alias or name for kind in kinds for name, field in kind.model_fields.items()})
