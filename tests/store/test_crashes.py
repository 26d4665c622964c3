"""Stopped anywhere, a family opens, its heads are whole, the ledger tells the truth, and what is done again is done."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedunlearn.runtime import Family, collect, erase_sealed, fsck, settle
from tests.conftest import ROOT
from tests.store.kills import OPS, WRONG, at

KILLED = -9


def stop(work: Path, mode: str, name: str, tries: int) -> int:
    """Stop an operation at so many points, and check what each left; how many were stopped."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.store.kills", str(work), mode, name, str(tries)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    ends = [Family.open(Path(told[k])) for k in ("before", "done") if told[k]]
    allowed = {(len(f.ledger.lines), tuple(sorted(f.heads.items()))) for f in ends}
    for one in told["tries"]:
        assert one["status"] in (KILLED, 0) if mode in ("kill", "time") else one["status"] in (0, 1), (one, done.stderr[-3000:])
        assert one["status"] != WRONG
        check(Path(one["folder"]), name, allowed, one)
    return sum(one["status"] != 0 for one in told["tries"])


def check(folder: Path, name: str, allowed: set[tuple[int, tuple[tuple[str, str], ...]]], about: object) -> None:
    do, before = OPS[name]
    if not before and not Family(folder).ledger.lines:
        do(folder)  # its training was cut off, or never began: it can be trained again
    family, backend = at(folder)
    assert not fsck(folder).damage, about
    assert (len(family.ledger.lines), tuple(sorted(family.heads.items()))) in allowed, about
    settle(family, backend)
    erase_sealed(family, backend)
    collect(family, family.places)
    left = fsck(folder)
    assert not left.damage, about
    assert not {p for p in left.orphans if p.name != "ledger.jsonl.torn"}, about
    for place in family.places:
        for version in (v for m, v in family.heads.items() if family.lineage[m].home == place):
            family.store(place).read(version)


@pytest.mark.parametrize("name", ["train", "unlearn", "rollback", "gc", "seal"])
def test_killed_at_points_spread_over_the_whole(name: str, tmp_path: Path) -> None:
    assert stop(tmp_path, "kill", name, 7) == 7


@pytest.mark.parametrize("name", ["unlearn", "gc"])
def test_a_full_disk(name: str, tmp_path: Path) -> None:
    assert stop(tmp_path, "full", name, 5) == 5


@pytest.mark.parametrize("name", ["train", "unlearn"])
def test_a_file_system_that_may_only_be_read(name: str, tmp_path: Path) -> None:
    assert stop(tmp_path, "readonly", name, 1) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "unlearn", "rollback", "gc", "seal", "settle"])
@pytest.mark.parametrize("mode", ["kill", "full", "time"])
def test_stopped_hundreds_of_times(mode: str, name: str, tmp_path: Path) -> None:
    """Six operations, 60 kills each at chosen points and 60 at random times: 720 kills; and 360 full disks."""
    stopped = stop(tmp_path, mode, name, 60)
    assert stopped == 60 or mode == "time"
