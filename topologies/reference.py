"""Every key of a topology, as the schema has it: writes README.md beside this file (`make tables`)."""

import inspect
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from fedunlearn.data.sets import FORMS, SETS
from fedunlearn.nets.build import NETS
from fedunlearn.scenario import macros
from fedunlearn.scenario.schema import (
    Asked,
    Bound,
    Data,
    Distributed,
    Every,
    Federated,
    Imported,
    Incremental,
    Limits,
    Scenario,
    Transfer,
)
from fedunlearn.scenario.sources import Sending, Strict

HERE = Path(__file__).parent
BIRTHS = (Federated, Distributed, Incremental, Transfer, Imported)
HEAD = """# Topologies

A topology is one YAML file: data, a net, models in the order of their births, and what may be asked to be forgotten. What
stands in it is all there is: nothing is included or interpolated, and a key that is not below is an error that names the
nearest right one. `fedunlearn train FILE` trains it; `fedunlearn extend FOLDER FILE` adds what a second file has of `models`,
`nets`, `requests` and `gate`.

This page is made from the schema ([reference.py](reference.py), `make tables`).
"""


def page() -> str:
    """The whole page."""
    common = set(Federated.model_fields).intersection(*(of.model_fields for of in BIRTHS[1:])) - {"born", "head"}
    parts = [HEAD, "## Those in this folder\n", _files(), "## The file\n", _table(Scenario, leave={"folder"})]
    parts += ["## `data`, and each set under `more`\n", *_about(Data), _table(Data)]
    parts += [f"Sets by name: {', '.join(f'`{name}`' for name in SETS)}; or {FORMS.removeprefix('give one of these, ')}.\n"]
    parts += ["## `net`, and each one under `nets`\n", _nets()]
    parts += ["## `models`\n", "Whatever the birth:\n", _table(Federated, keep=common)]
    for birth in BIRTHS:
        name = birth.model_fields["born"].annotation.__args__[0]
        parts += [f"### `born: {name}`\n", *_about(birth), _table(birth, leave=common | {"born"})]
    parts += ["`keep: {every: n}`:\n", _table(Every), "### Short forms\n", f"```\n{_short_forms()}\n```\n"]
    parts += [
        "## Each request under `requests`\n",
        *_about(Asked),
        _table(Asked),
        "## `gate`\n",
        *_about(Limits),
        _table(Limits),
    ]
    parts += ["Each of `metrics`:\n", _table(Bound), "## Each site under `evidence`\n", *_about(Sending), _table(Sending)]
    return "\n".join(parts)


def _about(of: type[Strict]) -> Iterator[str]:
    """What its docstring says, if it has a word for those who write files."""
    if text := inspect.getdoc(of):
        yield f"{text}\n"


def _files() -> str:
    lines = []
    for file in sorted(HERE.glob("*.yaml")):
        words = [line.removeprefix("# ") for line in file.read_text().splitlines() if line.startswith("# ")]
        lines.append(f"- [{file.name}]({file.name}): {' '.join(words)}")
    return "\n".join(lines) + "\n"


def _table(of: type[Strict], keep: Collection[str] | None = None, leave: Collection[str] = ()) -> str:
    """Its keys, some of them: what may stand there, and what stands there otherwise."""
    schema = of.model_json_schema(by_alias=True)
    lines = ["| key | value | by default | |", "|---|---|---|---|"]
    for name, field in of.model_fields.items():
        if name in leave or (keep is not None and name not in keep):
            continue
        key = field.alias or name
        plain = schema["properties"][key]
        default = "*must be given*" if field.is_required() else _default(plain.get("default"))
        lines.append(f"| `{key}` | {_value(plain)} | {default} | {plain.get('description', '')} |")
    return "\n".join(lines) + "\n"


def _default(value: Any) -> str:
    if value is None or isinstance(value, list | dict):
        return ""
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def _value(plain: Mapping[str, Any]) -> str:
    """What may stand there, in words."""
    if some := [one for one in plain.get("anyOf", ()) if one.get("type") != "null"]:
        return " or ".join(map(_value, some))
    if "$ref" in plain or plain.get("type") == "object":
        return "mapping"
    if "enum" in plain or "const" in plain:
        return ", ".join(f"`{one}`" for one in plain.get("enum", [plain.get("const")]))
    kind = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`", "array": "list"}
    bounds = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    return " ".join([kind[plain["type"]], *(f"{word} {plain[b]:g}" for b, word in bounds.items() if b in plain)])


def _nets() -> str:
    lines = [
        "`name` with its settings, or `factory: yours.module:make_net`, called as `make_net(shape, outputs, **settings)`.\n"
    ]
    lines += ["| name | settings | |", "|---|---|---|"]
    for name, make in NETS.items():
        given = [p for p in inspect.signature(make).parameters.values() if p.name not in ("shape", "outputs")]
        settings = ", ".join(f"`{p.name}: {p.default}`" for p in given)
        lines.append(f"| `{name}` | {settings} | {(inspect.getdoc(make) or '').splitlines()[0]} |")
    return "\n".join(lines) + "\n"


def _short_forms() -> str:
    return (inspect.getdoc(macros) or "").split("\n\n", 1)[1].rstrip()


if __name__ == "__main__":
    (HERE / "README.md").write_text(page())
