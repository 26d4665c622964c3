"""The document as one HTML file that asks the network for nothing and runs no script but its own."""

import base64
import hashlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from fedunlearn.errors import few
from fedunlearn.report.drawing import HEIGHT, WIDTH
from fedunlearn.report.measurements import measurements
from fedunlearn.report.plots import plots
from fedunlearn.report.risk import LEVELS
from fedunlearn.report.words import title

HERE = Path(__file__).parent
OPEN = 60  # a group of more models is folded at first
PLOTTED = 24  # models whose pictures are drawn; of the others, the numbers
LISTED = 12  # of a long list that is in the tables too
SETS = 40  # of evidence, that are listed
WORDS = 24  # letters of a name that fit into a box


def page(document: Mapping[str, Any]) -> str:
    """The page.

    Names and reasons come from users: they are escaped, letters that are not visible or turn the direction of writing are
    written as their code, and a content security policy keeps the page from loading or running anything else.

    Args:
        document: what `document` gives.
    """
    style, script = ((HERE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    numbers = {model["name"]: f"m{i}" for i, model in enumerate(document["models"])}
    evaluated = document["evaluations"]
    return _template().render(
        d=document,
        levels=LEVELS,
        counts={name: sum(m["risk"] == name for m in document["models"]) for name in LEVELS},
        groups=_groups,
        boxes=list(_boxes(document, numbers)),
        paths=list(_paths(document)),
        number=numbers,
        glances=[{"name": name, **_glance(tiers)} for name, tiers in evaluated.items()],
        trials=[
            {
                "model": model,
                "plots": plots(evaluated[model["name"]]),
                "rows": measurements(model["name"], evaluated[model["name"]]),
            }
            for model in [m for m in document["models"] if m["name"] in evaluated][:PLOTTED]
        ],
        on_training=any(m.get("forgotten_on") == "training" for m in document["models"]),
        OPEN=OPEN,
        SETS=SETS,
        LISTED=LISTED,
        WIDTH=WIDTH,
        HEIGHT=HEIGHT,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=visible,
    )  # fmt: skip
    environment.filters.update(percent=percent, amount=amount, few=partial(few, most=LISTED), title=title)
    return environment.get_template("page.html")


def visible(value: Any) -> Any:
    """Text in which nothing is hidden: letters without a shape, or that turn the direction, become their code."""
    if type(value) is not str or value.isprintable():
        return value
    return "".join(f"\\u{ord(c):04x}" if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n" else c for c in value)


def percent(fraction: float | None) -> Any:
    """A fraction in percent, or that it was not measured."""
    return Markup('<span class="nm">not measured</span>') if fraction is None else f"{100 * fraction:.1f}%"


def amount(number: float) -> str:
    """Bytes in the unit that fits."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def short(name: str, letters: int = WORDS) -> str:
    """A name that fits into a box."""
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def _groups(models: Sequence[Mapping[str, Any]]) -> list[tuple[Any, list[Mapping[str, Any]]]]:
    """All in one table while they are few; one to be unfolded for each level of residual risk otherwise."""
    if len(models) <= OPEN:
        return [(None, list(models))] if models else []
    return [(level, of) for level in LEVELS.values() if (of := [m for m in models if m["risk"] == level.name])]


def _boxes(document: Mapping[str, Any], numbers: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    models = {m["name"]: m for m in document["models"]}
    for box in document["lineage"]["boxes"]:
        first, many = box["models"][0], len(box["models"])
        more = f" +{many - 1:,}" if many > 1 else ""
        name = short(first, WORDS - len(more)) + more
        title = f"{first} to {box['models'][-1]}, {many:,} models" if more else first
        yield {**box, "risk": models[first]["risk"], "number": numbers[first], "name": name, "title": title}


def _paths(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Lines from the right side of a box to the left side of another; those on which the data came are marked."""
    touched = {m["name"]: m["risk"] != "none" for m in document["models"]}
    boxes = document["lineage"]["boxes"]
    for a, b in document["lineage"]["lines"]:
        x, y = boxes[a]["x"] + WIDTH, boxes[a]["y"] + HEIGHT / 2
        u, v = boxes[b]["x"] - 5, boxes[b]["y"] + HEIGHT / 2
        bend = min(60, (u - x) / 2)
        way = touched[boxes[a]["models"][0]] and touched[boxes[b]["models"][0]]
        yield {"d": f"M{x:g} {y:g}C{x + bend:g} {y:g} {u - bend:g} {v:g} {u:g} {v:g}", "way": way}


def _glance(tiers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The strongest attacks in a line: each a text, or None where it was not measured."""
    found: dict[str, Any] = {name: of for result in tiers.values() for name, of in result["metrics"].items()}

    def beside(metric: str, *path: str) -> str | None:
        values = {net: _at(found.get(metric, {}).get(net), path) for net in ("after", "retrained")}
        if values["after"] is None:
            return None
        again = "" if values["retrained"] is None else f" (retrained {100 * values['retrained']:.1f}%)"
        return f"{100 * values['after']:.1f}%{again}"

    ain = _at(found.get("relearn_shots", {}).get("after"), ("ain",))
    weaker = "LiRA " if str(_at(found.get("ulira"), ("attack",))).startswith("LiRA") else ""  # where no shadow model forgot
    area = _at(found.get("ulira", {}).get("after"), ("auc",))
    return {
        "probe": beside("probe", "recovery", "value"),
        "means": beside("prototypes", "recovery", "value"),
        "retained": beside("relearn_retained", "best"),
        "ain": f"{ain:.2f}" if isinstance(ain, float) else ain,
        "ulira": area and f"{weaker}{area['value']:.2f} ({area['low']:.2f} to {area['high']:.2f})",
    }


def _at(found: Any, path: Sequence[str]) -> Any:
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
