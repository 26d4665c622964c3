"""The program as a process of its own."""

import subprocess
import sys
from pathlib import Path

STOPPED = """
import sys

class Stop:
    def find_spec(self, name, *_):
        if name == "fedunlearn.cli.app":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Stop())
from fedunlearn.cli import main
main()
"""


def test_an_interruption_while_libraries_load_is_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_python_runs_the_package_itself(tmp_path: Path) -> None:
    demo = [sys.executable, "-m", "fedunlearn", "demo", "--out", str(tmp_path / "demo")]
    done = subprocess.run(demo, capture_output=True, text=True, timeout=300, check=True)
    assert f"\n  python -m fedunlearn show {tmp_path / 'demo'}" in done.stdout


def test_a_command_that_is_told_to_end_says_what_holds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fedunlearn", "train", "hospitals", "--out", str(tmp_path / "family")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as other:
        assert other.stderr is not None
        first = other.stderr.readline()  # it trains
        other.terminate()
        said = " ".join((first + other.stderr.read()).split())
    assert (other.returncode, "nothing holds but what the ledger says" in said) == (143, True)
