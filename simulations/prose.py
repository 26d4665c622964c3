"""Numbers in prose: what was measured is taken from the tables.

`<!-- n: steer_ablation | 3, 5, 8, 9 | factor 1.3 | left -->0.3<!-- /n -->` is, in the table of that name, the row that has
these cells, and the column (of the first table there that has both); `most left` or `least left` where several rows have them,
`left [2]` for a cell's second number.
Beside tables: `<!-- n: bench_runtime_cpu.json | two_against_one.ratio -->`, a file of `results/` and the way in it. As many
decimals are shown as stand there.

In a paragraph that begins with "Readings.", any other number with a decimal point or a unit is a setting or a limit: in
backticks.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from common import RESULTS

MARK = re.compile(r"<!-- n: (.*?) -->([^<]*)<!-- /n -->", re.S)
OPENED = re.compile(r"<!-- n\b")
FIRST = re.compile(r"^ {0,3}<!-- n\b", re.M)  # Markdown would take such a line for HTML
NUMBER = re.compile(r"(?<![\w.])-?\+?\d[\d,]*(?:\.\d+)?")
UNITS = r"%|points?|times|ms|s|seconds|minutes|kB|MB|GB|bytes"
MEASURED = re.compile(rf"(?<![\w.])\d+\.\d+|(?<![\w.])\d[\d,]*(?= ?(?:{UNITS})(?!\w))")


class Wrong(SystemExit):
    """A number that is in no result."""


def filled(text: str, tables: Mapping[str, str]) -> str:
    """The text, its marked numbers as the tables have them.

    Args:
        text: of a document.
        tables: the generated blocks of all documents, by name.

    Raises:
        Wrong: a mark names what is not there, or a reading has a number without one.
    """
    found = MARK.sub(lambda m: f"<!-- n: {m[1]} -->{_shown(value(m[1], tables), m[2], m[1])}<!-- /n -->", text)
    if FIRST.search(text):
        raise Wrong("a line begins with `<!-- n`, which Markdown takes for HTML to the end of the line: put a word before it")
    if len(OPENED.findall(text)) != len(MARK.findall(text)):
        raise Wrong("a mark `<!-- n: ... -->` is not closed by `<!-- /n -->`")
    if bare := unmarked(text):
        raise Wrong(
            f"{'; '.join(bare)}: numbers of a reading that are in no result; take them from one by "
            f"`<!-- n: table | cell | column -->` (see simulations/prose.py), or put a setting or limit in backticks"
        )
    return found


def unmarked(text: str) -> list[str]:
    """Numbers of readings that say a measurement and are not marked, with what stands around them."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        if re.match(r"\W*Readings\b", paragraph):
            plain = re.sub(r"`[^`]*`", "", MARK.sub("", paragraph)).replace("\n", " ")
            found += [plain[max(0, m.start() - 30) : m.end() + 10].strip() for m in MEASURED.finditer(plain)]
    return found


def value(way: str, tables: Mapping[str, str]) -> float:
    """What a mark names.

    Raises:
        Wrong: it is not there, or several are.
    """
    name, *words = [word.strip() for word in " ".join(way.split()).split(" | ")]
    if name.endswith(".json"):
        return _in_file(name, words, way)
    if name not in tables or not words:
        raise Wrong(f"<!-- n: {way} -->: no table {name!r} with a column; tables are {', '.join(sorted(tables))}")
    blocks = re.findall(r"(?:^\|.*\n?)+", tables[name], re.M)
    parts = [[[c.strip(" *") for c in line.strip().strip("|").split(" | ")] for line in b.splitlines()] for b in blocks]
    *cells, column = words
    pick, column = column.split(" ", 1) if column.startswith(("most ", "least ")) else ("", column)
    which = re.fullmatch(r"(.*) \[(\d+)\]", column)
    column, nth = (which[1], int(which[2])) if which else (column, 1)
    if not (having := [part for part in parts if column in part[0]]):
        raise Wrong(
            f"<!-- n: {way} -->: no column {column!r}; there are {', '.join(repr(c) for part in parts for c in part[0])}"
        )
    said = [[row[head.index(column)] for row in rows if _has(row, head, cells)] for head, *rows in having]
    of = next((found for found in said if found), [])
    values = [n for cell in of if (n := _number(cell, nth)) is not None]
    if not values or (len(of) > 1 and not pick):
        raise Wrong(
            f"<!-- n: {way} -->: {len(of)} rows have these cells, {len(values)} of them a number; name one row, or write "
            f"`most {column}` or `least {column}`"
        )
    return min(values) if pick == "least" else max(values)


def _has(row: Sequence[str], head: Sequence[str], cells: Sequence[str]) -> bool:
    return len(row) == len(head) and all(c in row for c in cells)


def _number(cell: str, nth: int) -> float | None:
    """A cell's n-th number, after what names it."""
    found = NUMBER.findall(cell.rsplit(": ", 1)[-1])
    return float(found[nth - 1].replace(",", "").lstrip("+")) if len(found) >= nth else None


def _in_file(name: str, words: Sequence[str], way: str) -> float:
    try:
        found: Any = json.loads((RESULTS / name).read_text())
        for key in words[0].split("."):
            found = found[int(key)] if isinstance(found, list) else found[key]
        return float(found)
    except (OSError, LookupError, ValueError, TypeError) as error:
        raise Wrong(f"<!-- n: {way} -->: not a number of a result ({type(error).__name__}: {error})") from error


def _shown(number: float, before: str, way: str) -> str:
    """As many decimals as stand there."""
    old = re.fullmatch(r"-?\d[\d,]*(?:\.(\d+))?", before.strip())
    if old is None:
        raise Wrong(
            f"<!-- n: {way} -->{before}: expected a number between the marks; write one with as many decimals as wanted"
        )
    text = f"{number:,.{len(old[1] or '')}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text
