"""Short forms for many models: each expands into plain models before anything is checked, so that one set of rules holds.

federation: {clients: 10, rounds: 10, strategy: fedadam, keep: {every: 5}}   a federated model; ten clients, client-1 ...
ddp:        {ranks: 4}                                                        one distributed model; sites rank-1 ...
increments: {count: 10, ...}                                                  a chain NAME-1, NAME-2 ...; NAME is its last
transfers:  {count: 40, ...}                                                  a star NAME-1 ... from the same parent
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fedunlearn.errors import InputError, unknown

MACROS = ("federation", "ddp", "increments", "transfers")
MOST = 10_000  # models of one short form
MOST_IN_ALL = 100_000  # models of a family, and places of all short forms together


def expand(models: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Models with short forms written out.

    Args:
        models: as the YAML says.
        where: the file, to say in errors.

    Returns:
        Plain models by name; parents that name a chain mean its last model.

    Raises:
        InputError: a short form says something that it does not know, or its models get names that are taken.
    """
    found: dict[str, Any] = {}
    ends: dict[str, str] = {}
    places = 0
    for name, spec in models.items():
        used = [m for m in MACROS if isinstance(spec, Mapping) and m in spec]
        at = f"{where}: models.{name}"
        if len(used) > 1:
            raise InputError(f"{at}: names both {used[0]} and {used[1]}; a model is born in one way")
        made = _expanded(str(name), used[0], spec, f"{at}.{used[0]}") if used else {str(name): spec}
        taken = sorted(made.keys() & (found.keys() | {str(m) for m in models if m != name}))
        if taken:
            raise InputError(f"{at}: makes a model {taken[0]!r}, but there is one of that name already; rename either")
        if used and used[0] == "increments":
            ends[str(name)] = list(made)[-1]
        if used and used[0] == "transfers":
            ends[str(name)] = ""
        found.update(made)
        places += sum(len(m[k]) for m in made.values() if used for k in ("clients", "ranks") if isinstance(m.get(k), list))
        if max(len(found), places) > MOST_IN_ALL:
            raise InputError(
                f"{where}: models: {len(found)} models with {places} places in all, expected at most {MOST_IN_ALL}"
            )
    return {name: _linked(spec, ends, f"{where}: models.{name}.from", found) for name, spec in found.items()}


def _expanded(name: str, macro: str, spec: Mapping[str, Any], where: str) -> dict[str, Any]:
    inner = spec[macro] if spec[macro] is not None else {}
    if not isinstance(inner, Mapping):
        raise InputError(f"{where}: {inner!r}: expected a mapping, for example {_example(macro)}")
    twice = sorted(set(inner) & (set(spec) - {macro}))
    if "born" in {*spec, *inner} or twice:
        raise InputError(f"{where}: {twice[0] if twice else 'born'!r} is said by {macro} itself; leave it out beside it")
    rest = {**{k: v for k, v in spec.items() if k != macro}, **inner}
    if macro == "federation":
        return {name: {**rest, "born": "federated", "clients": _places(rest.get("clients"), "client", f"{where}.clients")}}
    if macro == "ddp":
        return {name: {**rest, "born": "distributed", "ranks": _places(rest.get("ranks"), "rank", f"{where}.ranks")}}
    count = rest.pop("count", None)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST:
        raise InputError(f"{where}.count: {count!r}: expected how many models, from 1 to {MOST}")
    names = [f"{name}-{i}" for i in range(1, count + 1)]
    sites = rest.pop("sites", None)
    if sites is not None and "site" in rest:
        raise InputError(f"{where}: give site or sites, not both")
    if sites is not None and (not isinstance(sites, Sequence) or isinstance(sites, str) or not sites):
        raise InputError(f"{where}.sites: {sites!r}: expected a list of names; models take them in turn")
    each = {k: rest.pop(k) for k in ("adds", "heads") if k in rest}
    for key, values in each.items():
        if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != count:
            raise InputError(f"{where}.{key}: expected a list of {count} lists of classes, one for each model")
        if (key == "adds") != (macro == "increments"):
            raise unknown("key", key, ("heads",) if macro == "transfers" else ("adds",), where=where)
    made: dict[str, Any] = {}
    for i, one in enumerate(names):
        made[one] = {**rest, "born": "incremental" if macro == "increments" else "transfer"}
        if sites is not None:
            made[one]["site"] = sites[i % len(sites)]
        elif "site" not in rest:
            made[one]["site"] = one
        if macro == "increments" and i:
            made[one]["from"] = [names[i - 1]]
        if "adds" in each and each["adds"][i]:
            made[one] = {**made[one], "adds": each["adds"][i], "classes": made[one].get("classes", each["adds"][i])}
        if "heads" in each:
            made[one]["head"] = each["heads"][i]
    return made


def _places(value: Any, prefix: str, where: str) -> Any:
    """A number of places stands for as many names."""
    if isinstance(value, bool) or not isinstance(value, int):
        return value if value is not None else []
    if not 1 <= value <= MOST:
        raise InputError(f"{where}: {value}: expected from 1 to {MOST}, or a list of names")
    return [f"{prefix}-{i}" for i in range(1, value + 1)]


def _linked(spec: Any, ends: Mapping[str, str], where: str, known: Mapping[str, Any]) -> Any:
    """Parents by their final names."""
    if not isinstance(spec, Mapping) or not isinstance(spec.get("from"), Sequence | str):
        return spec
    parents = [spec["from"]] if isinstance(spec["from"], str) else list(spec["from"])
    for parent in map(str, parents):
        if ends.get(parent) == "":
            raise InputError(f"{where}: {parent!r} is a star of models; name one of them, for example {parent}-1")
        if "/" in parent and not {parent, parent.rpartition("/")[2]} & {*known, *ends}:
            raise InputError(
                f"{where}: {parent!r} is no model of this file: leave it out, and the model's past begins here, or add it with "
                f"a file of its own"
            )
    local = [p if str(p) in known or str(p) in ends else str(p).rpartition("/")[2] for p in parents]  # a hub's owner/name
    return {**spec, "from": [ends.get(str(p), p) for p in local]}


def _example(macro: str) -> str:
    return {
        "federation": "{clients: 10, rounds: 10}",
        "ddp": "{ranks: 4}",
        "increments": "{count: 10}",
        "transfers": "{count: 40, head: [a, b]}",
    }[macro]
