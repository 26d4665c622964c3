"""An adopted app of Flower's where the server can read no site's rows: it forgets, and no training is lost."""

import importlib
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from safetensors.torch import load_file

from fedunlearn.data import MIRROR
from fedunlearn.data.register import LIST
from fedunlearn.deployed.server import Refused
from fedunlearn.errors import InputError
from fedunlearn.flower import Recorded, forgetting
from fedunlearn.runtime import Family, fsck
from fedunlearn.runtime.books.records import record_of
from fedunlearn.training.flower.grid import at_server
from tests.conftest import ROOT
from tests.simulations.conftest import APPS, LOADER, NET, grid_of

sys.path.insert(0, str(ROOT / "docker"))

import loopback


class Elsewhere:
    """The adopted app where a site's rows can be read at that site alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.task, self.app = importlib.import_module("quickstart.task"), importlib.import_module("quickstart.client_app").app
        self.at, self.rows = "", self.task.partition
        monkeypatch.setattr(self.task, "partition", self.partition)

    def partition(self, site: object) -> object:
        if site not in ("test", self.at, int(self.at.removeprefix("site-") or -1)):
            raise FileNotFoundError(f"/data/{site}: not on this machine")
        return self.rows(site)

    def client(self, message: Message, context: Context) -> Message:
        self.at = f"site-{context.node_config['partition-id']}"
        try:
            answer: Message = self.app(message, context)
        finally:
            self.at = ""
        return answer

    def train(self, folder: str, **how: Any) -> None:
        torch.manual_seed(0)
        random.seed(0)
        strategy = Recorded(FedAvg(fraction_evaluate=0.0), folder, net=NET, data=LOADER, **how)
        with at_server():
            arrays, config = ArrayRecord(self.task.Net().state_dict()), ConfigRecord({"lr": 0.1})
            strategy.start(grid_of(self.client), arrays, num_rounds=3, train_config=config)  # type: ignore[arg-type]

    def order(self, folder: str, words: str) -> None:
        grid = grid_of(self.client)  # type: ignore[arg-type]
        with at_server():
            forgetting(ServerApp(), folder)(grid, Context(1, 1, {}, RecordDict(), {"fedunlearn": words}))


@pytest.mark.usefixtures("after")
def test_a_deployment_is_adopted_and_forgets_where_the_server_can_read_no_sites_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = Elsewhere(monkeypatch)
    app.train("family", sites="own")
    before = Family.open(tmp_path / "family").heads
    with pytest.raises(Refused, match=r"not carried out: run-config: unknown action 'unlaern'; did you mean 'unlearn'"):
        app.order("family", "unlaern classes=0")
    assert "error: run-config: unknown action 'unlaern'" in capsys.readouterr().out
    app.order("family", "unlearn classes=0 method=steer reference=false")
    family = Family.open(tmp_path / "family")
    (model,) = record_of(family, family.ledger.lines[-1]).facts["models"]
    assert model["status"] == "committed"
    assert model["forgotten_after"] <= 0.05 < 0.5 <= model["forgotten_before"]
    assert family.heads != before
    assert set(family.acknowledged) >= {"site-0", "site-1", "site-2"}
    app.order("family", "rollback lift-exclusion=true")
    assert Family.open(tmp_path / "family").heads == before
    assert (tmp_path / "family" / "homes" / "site-0" / LIST).exists()
    checked = fsck(tmp_path / "family")
    assert not checked.damage
    assert set(checked.orphans.values()) <= {"a version that nothing needs"}


@pytest.mark.usefixtures("after")
def test_what_was_trained_is_not_lost_where_no_family_can_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    app = Elsewhere(monkeypatch)
    with pytest.raises(InputError, match=r"FileNotFoundError: .*not on this machine") as caught:
        app.train("family")
    assert caught.value.__notes__ == ["What was trained is in family.safetensors."]
    kept = load_file(tmp_path / "family.safetensors")
    app.train("own", sites="own")
    family = Family.open(tmp_path / "own")
    stored = family.store("server").read(family.heads["model"]).weights
    assert all(torch.equal(stored[n], t) for n, t in kept.items())
    with pytest.raises(InputError, match="sites is 'mine', expected 'own', or None where the sites' rows can be opened here"):
        app.train("third", sites="mine")


AT_ITS_SITE = """

def elsewhere(site, read=partition, names=("north", "south", "east")):
    import os
    here = os.path.basename(os.path.dirname(os.environ["KEYS"]))
    name = names[site] if isinstance(site, int) else site
    if name not in ("test", here):
        raise FileNotFoundError(f"{name}: its rows are not at {here}")
    return read(name if name == "test" else names.index(name))


partition = elsewhere
"""


@pytest.mark.slow
def test_an_adopted_app_forgets_in_a_deployment(tmp_path: Path) -> None:
    """`pytest -m slow tests/simulations/test_adopt_deployed.py`: over TLS; rows are at their sites alone."""
    app, folder = tmp_path / "after", tmp_path / "parties"
    shutil.copytree(APPS / "after", app)
    family = folder / "coordinator" / "families" / "adopted"
    with (app / "quickstart" / "task.py").open("a") as task:
        task.write(AT_ITS_SITE)
    server = (app / "quickstart" / "server_app.py").read_text()
    changes = {'"family"': repr(str(family)), 'partition")': 'partition", sites="own")'}
    changes['"final_model.pt"'] = repr(str(tmp_path / "final_model.pt"))
    for old, new in changes.items():
        assert old in server
        server = server.replace(old, new)
    (app / "quickstart" / "server_app.py").write_text(server)

    def config(there: Path) -> str:
        number = (*loopback.SITES, loopback.STRANGER).index(there.name)
        return f'site="{there.name}" store="{there / "store"}" partition-id={number}'

    folder.mkdir()
    with loopback.flower(folder, config=config) as made:

        def run(words: str = "") -> str:
            more = ["-c", f"fedunlearn={words!r}".replace("'", '"')] if words else []
            return made.call("operator", ["flwr", "run", str(app), loopback.NAME, "--stream", *more])

        said = run()
        assert family.is_dir(), said[-3000:]
        before = Family.open(family).heads
        said = run("unlearn classes=0 method=steer reference=false")
        line = Family.open(family).ledger.lines[-1]
        assert line.kind == "unlearned", said[-3000:]
        (model,) = record_of(Family.open(family), line).facts["models"]
        assert model["status"] == "committed"
        assert model["forgotten_after"] <= 0.05 < 0.5 <= model["forgotten_before"]
        assert all((folder / site / "store" / MIRROR).exists() for site in loopback.SITES)
        said = run("rollback lift-exclusion=true")
        assert Family.open(family).heads == before, said[-3000:]
