"""What a real deployment survives: `pytest -m slow tests/runtime/test_deployment_faults.py`; about half an hour.

A SuperLink with TLS and authenticated SuperNodes, three sites, each of whose owners has code that fails when it is told to. One
family is trained and put back before every draw; a draw is one run, disturbed once.
"""

import json
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedunlearn.deployed import Deployment, Order, submit
from fedunlearn.errors import FedUnlearnError
from fedunlearn.runtime import Family, behind
from fedunlearn.scenario import load
from tests.conftest import ROOT
from tests.runtime.unreliable import law, order, plain, suffered

sys.path.insert(0, str(ROOT / "docker"))

import loopback

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("openssl") and shutil.which("ssh-keygen")), reason="needs openssl and ssh-keygen"),
]
OWNER = f"""
import sys
from pathlib import Path

sys.path.insert(0, {str(ROOT)!r})
from fedunlearn.nets.small import mlp
from tests.runtime.unreliable import suffer

suffer(Path(__file__).parent)


def make_net(shape, outputs):
    return mlp(shape, outputs, hidden=32)
"""
TWICE = f"""#!{sys.executable}
from flwr.supernode.cli import flower_supernode
from flwr.supernode.fleet_http_client import FleetHttpClient

push = FleetHttpClient.PushMessages


def twice(self, request):
    push(self, request)
    return push(self, request)  # its session is the one that tensors go into


FleetHttpClient.PushMessages = twice
flower_supernode()
"""
LEASE = 240.0  # seconds after which a SuperLink has surely noticed that a node is gone, and a machine is back


class Deployed:
    """A deployment whose family is put back, and whose sites are told what to suffer."""

    def __init__(self, made: loopback.Parties) -> None:
        self.made, self.there = made, Deployment(loopback.NAME)
        self.family = made.of("coordinator") / "families" / "digits"
        self.kept = made.folder / "kept"
        for site in loopback.SITES:
            (made.of(site) / "owner.py").write_text(OWNER)
            path = made.of(site) / "site.yaml"
            path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "net": {"factory": "owner:make_net"}}))
        scenario = load(ROOT / "docker" / "digits.yaml")
        topology = scenario.model_dump(by_alias=True, mode="json", exclude_unset=True, exclude={"folder"})
        self.done(action="train", topology=json.dumps(topology))
        for name, folder in self.folders.items():
            shutil.copytree(folder, self.kept / name)
        begun = time.monotonic()
        self.facts = self.forget()
        self.took = 20 + time.monotonic() - begun  # seconds that are enough for any of its rounds, however busy the machine is
        self.heads = dict(Family.open(self.family).heads)

    @property
    def folders(self) -> dict[str, Path]:
        stores = {site: self.made.of(site) / "store" for site in loopback.SITES}
        return {"family": self.family, **{site: store for site, store in stores.items() if store.exists()}}

    def done(self, **words: Any) -> dict[str, Any]:
        return self.there.carry_out(Order(**{"family": "digits", "deadline": LEASE, "join": LEASE, **words}), print)

    def forget(self, **words: Any) -> Any:
        return plain(self.done(action="unlearn", classes="0", **words)["record"]["facts"])

    def put_back(self) -> None:
        for name, folder in self.folders.items():
            shutil.rmtree(folder)
            if (self.kept / name).exists():
                shutil.copytree(self.kept / name, folder)
        for site in loopback.SITES:
            order(self.made.of(site), "nothing", "none", times=0)

    def cut(self, site: str) -> None:
        """A site's machine loses its power."""
        for name in (f"supernode-{site}", f"clientapp-{site}"):
            self.made.kill(name)

    def power(self, site: str) -> None:
        """And comes back: its SuperNode is refused until the SuperLink has noticed that the one before is gone."""
        said, ends = self.made.log(site, f"supernode-{site}").count("SuperNode ID"), time.monotonic() + LEASE
        self.made.again(f"clientapp-{site}")
        while self.made.log(site, f"supernode-{site}").count("SuperNode ID") == said:
            assert time.monotonic() < ends, f"{site} did not come back"
            node = self.made.again(f"supernode-{site}")
            while node.poll() is None and self.made.log(site, f"supernode-{site}").count("SuperNode ID") == said:
                time.sleep(0.5)
            time.sleep(2)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with pytest.MonkeyPatch.context() as patch, loopback.flower(tmp_path_factory.mktemp("parties")) as made:
        patch.setenv("FLWR_HOME", str(made.of("operator") / "flwr"))
        patch.setattr(submit, "POLL", 10.0)  # each look starts a program
        yield Deployed(made)


@pytest.fixture
def again(deployed: Deployed) -> Deployed:
    deployed.put_back()
    return deployed


def outcome(of: Deployed, site: str, **words: Any) -> str:
    started = time.monotonic()
    settled = partial(of.done, action="settle")
    became = law(of.family, lambda: of.forget(**words), of.facts, of.heads, site, settled)
    print(f"{site}: {became} after {time.monotonic() - started:.0f} s")
    assert suffered(of.made.of(site))
    return became


KILLED = {"measuring": ("Measure", "hangs"), "applying": ("Apply", "hangs"), "answering": ("Apply", "hangs after it")}
SITES_OF = {"Measure": ["north", "south"], "Apply": ["north"]}


@pytest.mark.parametrize("what", KILLED)
@pytest.mark.parametrize("draw", range(3))
def test_a_site_that_is_killed(what: str, draw: int, again: Deployed) -> None:
    """Its app's process; its whole machine, which comes back; and a machine that stays away."""
    rng, (kind, how) = random.Random(f"{what} {draw}"), KILLED[what]
    site, late = rng.choice(SITES_OF[kind]), rng.uniform(0, 3)
    folder = again.made.of(site)
    if draw == 0:
        order(folder, "killed after it" if what == "answering" else "killed at work", kind, rng.uniform(0, 0.05))
        assert outcome(again, site) == "same"
        return
    order(folder, how, kind, seconds=LEASE)

    def befalls() -> None:
        while not suffered(folder):
            time.sleep(0.2)
        time.sleep(late)
        again.cut(site)
        if draw == 1:
            again.power(site)

    with ThreadPoolExecutor(1) as pool:
        fate = pool.submit(befalls)
        became = outcome(again, site, **({} if draw == 1 else {"deadline": again.took, "join": 5.0}))
        fate.result()
    if draw == 2:
        again.power(site)
    assert became == ("same" if draw == 1 else "nothing")


@pytest.mark.parametrize("draw", range(3))
def test_a_site_that_hangs(draw: int, again: Deployed) -> None:
    rng = random.Random(f"hangs {draw}")
    kind = rng.choice(list(SITES_OF))
    site = rng.choice(SITES_OF[kind])
    order(again.made.of(site), "hangs", kind, seconds=2 * again.took)
    started = time.monotonic()
    assert outcome(again, site, deadline=again.took) == "nothing"
    assert time.monotonic() - started < 3 * again.took  # rounds before it, the one that it misses, and following the run
    time.sleep(max(0.0, 3 * again.took - (time.monotonic() - started)))  # until it is over, and late for anybody


@pytest.mark.parametrize("what", ["another", "garbage", "replayed"])
@pytest.mark.parametrize("draw", range(3))
def test_a_site_that_answers_something_else(what: str, draw: int, again: Deployed) -> None:
    """For another task, what is no answer, or what it has answered before."""
    rng = random.Random(f"{what} {draw}")
    kind = rng.choice(list(SITES_OF))
    site = rng.choice(SITES_OF[kind])
    order(again.made.of(site), what, kind)
    assert outcome(again, site) == "nothing"


@pytest.mark.parametrize("draw", range(3))
def test_a_site_that_does_and_answers_everything_twice(draw: int, again: Deployed) -> None:
    kind = random.Random(f"twice {draw}").choice(list(SITES_OF))
    site = SITES_OF[kind][0]
    programs = again.made.of(site) / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "flower-supernode").write_text(TWICE)
    (programs / "flower-supernode").chmod(0o755)
    again.made.end(f"supernode-{site}")
    again.made.again(f"supernode-{site}", PATH=f"{programs}{os.pathsep}{again.made.environ(site)['PATH']}")
    order(again.made.of(site), "twice", kind)
    try:
        assert outcome(again, site) == "same"
    finally:
        again.made.end(f"supernode-{site}")
        again.made.again(f"supernode-{site}", PATH=again.made.environ(site)["PATH"])
        again.made.until(site, lambda: loopback.online(again.made) == len(loopback.SITES))


@pytest.mark.parametrize("draw", range(3))
def test_a_coordinator_that_is_killed(draw: int, again: Deployed) -> None:
    rng, before, said = random.Random(f"coordinator {draw}"), dict(Family.open(again.family).heads), list[str]()
    deployment, words = again.there, Order("unlearn", "digits", classes="0", deadline=LEASE, join=LEASE)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(deployment.carry_out, words, said.append)
        again.made.until("measuring", lambda: any("measuring" in line for line in said))
        time.sleep(rng.uniform(0, 20))
        again.made.kill("serverapp")
        again.made.again("serverapp")
        try:
            run.result(timeout=2 * LEASE)
        except FedUnlearnError as error:
            print(f"{error}; heads are {'as before' if Family.open(again.family).heads == before else 'new'}")
    if Family.open(again.family).heads == before:
        assert again.forget() == again.facts
    else:
        again.done(action="settle")
    assert Family.open(again.family).heads == again.heads
    assert not behind(Family.open(again.family))
