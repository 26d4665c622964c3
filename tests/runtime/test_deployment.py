"""The deployments of docker/, for real on loopback: `pytest -m slow tests/runtime/test_deployment.py`; about ten minutes.

A SuperLink with TLS and SuperNode authentication, three sites and one stranger; and a Ray cluster of four nodes. Each gives the
facts that one process gives from the same files.
"""

import json
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import PullMessagesRequest, RegisterNodeFleetRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supernode.fleet_http_client import FleetHttpClient
from httpx import HTTPStatusError, TransportError

from fedunlearn.deployed import Deployment, Order
from fedunlearn.errors import FedUnlearnError
from fedunlearn.runtime import Family, InProcess, Split, rollback, unlearn
from fedunlearn.runtime.books.records import record_of
from fedunlearn.scenario import load, open_site, request_of, train_afar, workers_here
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "docker"))

import loopback
from deal import deal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("openssl") and shutil.which("ssh-keygen")), reason="needs openssl and ssh-keygen"),
]
TOPOLOGY = ROOT / "docker" / "digits.yaml"


class Alone:
    """The same family from the same files, all in this process."""

    def __init__(self, folder: Path) -> None:
        deal(folder, list(loopback.SITES))
        self.scenario = load(TOPOLOGY)
        away = InProcess({s: open_site(folder / s / "site.yaml") for s in self.scenario.sites})
        self.family = train_afar(self.scenario, folder / "family", away, workers_here(self.scenario, Family(folder / "family")))
        self.both = Split(workers_here(self.scenario, self.family), away, self.family.id)
        self.trained = dict(self.family.heads)
        self.facts = json.loads(json.dumps(unlearn(self.family, request_of(self.scenario, "0"), "fiun", self.both).facts))
        self.after = dict(self.family.heads)
        rollback(self.family, self.both, lift_exclusion=True)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDUNLEARN_DATA", str(folder))
        return Alone(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[loopback.Parties]:
    with loopback.flower(tmp_path_factory.mktemp("parties")) as parties:
        yield parties


def typed(made: loopback.Parties, *words: object, status: int = 0) -> Any:
    """What a command prints as JSON; or what it says when it fails."""
    done = loopback.fedunlearn(made, *words, "--json", check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout) if status == 0 else " ".join(done.stderr.split())


def heads(shown: dict[str, Any]) -> dict[str, str]:
    return {m["name"]: m["version"] for m in shown["models"] if m["version"]}


def policy(made: loopback.Parties, site: str, value: str) -> None:
    path = made.of(site) / "site.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "policy": value}))


def only_where_they_belong(held: dict[str, list[str]], coordinator: str) -> None:
    assert {party for party, files in held.items() if files} == {"coordinator", "north"}
    assert all(f.startswith(coordinator) for f in held["coordinator"])
    assert all(f.startswith("store/") for f in held["north"])


def test_a_flower_deployment_from_its_first_key_to_its_rollback(
    made: loopback.Parties, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Failed to activate SuperNode" in made.log(loopback.STRANGER, f"supernode-{loopback.STRANGER}")

    how = ("--backend", "flower")
    shown = typed(made, "train", TOPOLOGY, "--out", "runs/digits", *how, "--federation", loopback.NAME)
    assert heads(shown) == alone.trained

    ask = ("unlearn", "runs/digits", "--classes", "0", "--no-reference", *how)
    policy(made, "east", "ask")
    before = (made.of("coordinator") / "families" / "digits" / "ledger.jsonl").read_bytes()
    said = typed(made, *ask, status=1)
    assert "nothing was changed; 1 of 3 places failed: east: this site's owner is asked first" in said
    assert (made.of("coordinator") / "families" / "digits" / "ledger.jsonl").read_bytes() == before
    site = str(made.of("east") / "site.yaml")
    waits = json.loads(made.call("east", ["fedunlearn", "site", "show", site, "--json"]))["tasks"]
    assert waits
    assert all(": measure 'squares' of version" in w["what"] for w in waits)
    made.call("east", ["fedunlearn", "site", "approve", site, *(w["id"] for w in waits)])

    record = typed(made, *ask)
    assert record["models"] == [{k: v for k, v in m.items() if k != "curve"} for m in alone.facts["models"]]
    family = Family.open(made.of("operator") / "runs" / "digits")
    assert record_of(family, family.ledger.lines[-1]).facts == alone.facts
    assert set(record["cost"]["traffic"]) == set(loopback.SITES)
    assert heads(typed(made, "show", "runs/digits")) == alone.after
    owned = str(made.of("north") / "site.yaml")
    served = json.loads(
        made.call("north", ["fedunlearn", "site", "export", owned, "northern", str(made.of("north") / "served"), "--json"])
    )
    assert served["version"] == alone.after["northern"]

    policy(made, "east", "auto")  # to train on them again is asked of its owner, too
    typed(made, "rollback", "runs/digits", "--lift-exclusion", *how)
    assert heads(typed(made, "show", "runs/digits", *how)) == alone.trained
    only_where_they_belong(made.weights(), "families/digits/homes/server/")
    assert {p: len(f) for p, f in made.rows().items() if f} == {"coordinator": 1, "north": 1, "south": 1, "east": 1}

    made.end("supernode-south")
    monkeypatch.setenv("FLWR_HOME", str(made.of("operator") / "flwr"))
    with pytest.raises(
        FedUnlearnError, match="1 of 3 places are missing after 5 s: south: no node is this site; there are east"
    ):
        Deployment(loopback.NAME).carry_out(Order(action="rollback", family="digits", lift_exclusion=True, join=5.0))


def public_bytes(path: Path) -> bytes:
    key = load_ssh_public_key(path.read_bytes())
    assert isinstance(key, EllipticCurvePublicKey)
    return public_key_to_bytes(key)


class Signing:
    """Signs a request as a SuperNode does: with some key, as whoever, so many seconds from now."""

    def __init__(self, key: Path, as_: Path, at: float = 0.0) -> None:
        private = load_ssh_private_key(key.read_bytes(), None)
        assert isinstance(private, EllipticCurvePrivateKey)
        time = (now() + timedelta(seconds=at)).isoformat()
        self.headers = {
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_bytes(as_)).decode(),
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(private, time.encode())).decode(),
            TIMESTAMP_HEADER: time,
        }

    def intercept(self, context: Any, call_next: Any) -> Any:
        add_headers(context.request, self.headers)
        return call_next(context)


def client(made: loopback.Parties, *signing: Signing, insecure: bool = False) -> FleetHttpClient:
    """What a SuperNode talks to the SuperLink with."""
    keys = None if insecure else str(made.of("operator") / "keys" / "ca.crt")
    inside = [RuntimeVersionHttpInterceptor(component_name="SuperNode"), *signing]
    return FleetHttpClient.from_server_address(made.address, insecure, keys, interceptors=inside)


def heard(made: loopback.Parties, site: str, *signing: Signing) -> bool:
    """Whether the SuperLink takes a sign of life for a site's."""
    node = int(re.findall(r"SuperNode ID: (\d+)", made.log(site, f"supernode-{site}"))[-1])
    with client(made, *signing) as there:
        life = SendNodeHeartbeatRequest(node=Node(node_id=node), heartbeat_interval=30)
        return bool(there.SendNodeHeartbeat(life).success)


@pytest.mark.filterwarnings("ignore:`verify=<str>` is deprecated:DeprecationWarning")  # Flower's client gives httpx a path
def test_who_is_no_registered_node_is_refused(made: loopback.Parties) -> None:
    """Unsigned, with a key of its own, with a forged or an old signature, and without TLS; nor can a key register itself."""
    north, south, stranger = (made.of(p) / "keys" / "site" for p in ("north", "south", loopback.STRANGER))
    public, known = north.with_suffix(".pub"), loopback.online(made)  # a test before may have ended one
    assert heard(made, "north", Signing(north, public))
    refused = {
        "unsigned": [],
        "a stranger's key": [Signing(stranger, stranger.with_suffix(".pub"))],
        "another site's key": [Signing(south, south.with_suffix(".pub"))],
        "signed with another key": [Signing(stranger, public)],
        "signed ten minutes ago": [Signing(north, public, at=-600)],
    }
    for signing in refused.values():
        with pytest.raises(HTTPStatusError, match="401"):
            heard(made, "north", *signing)
    with (
        pytest.raises(HTTPStatusError, match="Client error"),
        client(made, Signing(stranger, stranger.with_suffix(".pub"))) as there,
    ):
        there.RegisterNode(RegisterNodeFleetRequest(public_key=public_bytes(stranger.with_suffix(".pub"))))
    with pytest.raises(TransportError), client(made, Signing(north, public), insecure=True) as there:
        there.PullMessages(PullMessagesRequest())
    made.until("sites", lambda: loopback.online(made) >= known)  # on a busy machine one may be late with its sign of life
    assert loopback.online(made) == known


@pytest.mark.skipif(not find_spec("ray"), reason="needs Ray")
def test_a_ray_cluster_of_several_nodes(alone: Alone, tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--map-root-user", "--net", "true"], check=False).returncode:
        pytest.skip("this machine does not let us make a network namespace (unshare -n)")
    words = [sys.executable, str(ROOT / "docker" / "loopback.py"), "ray", "--folder", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    family, made = Family.open(tmp_path / "coordinator" / "runs" / "digits"), loopback.Parties(tmp_path)
    assert family.ledger.heads(1) == alone.trained
    assert record_of(family, family.ledger.lines[1]).facts == alone.facts
    assert family.heads == alone.trained
    only_where_they_belong(made.weights(), "runs/digits/homes/server/")
