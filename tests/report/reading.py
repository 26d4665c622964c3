"""A report and its page, with the tags, the text and the rows of tables that are in it."""

import json
from html.parser import HTMLParser
from typing import Any

from fedunlearn.lineage import Request
from fedunlearn.report import document, page
from fedunlearn.runtime import Family
from fedunlearn.store import Line

A = Request(classes=("a",))


class Read(HTMLParser):
    """Tags, attributes, text, and the cells of each row by its first cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.rows: list[list[str]] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True
        if tag == "br":
            self.handle_data("\n")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, text: str) -> None:
        self.text.append(text)
        if self._in_cell:
            self.rows[-1][-1] += text

    def of(self, name: str) -> list[list[str]]:
        return [row for row in self.rows if row and row[0].startswith(name)]


def told(family: Family, line: Line, evaluations: dict[str, Any] | None = None) -> tuple[dict[str, Any], Read]:
    plain = document(family, line, evaluations or {})
    assert json.loads(json.dumps(plain)) == plain  # plain data
    return plain, Read(page(plain))
