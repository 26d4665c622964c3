"""A coordinator's folder, sites with files of their own, and Flower between them, in this process."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from flwr.app import Context, RecordDict

from fedunlearn.deployed import Order, client as client_side, server as server_side
from fedunlearn.deployed.coordinator import FAMILIES
from fedunlearn.deployed.wire import Reader
from fedunlearn.scenario import Scenario
from fedunlearn.scenario.schema import Asked
from fedunlearn.training.flower import LocalGrid
from fedunlearn.training.flower.grid import at_server
from tests.scenario.elsewhere import MODELS, NET, elsewhere

SITES = ("north", "south", "east")
SCENARIO = elsewhere({k: MODELS[k] for k in ("shared", "eastern")}, test="tests.scenario.elsewhere:load_test").model_copy(
    update={"requests": {"a": Asked(classes=("0",)), "b": Asked(classes=("3",), due="2027-01-31")}}
)


def plain(scenario: Scenario) -> str:
    return json.dumps(scenario.model_dump(by_alias=True, mode="json", exclude_unset=True, exclude={"folder"}))


TOPOLOGY = plain(SCENARIO)


def site_files(folder: Path, **changes: Any) -> dict[str, Path]:
    plain = {"data": {"factory": "tests.scenario.elsewhere:load_site"}, "net": NET, **changes}
    for site in SITES:
        (folder / site).mkdir(parents=True)
        (folder / site / "site.yaml").write_text(yaml.safe_dump({"name": site, **plain}))
    return {site: folder / site / "site.yaml" for site in SITES}


class World:
    """A coordinator's folder, sites with files of their own, and Flower between them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], **changes: Any) -> None:
        self.files, self.capsys, self.families = site_files(folder / "sites", **changes), capsys, folder / "families"
        self.families.mkdir()
        self.nodes = {i: {"site": s, client_side.KEY: str(f)} for i, (s, f) in enumerate(self.files.items(), 1)}

    def log(self, order: Order | dict[str, Any]) -> tuple[list[str], bool]:
        """What a run prints, and whether it ends well."""
        config = order.config if isinstance(order, Order) else order
        grid, fine = LocalGrid(client_side.app, self.nodes, config), True
        with at_server():
            try:
                server_side.app(grid, Context(1, 1, {}, RecordDict(), config))
            except server_side.Refused:
                fine = False
        return self.capsys.readouterr().out.splitlines(), fine

    def done(self, **words: Any) -> dict[str, Any]:
        told, fine = self.log(Order(**{"family": "ours", "join": 0.0, "deadline": 60.0, **words}))
        reader = Reader("answer")
        for line in told:
            reader.take(line)
        found: dict[str, Any] = reader.answer()
        assert fine != ("error" in found)
        return found


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, capsys)
    monkeypatch.setenv(FAMILIES, str(made.families))
    monkeypatch.setattr(sys, "path", list(sys.path))
    client_side.site_at.cache_clear()
    return made
