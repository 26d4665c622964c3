"""Stopped anywhere, a family opens, its heads are whole, the ledger tells the truth, and what is done again is done."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.runtime import Family, collect, erase_sealed, fsck, settle
from tests.conftest import ROOT
from tests.store.kills import OPS, at

KILLED = -9


Told = dict[str, Any]


def stopped(work: Path, *what: str) -> Told:
    """What became of each try (see `kills`)."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.store.kills", str(work), *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    found: Told = json.loads(done.stdout)
    return found


def checked(told: Told, mode: str, name: str) -> int:
    """Check what each try left; how many were stopped."""
    ends = [Family.open(Path(told[k])) for k in ("before", "done") if told[k]]
    allowed = {(len(f.ledger.lines), tuple(sorted(f.heads.items()))) for f in ends}
    for one in told["tries"]:
        assert one["status"] in ((KILLED, 0) if mode in ("kill", "time") else (0, 1)), one
        assert one["status"] or len(Family.open(Path(one["folder"])).ledger.lines) == len(ends[-1].ledger.lines), one
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


IN_CI = {
    **{f"kill:{name}:6": 6 for name in ("train", "unlearn", "rollback", "gc", "seal", "evaluate")},
    **{f"full:{name}:2": 2 for name in ("unlearn", "gc")},
    **{f"readonly:{name}:1": 1 for name in ("train", "unlearn")},
}


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return stopped(tmp_path_factory.mktemp("tried"), *IN_CI)


@pytest.mark.parametrize("what", IN_CI)
def test_stopped_at_points_spread_over_the_whole(what: str, tried: Told) -> None:
    """36 kills, 4 full disks, 2 file systems that may only be read."""
    mode, name, _ = what.split(":")
    assert checked(tried[what], mode, name) == IN_CI[what]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "unlearn", "rollback", "gc", "seal", "settle", "evaluate"])
@pytest.mark.parametrize("mode", ["kill", "full", "time"])
def test_stopped_hundreds_of_times(mode: str, name: str, tmp_path: Path) -> None:
    """Seven operations, 60 kills each at chosen points and 60 at random times: 840 kills; and 420 full disks."""
    what = f"{mode}:{name}:60"
    count = checked(stopped(tmp_path, what)[what], mode, name)
    if (mode, name) == ("full", "evaluate"):  # places that cannot write are behind, which fails nobody's evaluation
        assert 40 < count < 60
    else:
        assert count == 60 or mode == "time"
