"""Reading a topology, with errors that name file, key, value and the nearest right name."""

import json
from collections.abc import Hashable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from blake3 import blake3
from pydantic import ValidationError

from fedunlearn.dotted import importable
from fedunlearn.errors import BusyError, InputError, StoreError, unknown
from fedunlearn.lineage import ordered
from fedunlearn.runtime import Family
from fedunlearn.scenario import schema
from fedunlearn.scenario.macros import expand
from fedunlearn.scenario.schema import Scenario
from fedunlearn.scenario.schema_errors import KINDS, said
from fedunlearn.scenario.sources import MAIN
from fedunlearn.training import STRATEGIES, kept_rounds

SHIPPED = (Path(__file__).parent.parent / "topologies", Path(__file__).parents[2] / "topologies")
MOST_BYTES = 16 << 20  # of a file
MOST_VALUES = 1_000_000  # in a file
MOST_DIGITS = 40
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def load(path: Path | str) -> Scenario:
    """A scenario from a file.

    Args:
        path: a YAML file. Its folder goes on the import path, so that factories beside it are found.

    Raises:
        InputError: the file is missing or not YAML, or something in it is wrong.
    """
    path = Path(path)
    plain = read_plain(path)
    if isinstance(plain, dict):
        plain.setdefault("folder", str(path.resolve().parent))
    scenario = parse(plain, str(path))
    importable(scenario.folder)
    return scenario


def read_plain(path: Path) -> Any:
    """What a YAML file says, as plain values.

    Raises:
        InputError: the file is missing, not YAML, or says more than a machine should have to read.
    """
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise InputError(f"{path}: has {size} bytes, expected at most {MOST_BYTES}")
        plain = yaml.load(path.read_bytes().decode(), _Plain)
        json.dumps(plain, ensure_ascii=False).encode()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: refers to itself, or holds something that is no plain value: {error}") from error
    return plain


class _Plain(yaml.SafeLoader):
    """A key that stands twice in a mapping would silently win over the first; here it is an error.

    A few lines of aliases can stand for more values than memory holds, and a number of some thousand digits takes for ever.
    A date is text, as JSON has none.
    """

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _count(node, {})
        return node

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        if node.tag in NUMBERS and len(node.value) > MOST_DIGITS:
            raise _wrong(f"a number of {len(node.value)} characters, expected at most {MOST_DIGITS}", node)
        return super().construct_scalar(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen, twice = set[Any](), set[Any]()
        for key in (self.construct_object(key, deep=deep) for key, _ in node.value):
            if not isinstance(key, Hashable):
                raise _wrong("a key that is a list or a mapping", node)
            (twice if key in seen else seen).add(key)
        if twice:
            raise _wrong(f"{', '.join(sorted(map(str, twice)))} stands there more than once", node)
        return super().construct_mapping(node, deep)


def _count(node: yaml.Node, counted: dict[int, int]) -> int:
    """How many values a node stands for, aliases written out; 0 for a node that is being counted is one that holds itself."""
    if id(node) in counted:
        if not counted[id(node)]:
            raise _wrong("refers to itself", node)
        return counted[id(node)]
    counted[id(node)], total = 0, 1
    inside = node.value if isinstance(node, yaml.CollectionNode) else []
    for part in inside:
        total += sum(_count(one, counted) for one in (part if isinstance(part, tuple) else (part,)))
        if total > MOST_VALUES:
            raise _wrong(f"stands for more than {MOST_VALUES} values once its aliases are written out", node)
    counted[id(node)] = total
    return total


_Plain.yaml_implicit_resolvers = {
    first: [(tag, found) for tag, found in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _wrong(what: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, what, node.start_mark)


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
    if isinstance(plain.get("models"), dict):
        plain = {**plain, "models": expand({n: _hub(m) for n, m in plain["models"].items()}, where)}
        for name, model in plain["models"].items():
            if isinstance(model, dict) and str(model.get("born")) not in KINDS:
                raise unknown("kind of birth", model.get("born"), KINDS, where=f"{where}: models.{name}.born")
            if isinstance(model, dict) and isinstance(model.get("head"), int):
                raise InputError(
                    f"{where}: models.{name}.head: {model['head']!r}: name every output by its class, in the order of the rows"
                )
    try:
        scenario = Scenario.model_validate(plain)
    except ValidationError as error:
        raise InputError("\n".join(said(e, where) for e in error.errors())) from error
    try:
        order = ordered(scenario.parents)
        for name in order:
            _check_model(scenario, name)
        for what, spec in scenario.sets.items():
            for key, table in (("without", spec.without), ("only", spec.only), ("share", spec.share)):
                for site in table:
                    if not any(fnmatchcase(s, site) for s in scenario.sites):
                        at = "data" if what == MAIN else f"more.{what}"
                        raise unknown("site", site, scenario.sites, where=f"{at}.{key}")
        for name, asked in scenario.requests.items():
            asked.request(name)
        _ = scenario.gate.gate  # its metrics must be known
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return scenario


def of_family(family: Family) -> Scenario:
    """The scenario that a family was trained from.

    Raises:
        StoreError: it has none, or not the one that its ledger recorded: limits and requests are the ledger's to tell.
    """
    path, told = family.topology, family.trained("topology")
    if not path.exists():
        raise StoreError(f"{path}: missing; without it nobody here knows the family's data and net")
    if told is not None and blake3(path.read_bytes()).hexdigest() != told:
        if len(Family(family.folder).ledger.lines) > len(family.ledger.lines):
            raise BusyError(
                f"{family.folder}: another command wrote to it meanwhile; look at what it did (fedunlearn show), then try again"
            )
        raise StoreError(
            f"{path}: is not what the ledger recorded; it was changed or damaged: restore it from a backup "
            f"(fedunlearn extend changes a family's limits and adds requests and models)"
        )
    scenario, known = load(path), family.lineage.by_name
    models = {name: spec for name, spec in scenario.models.items() if name in known}  # an extension may have been cut off
    return scenario.model_copy(update={"models": models})


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


def _hub(model: Any) -> Any:
    """A model with a file and no birth is imported; `base_model` is what model hubs call the parents of a fine-tuned one."""
    if not isinstance(model, dict):
        return model
    if "base_model" in model and "from" not in model:
        model = {**{k: v for k, v in model.items() if k != "base_model"}, "from": model["base_model"]}
    if isinstance(model.get("from"), str):
        model = {**model, "from": [model["from"]]}
    return {"born": "imported", **model} if "file" in model else model


def _check_model(scenario: Scenario, name: str) -> None:
    """What a model takes from its parents must be there: one head (unless it is replaced), one architecture."""
    spec, where = scenario.models[name], f"models.{name}"
    if spec.data not in scenario.sets:
        raise unknown("set", spec.data, scenario.sets, where=f"{where}.data")
    if spec.net is not None and spec.net not in scenario.nets:
        raise unknown("net", spec.net, scenario.nets, where=f"{where}.net")
    if isinstance(spec, schema.Imported):
        return
    if len({scenario.outputs(p) for p in spec.source}) > 1 and not isinstance(spec, schema.Transfer):
        raise InputError(
            f"{where}.from: its parents {', '.join(spec.source)} have different outputs; only a transfer, "
            f"which replaces the head, can start from them"
        )
    nets = {p: scenario.net_of(p) for p in spec.source} | ({name: spec.net} if spec.net is not None else {})
    if len(set(nets.values())) > 1:
        said = ", ".join(f"{m} is {n or 'the net of the family'}" for m, n in nets.items())
        raise InputError(f"{where}: a model has the architecture of its parents, but {said}")
    if spec.head and spec.source and not isinstance(spec, schema.Transfer):
        raise InputError(
            f"{where}.head: it has the outputs of its parents; an increment grows them by `adds`, a transfer replaces"
        )
    if isinstance(spec, schema.Federated):
        kept_rounds(spec.policy, spec.rounds, where)
        if spec.strategy not in STRATEGIES:
            raise unknown("strategy", spec.strategy, STRATEGIES, where=f"{where}.strategy")
    if isinstance(spec, schema.Incremental):
        twice = sorted(set(spec.adds) & set(scenario.outputs(spec.source[0])[1])) if spec.source else []
        if twice or (spec.adds and not spec.source):
            told = f"has an output for {twice[0]} already" if twice else "starts from nothing: say `head`"
            raise InputError(f"{where}.adds: it {told}")
        if spec.ewc and not spec.source:
            raise InputError(f"{where}.ewc: there is no model to hold on to; it has no parents")
        if spec.replay and not spec.classes:
            raise InputError(
                f"{where}.replay: replays classes that it is not trained on; say in `classes` what it is trained on"
            )
