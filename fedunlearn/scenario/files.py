"""Reading a topology, with errors that name file, key, value and the nearest right name."""

import difflib
import json
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
        plain = yaml.load(path.read_text(), _Unique)
        json.dumps(plain)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: refers to itself, or holds something that is no plain value: {error}") from error
    if isinstance(plain, dict):
        plain.setdefault("folder", str(path.resolve().parent))
    scenario = parse(plain, str(path))
    if scenario.folder not in sys.path:
        sys.path.insert(0, scenario.folder)
    return scenario


class _Unique(yaml.SafeLoader):
    """A key that stands twice in a mapping would silently win over the first; here it is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = sorted({str(k) for k in keys if keys.count(k) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"{', '.join(twice)} stands there more than once", node.start_mark
            )
        return super().construct_mapping(node, deep)


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
        order = ordered(scenario.parents)
        for name in order:
            _one_head(scenario, name)
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


def _one_head(scenario: Scenario, name: str) -> None:
    """Parents must have one head, unless it is replaced; what it is follows from the nearest transfers above."""
    spec = scenario.models[name]
    heads = {head_source(scenario, p) for p in spec.source}
    if not isinstance(spec, schema.Transfer) and len({scenario.models[h].head if h else None for h in heads}) > 1:  # type: ignore[union-attr]
        raise InputError(
            f"models.{name}.from: its parents {', '.join(spec.source)} have different outputs; only a transfer, "
            f"which replaces the head, can start from them"
        )


def head_source(scenario: Scenario, name: str) -> str | None:
    """The transfer that a model's head comes from; None where it has an output for every class."""
    spec = scenario.models[name]
    if isinstance(spec, schema.Transfer):
        return name
    return head_source(scenario, spec.source[0]) if spec.source else None


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
