"""The same record over Ray actors, whatever happens to them. One Ray and one set of actors for all of these tests."""

import json
import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fedunlearn.errors import InputError, SiteError
from fedunlearn.methods import FIUn, Method
from fedunlearn.runtime import Family, InProcess, Worker, rollback, unlearn
from fedunlearn.runtime.ray import Ray
from fedunlearn.runtime.tasks import Fetch, Fetched
from fedunlearn.store.code import code
from tests.conftest import LEAVE, snapshot
from tests.runtime.actors import (
    DEADLINE,
    QUIETLY,
    backend as backend,
    idle,
    in_a_network_of_its_own,
    lent as lent,
    outside,
    ray_here,
    started as started,
)
from tests.runtime.unreliable import order, suffered

pytestmark = QUIETLY


def no_data() -> Worker:
    raise InputError("rows.csv: cannot be read; is the disk there?")


def held(folder: Path) -> dict[str, object]:
    """What all homes of a family hold; of a mirror, all but the hash of a ledger line, in which times and costs stand."""
    found: dict[str, object] = dict(snapshot(folder / "homes"))
    for path in [p for p in found if p.endswith("place.json")]:
        mirror = json.loads(found[path])  # type: ignore[arg-type]
        assert mirror.pop("line")
        assert mirror.pop("hash")
        found[path] = mirror
    return found


@ray_here
@pytest.mark.parametrize("method", [FIUn(layers="last"), FIUn(layers="all"), "logit_mask"], ids=["last", "all", "mask"])
def test_the_record_equals_that_of_one_process_and_so_does_a_rollback(
    backend: Ray, lent: Path, family: Family, backend_of: Callable[[Family], InProcess], method: Method | str
) -> None:
    away, words = Family.open(lent), list[str]()
    here = unlearn(family, LEAVE, method, backend_of(family))
    there = unlearn(away, LEAVE, method, backend, progress=words.append)
    assert there.facts == here.facts
    assert [m["version_after"] for m in there.facts["models"]] != [m["version_before"] for m in there.facts["models"]]
    assert held(lent) == held(family.folder)
    named = {found[1] for word in words if (found := re.fullmatch(r"\d+ of \d+ answers; (\w+) has given its \d+", word))}
    assert named == set(away.places)
    assert all(up > 0 and down > 0 for up, down in backend.traffic.values())
    assert backend.codes == dict.fromkeys(backend.traffic, code())
    rollback(family, backend_of(family), lift_exclusion=True)
    rollback(away, backend, lift_exclusion=True)
    assert away.heads == family.heads
    assert snapshot(lent / "homes").keys() == snapshot(family.folder / "homes").keys()


@ray_here
@pytest.mark.parametrize(
    ("site", "what", "kind"), [("north", "killed at work", "Measure"), ("east", "killed after it", "Apply")]
)
def test_a_site_that_is_killed_is_asked_again(
    backend: Ray, lent: Path, family: Family, backend_of: Callable[[Family], InProcess], site: str, what: str, kind: str
) -> None:
    order(lent.parent / site, what, kind)
    record = unlearn(Family.open(lent), LEAVE, "fiun", backend)
    assert suffered(lent.parent / site) == 1
    assert record.facts == unlearn(family, LEAVE, "fiun", backend_of(family)).facts


@ray_here
@pytest.mark.parametrize(
    ("site", "what", "kind", "says"),
    [
        ("south", "hangs", "Measure", r"no answer within \d+ s"),
        ("west", "killed after it", "Apply", "its process died 3 times"),
        ("east", "no answer", "Apply", ".*answer.* str"),
    ],
)
def test_a_site_that_stays_away_is_named_and_nothing_is_committed(
    backend: Ray, lent: Path, site: str, what: str, kind: str, says: str
) -> None:
    ledger, heads = (lent / "ledger.jsonl").read_bytes(), dict(Family.open(lent).heads)
    if what == "hangs":
        backend.deadline = 4 + round(20 * idle(backend))  # the others, which do not hang, are there by then
    order(lent.parent / site, what, kind, seconds=10 * DEADLINE, times=99)
    started = time.monotonic()
    late = r"(\w+, )*" if what == "hangs" else ""  # on a very busy machine others are late too, and named beside it
    there = rf"{late}{site}( \([\w, ]+\))?(, \w+)*"  # and which models, where it was to edit some
    with pytest.raises(SiteError, match=rf"nothing was changed; \d of \d places failed: {there}: {says}"):
        unlearn(Family.open(lent), LEAVE, "fiun", backend)
    assert time.monotonic() - started < DEADLINE
    assert (lent / "ledger.jsonl").read_bytes() == ledger
    order(lent.parent / site, "nothing", "none", times=0)
    backend.deadline = DEADLINE
    assert Family.open(lent).heads == heads
    unlearn(Family.open(lent), LEAVE, "logit_mask", backend)  # the site is back
    assert Family.open(lent).heads != heads


@ray_here
def test_what_a_place_sends_is_one_s_own_to_change(backend: Ray, lent: Path) -> None:
    version = Family.open(lent).heads["shared"]
    (answer,) = backend.carry([Fetch("server", version)])
    assert isinstance(answer, Fetched)
    for tensor in answer.weights.values():
        tensor += 1  # what comes out of the object store is read-only


@ray_here
def test_places_that_cannot_be_asked_say_why(started: Ray) -> None:
    with Ray({"north": no_data}) as backend:
        texts = [str(getattr(a, "text", a)) for a in backend.carry([Fetch("nroth", "v"), Fetch("north", "v")])]
    assert texts[0].startswith("unknown place 'nroth'; did you mean 'north'?")
    assert texts[1] == "cannot open: rows.csv: cannot be read; is the disk there?"


@ray_here
@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs here")
def test_gpus_that_are_not_there_are_refused_at_once(started: Ray) -> None:
    with pytest.raises(InputError, match=r"num_gpus: 0.5 for each of 1 places, but the cluster has 0 GPUs; give less"):
        Ray({"north": no_data}, num_gpus=0.5).__enter__()


def test_a_missing_ray_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'Ray is not installed; run: pip install "fedunlearn\[ray\]"'):
        Ray({}).__enter__()


def test_an_address_where_nobody_listens_is_refused_at_once() -> None:
    pytest.importorskip("ray", reason='Ray is not installed: pip install "fedunlearn[ray]"')
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match=rf"Ray at {address}: nobody listens there"):
            Ray({}, address=address).__enter__()


def test_it_is_used_in_a_with_block() -> None:
    with pytest.raises(InputError, match="Ray: not started; use it as `with Ray"):
        Ray({}).carry([])


@outside
def test_in_a_network_of_its_own() -> None:
    in_a_network_of_its_own(__file__)
