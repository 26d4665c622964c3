"""The page about topologies says what the schema takes."""

import runpy
from pathlib import Path

TOPOLOGIES = Path(__file__).parents[2] / "topologies"


def test_the_page_about_topologies_is_what_the_schema_says() -> None:
    made = runpy.run_path(str(TOPOLOGIES / "reference.py"))["page"]()
    assert made == (TOPOLOGIES / "README.md").read_text(), "run `make tables`"


def test_every_key_says_what_it_is() -> None:
    rows = [line for line in (TOPOLOGIES / "README.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert [row for row in rows if not row.rsplit("|", 2)[1].strip()] == []
