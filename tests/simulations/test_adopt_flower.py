"""An app written for Flower becomes a family by ten changed lines, and what it was trained on can be forgotten."""

import difflib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from fedunlearn.data import MIRROR, Exclusions
from fedunlearn.deployed.server import Refused
from fedunlearn.errors import InputError, ShapeError, TrainingError
from fedunlearn.evaluation import Gate
from fedunlearn.flower import Recorded, tell
from fedunlearn.lineage import Request, discover
from fedunlearn.runtime import Family, InProcess, rollback, unlearn
from fedunlearn.runtime.books.records import record_of
from fedunlearn.runtime.flower import Flower
from fedunlearn.runtime.tasks import Commit, Committed
from fedunlearn.scenario import of_family, request_of, workers
from fedunlearn.training.flower.grid import at_server
from tests.conftest import ROOT
from tests.simulations.conftest import APPS, LOADER, NET, grid_of


def run(words: str = "") -> None:
    torch.manual_seed(0)
    random.seed(0)  # Flower's strategy draws its clients by it
    grid = grid_of()
    context = Context(1, 1, {}, RecordDict(), {**grid.contexts[10].run_config, "fedunlearn": words})
    with at_server():
        importlib.import_module("quickstart.server_app").app(grid, context)


def changed(before: Path, after: Path) -> int:
    """Lines that were changed, added or removed, blank ones too; a changed line counts once."""
    a, b = before.read_text().splitlines(), after.read_text().splitlines()
    steps = difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    return sum(max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in steps if tag != "equal")


def test_adopting_takes_ten_lines() -> None:
    files = {p.relative_to(APPS / "before") for p in (APPS / "before").rglob("*") if p.suffix in (".py", ".toml")}
    assert files == {p.relative_to(APPS / "after") for p in (APPS / "after").rglob("*") if p.suffix in (".py", ".toml")}
    counts = {str(f): changed(APPS / "before" / f, APPS / "after" / f) for f in sorted(files)}
    assert sum(counts.values()) == 10
    readme = (APPS / "README.md").read_text()
    for file, count in counts.items():
        if count:
            assert f"| `{file}` | {count} |" in readme


@pytest.mark.usefixtures("after")
def test_a_flower_app_becomes_a_family_that_can_forget(tmp_path: Path) -> None:
    run()
    family = Family.open(tmp_path / "family")
    nodes = family.lineage.models
    assert [m.name for m in nodes if m.name.startswith("model/r2")] == [*(f"model/r2/site-{i}" for i in range(3)), "model/r2"]
    assert len(nodes) == 12
    assert [m.name for m in nodes if m.kept] == ["model"]
    assert family.lineage["model"].parents == tuple(f"model/r3/site-{i}" for i in range(3))
    assert family.lineage["model/r2/site-1"].parents == ("model/r1",)
    assert [s.key for s in family.lineage["model/r1/site-2"].data] == ["site-2/main"]
    assert sum(sum(s.rows.values()) for m in nodes[:3] for s in m.data) == 1257
    saved = torch.load(tmp_path / "final_model.pt", weights_only=True)
    stored = family.store("server").read(family.heads["model"])
    assert all(torch.equal(stored.weights[n], t) for n, t in saved.items())

    scenario = of_family(family)
    found = discover(family.lineage, Request(classes=("0",)))
    assert [heir.name for heir in found.heirs] == ["model"]
    backend = InProcess(workers(scenario, family))
    before = dict(family.heads)
    record = unlearn(family, Request(classes=("0",)), "fiun", backend, Gate(forgotten_at_most=0.2, retained_drop_at_most=0.3))
    assert record.accepted
    forgotten = Family.open(tmp_path / "family")
    assert forgotten.heads["model"] != before["model"]
    rollback(forgotten, InProcess(workers(scenario, forgotten)), lift_exclusion=True)
    assert Family.open(tmp_path / "family").heads == before


@pytest.mark.usefixtures("after")
def test_the_app_forgets_over_its_own_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    alone = Family.open(Path(shutil.copytree(tmp_path / "family", tmp_path / "alone")))
    before = alone.heads
    capsys.readouterr()

    run("unlearn classes=0 reason='a test'")
    family = Family.open(tmp_path / "family")
    record = unlearn(alone, request_of(of_family(alone), "0"), "fiun", InProcess(workers(of_family(alone), alone)))
    assert record_of(family, family.ledger.lines[-1]).facts == json.loads(json.dumps(record.facts))
    assert family.ledger.lines[-1].body["reason"] == "a test"
    (model,) = record.facts["models"]
    assert f"model: {model['status']}; forgotten, rest: ({model['forgotten_before']}" in capsys.readouterr().out

    run("unlearn classes=1 method=logit_mask")
    assert Family.open(tmp_path / "family").heads not in (before, family.heads)
    assert "1" in str(Exclusions.read(tmp_path / "family" / "homes" / "site-1" / MIRROR).by_request)
    run("rollback lift-exclusion=true")
    assert Family.open(tmp_path / "family").heads == family.heads
    assert len(Family.open(tmp_path / "family").ledger.lines) == 4


@pytest.mark.usefixtures("after")
def test_the_clients_app_can_be_pickled_as_a_simulation_does() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    app = importlib.import_module("quickstart.client_app").app
    grid = grid_of(cloudpickle.loads(cloudpickle.dumps(app)))
    assert Flower(grid, join=0).carry([Commit("site-1", {}, {}, ("line",))]) == [Committed("line")]


IN_SIMULATION = """
set -eu
ip link set lo up
flwr run . --stream --federation-config "$NODES"
cp -r family alone
flwr run . --stream --federation-config "$NODES" -c 'fedunlearn="unlearn classes=0"'
flwr run . --stream --federation-config "$NODES" -c 'fedunlearn="unlearn classes=1 method=logit_mask"'
flwr run . --stream --federation-config "$NODES" -c 'fedunlearn="rollback lift-exclusion=true"'
"""


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("ray"), reason="Flower simulates with Ray")
def test_flwr_run_does_it_in_flowers_simulation(tmp_path: Path) -> None:
    """`pytest -m slow tests/simulations/test_adopt_flower.py`: four runs, about three minutes, where there is only loopback."""
    if subprocess.run(["unshare", "--map-root-user", "--net", "true"], check=False).returncode:
        pytest.skip("this machine does not let us make a network namespace (unshare -n), and Ray listens on every interface")
    there, home = tmp_path / "after", tmp_path / "flwr"
    shutil.copytree(APPS / "after", there)
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    own = {"FLWR_HOME": str(home), "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": "39377", "PYTHONPATH": str(ROOT), **quiet}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    more = {"PATH": path, "NODES": "num-supernodes=3 client-resources-num-cpus=1"}
    env = {**os.environ, **own, **more, "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1"}
    words = ["unshare", "--map-root-user", "--net", "sh", "-c", IN_SIMULATION]
    try:
        done = subprocess.run(words, cwd=there, env=env, capture_output=True, text=True, check=False, timeout=600)
    finally:
        for one in Path("/proc").glob("[0-9]*"):  # the daemon that `flwr run` has left behind, known by its home
            with suppress(OSError):
                if str(home).encode() in (one / "cmdline").read_bytes():
                    os.kill(int(one.name), signal.SIGTERM)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    family, alone = Family.open(there / "family"), Family.open(there / "alone")
    assert [x.kind for x in family.ledger.lines] == ["trained", "unlearned", "unlearned", "rolled back"], done.stdout[-5000:]
    backend = InProcess(workers(of_family(alone), alone))
    record = unlearn(alone, request_of(of_family(alone), "0"), "fiun", backend)
    assert record_of(family, family.ledger.lines[1]).facts == json.loads(json.dumps(record.facts))
    assert family.heads == alone.heads


@pytest.mark.usefixtures("after")
def test_words_that_are_no_order_are_refused() -> None:
    with pytest.raises(Refused, match=r"fedunlearn = 'unlearn class=0': unknown key 'class'; did you mean 'classes'\?"):
        run("unlearn class=0")
    with pytest.raises(Refused, match="unknown action 'forget'"):
        run("forget classes=0")
    with pytest.raises(Refused, match="no family here"):
        run("unlearn classes=0")


@pytest.mark.usefixtures("after")
def test_a_family_is_never_written_over() -> None:
    Path("family").mkdir()
    (Path("family") / "mine.txt").write_text("here")
    with pytest.raises(InputError, match="family: is not empty; choose another folder for the family"):
        run()
    assert [p.name for p in Path("family").iterdir()] == ["mine.txt"]


@pytest.mark.usefixtures("after")
def test_a_net_that_is_not_the_apps_is_refused_before_the_first_round() -> None:
    strategy = Recorded(FedAvg(), "family", net=NET, data=LOADER)
    with at_server(), pytest.raises(ShapeError, match=r"net 'quickstart.task:Net' is not what the app trains: .*names differ"):
        strategy.start(grid_of(), ArrayRecord({"w": torch.zeros(1)}), num_rounds=1)
    assert not Path("family").exists()


def client_app(*mods: Any, extra: int = 0) -> ClientApp:
    """Sends back what came."""
    app = ClientApp(mods=list(mods))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if context.node_id < 10 + extra:
            raise OSError("no power")
        content = {"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})}
        return Message(RecordDict(content), reply_to=message)  # type: ignore[arg-type]

    return app


def start(app: ClientApp, rounds: int = 2) -> None:
    task = importlib.import_module("quickstart.task")
    strategy = Recorded(FedAvg(fraction_evaluate=0.0), "family", net=NET, data=LOADER, name="mine", recipe={"epochs": 4})
    with at_server():
        strategy.start(grid_of(app), ArrayRecord(task.Net().state_dict()), num_rounds=rounds)


@pytest.mark.usefixtures("after")
def test_only_who_took_part_is_in_the_lineage() -> None:
    """Flower goes on without a client that died; so does the record, which must not name it."""
    start(client_app(tell(LOADER), extra=1))
    family = Family.open(Path("family"))
    assert family.lineage["mine"].parents == ("mine/r2/site-1", "mine/r2/site-2")
    assert of_family(family).models["mine"].settings[0] == 4
    assert of_family(family).models["mine"].sites == ("site-1", "site-2")


@pytest.mark.usefixtures("after")
def test_what_cannot_be_recorded_is_said() -> None:
    with pytest.raises(InputError, match=r"reply of node 1\d does not say what it was trained on; .*mods=\[tell\("):
        start(client_app())
    with pytest.raises(TrainingError, match=r"no round gave a model, so that there is nothing to record; .*OSError: no power"):
        start(client_app(tell(LOADER), extra=3))

    class Own(FedAvg):
        def start(self, *args: Any, **kwargs: Any) -> Any:
            return None

    with pytest.raises(InputError, match="strategy Own: has a `start` of its own"):
        Recorded(Own(), "family", net=NET, data=LOADER)
    with pytest.raises(InputError, match=r"strategy 3: is a int, expected a strategy of flwr\.serverapp\.strategy"):
        Recorded(3, "family", net=NET, data=LOADER)
    assert not Path("family").exists()
