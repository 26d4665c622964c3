"""For tests that start Ray. It listens on every interface, which nobody can change: they run where there is only loopback."""

import socket
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec

import pytest

from tests.conftest import ROOT

ALONE = [name for _, name in socket.if_nameindex()] == ["lo"]
ray_here = pytest.mark.skipif(
    not (ALONE and find_spec("ray")),
    reason="needs Ray, and no network but loopback; test_in_a_network_of_its_own runs it there",
)
outside = pytest.mark.skipif(
    ALONE or not find_spec("ray"), reason="needs Ray; not needed where there is no network but loopback"
)
INSIDE = ["unshare", "--map-root-user", "--net", "sh", "-c"]


def in_a_network_of_its_own(file: str) -> None:
    """Run a test file where there is only loopback (`unshare -n`); skip where this machine does not let us."""
    with suppress(OSError):
        if subprocess.run([*INSIDE, "ip link set lo up"], capture_output=True, check=False).returncode == 0:
            tests = f"ip link set lo up && exec {sys.executable} -m pytest --durations=0 -p no:cacheprovider -p no:xdist {file}"
            done = subprocess.run([*INSIDE, tests], cwd=ROOT, capture_output=True, text=True, check=False)
            print(done.stdout)
            assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
            assert " passed" in done.stdout
            return
    pytest.skip("this machine does not let us make a network namespace (unshare -n)")
