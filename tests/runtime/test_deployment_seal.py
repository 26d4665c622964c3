"""After `seal`, no file of a deployment on loopback holds what was given up: `pytest -m slow`; minutes each.

Neither of the family, nor of any site's store, nor of what Flower and Ray keep for themselves: FLWR_HOME of every party, the
SuperLink's database, Ray's session folder.
"""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("openssl") and shutil.which("ssh-keygen")), reason="needs openssl and ssh-keygen"),
]
ALONE = ("unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")


def sealed(*words: str) -> dict[str, Any]:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=1800, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    told: dict[str, Any] = json.loads(done.stdout)
    assert sum(name.startswith(("sum", "mean")) for name in told["gone"]) > 10
    assert sum(not name.startswith(("sum", "mean")) for name in told["gone"]) > 2
    return told


def test_of_what_is_sealed_nothing_remains_in_a_flower_deployment(tmp_path: Path) -> None:
    told = sealed(sys.executable, "-m", "tests.runtime.remains", "flower", str(tmp_path))
    assert told["held"] == told["held_when_ended"] == {}


@pytest.mark.skipif(not find_spec("ray"), reason="needs Ray")
def test_of_what_is_sealed_nothing_remains_in_a_ray_cluster(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--map-root-user", "--net", "true"], check=False).returncode:
        pytest.skip("this machine does not let us make a network namespace (unshare -n)")
    told = sealed(*ALONE, sys.executable, "-m", "tests.runtime.remains", "ray", str(tmp_path))
    assert told["held"] == told["held_when_ended"] == {}
