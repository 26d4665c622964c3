"""Files of sites, as their owners write them."""

from pathlib import Path
from typing import Any

import yaml

from fedunlearn.scenario import open_site
from fedunlearn.scenario.site import Site
from tests.cli.conftest import run as run
from tests.scenario.elsewhere import NET

DATA: dict[str, Any] = {"factory": "tests.scenario.elsewhere:load_site"}
PLAIN: dict[str, Any] = {"name": "north", "data": DATA, "net": NET, "nets": {"wide": {"name": "mlp", "hidden": 12}}}


def write(folder: Path, **changes: Any) -> Path:
    plain = {k: v for k, v in {**PLAIN, **changes}.items() if v is not None}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "site.yaml").write_text(yaml.safe_dump(plain))
    return folder / "site.yaml"


def sites_at(folder: Path, names: tuple[str, ...] = ("north", "south", "east"), **changes: Any) -> dict[str, Site]:
    return {name: open_site(write(folder / name, name=name, **changes)) for name in names}
