"""An order from outside the ServerApp: submit the run, follow it, and bring its answer home."""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedunlearn.deployed.order import Order
from fedunlearn.deployed.wire import SAYS, Reader
from fedunlearn.errors import FedUnlearnError, InputError, SiteError
from fedunlearn.runtime.backend import Progress

APP = Path(__file__).parent / "app"
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
POLL = 3.0  # seconds between two looks at a run
LOOKS = 5  # failed looks at a run, one after another, until it is given up: it may be the network
LATE = 20.0  # seconds that a finished run's log may lag behind; then it is asked for anew, once

Keep = Callable[[Mapping[str, Any]], object]


@dataclass(frozen=True)
class Deployment:
    """A SuperLink that runs are submitted to.

    Args:
        federation: name of the connection in Flower's config.toml (`flwr config list`).
        start: seconds that a run may wait for a ServerApp process before it is stopped.
    """

    federation: str
    start: float = 120.0

    def carry_out(self, order: Order, say: Progress = lambda _: None, keep: Keep = lambda _: None) -> dict[str, Any]:
        """Have one order carried out.

        Args:
            order: the order; its token is made here.
            say: told, in words, how far it is.
            keep: called with the family's files as they are now where an order failed that may have committed something.

        Returns:
            The coordinator's answer.

        Raises:
            InputError: Flower is not installed or does not know the connection, or the order is wrong.
            SiteError: the run failed or was refused, or its answer did not come home whole.
        """
        if find_spec("flwr") is None:
            raise InputError('Flower is not installed; run: pip install "fedunlearn[flower]"')
        order = replace(order, token=secrets.token_hex(8))
        run = self._submit(order)
        say(f"run {run} is submitted to {self.federation}")
        try:
            found = self._follow(run, Reader(order.token), say)
        except KeyboardInterrupt:
            self._flwr("stop", str(run), self.federation)
            raise
        return outcome(found, self.federation, keep)

    def _submit(self, order: Order) -> int:
        with TemporaryDirectory() as folder:
            config = Path(folder) / "order.toml"
            config.write_text(order.toml)
            told = self._flwr("run", str(APP), self.federation, "--run-config", str(config), "--format", "json")
        if not isinstance(told.get("run-id"), int | str):
            raise SiteError(f"{self.federation}: did not take the run: {_short(told)}")
        return int(told["run-id"])

    def _follow(self, run: int, reader: Reader, say: Progress) -> dict[str, Any]:
        """Read the log as it grows, until the run has ended and its answer is whole."""
        since, status, told = time.monotonic(), "", {}
        with self._log(run) as log:
            while True:
                for line in log():
                    if not reader.take(line) and line.startswith(SAYS):
                        say(line.removeprefix(SAYS))
                told = self._status(run)
                if told["status"] != status:
                    status, since = told["status"], time.monotonic()
                    say(f"run {run}: {status}")
                waited = time.monotonic() - since
                if status.startswith("finished") and (reader.whole or waited > LATE):
                    break
                if status in ("pending", "starting") and waited > self.start:
                    self._flwr("stop", str(run), self.federation)
                    raise SiteError(
                        f"{self.federation}: run {run} was still {status} after {self.start:g} s and was stopped; does a "
                        f"ServerApp process (flower-superexec) run beside the SuperLink?"
                    )
                time.sleep(POLL)
        if not reader.whole:
            for line in self._output("log", str(run), self.federation, "--show").stdout.splitlines():
                reader.take(line)
        return _answer(run, self.federation, status, told, reader)

    def _status(self, run: int) -> dict[str, Any]:
        for look in range(1, LOOKS + 1):
            try:
                told = self._flwr("list", self.federation, "--run-id", str(run), "--format", "json")
                break
            except SiteError as error:
                if look == LOOKS:
                    raise SiteError(f"{error}; run {run} may go on: look at it with `flwr list --run-id {run}`") from error
                time.sleep(POLL)
        runs = told.get("runs") or []
        if len(runs) != 1 or "status" not in runs[0]:
            raise SiteError(f"{self.federation}: does not tell how run {run} is: {_short(told)}")
        found: dict[str, Any] = runs[0]
        return found

    @contextmanager
    def _log(self, run: int) -> Iterator[Callable[[], list[str]]]:
        """Lines of the log that are new since the last look."""
        with TemporaryDirectory() as folder, (Path(folder) / "log").open("w") as out:
            words = [*_program(), "log", str(run), self.federation, "--stream"]
            process = subprocess.Popen(words, stdout=out, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=_environ())
            with (Path(folder) / "log").open() as kept:
                rest = ""

                def new() -> list[str]:
                    nonlocal rest
                    *whole, rest = (rest + kept.read()).split("\n")
                    return whole

                try:
                    yield new
                finally:
                    process.terminate()
                    process.wait()

    def _output(self, *words: str) -> "subprocess.CompletedProcess[str]":
        command, env = [*_program(), *words], _environ()
        return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=env)

    def _flwr(self, *words: str) -> dict[str, Any]:
        """What a command of Flower's prints as JSON."""
        done = self._output(*words)
        text = done.stdout[done.stdout.find("{") :]
        try:
            found = json.loads(text)
        except ValueError:
            found = {}
        if done.returncode or not isinstance(found, dict) or found.get("success") is False:
            said = found.get("error-message") if isinstance(found, dict) else None
            why = " ".join((said or done.stderr or done.stdout).split())[-600:]
            unreached = "onnection to the SuperLink is unavailable" in why
            hint = " (or `root-certificates` of this connection is not the CA of this SuperLink)" if unreached else ""
            raise SiteError(f"{self.federation}: `flwr {words[0]}` failed: {why or f'exit status {done.returncode}'}{hint}")
        return found


def _answer(run: int, federation: str, status: str, told: dict[str, Any], reader: Reader) -> dict[str, Any]:
    try:
        found = reader.answer()
    except SiteError as error:
        why = " ".join(str(told.get("status-details") or "").split())
        raise SiteError(
            f"{federation}: run {run} is {status}{': ' if why else ''}{why}; {error} (`flwr log {run} {federation}`). It may "
            f"have been done all the same: see what the family is (fedunlearn show FOLDER --backend flower), then "
            f"fedunlearn settle"
        ) from error
    if not isinstance(found, dict):
        raise SiteError(f"{federation}: run {run} answered with {type(found).__name__}, expected an object")
    if "error" not in found and status != "finished:completed":
        raise SiteError(
            f"{federation}: run {run} is {status}, though it answered; look at it with `flwr log {run} {federation}`"
        )
    return found


def outcome(found: dict[str, Any], federation: str, keep: Keep) -> dict[str, Any]:
    """An answer, unless it says that the order failed; what the family is then is kept first: something may be committed.

    Raises:
        FedUnlearnError: it failed; says why.
    """
    if "error" not in found:
        return found
    if isinstance(found.get("family"), dict):
        keep(found["family"])
    kind = InputError if found.get("exit_status") == InputError.exit_status else FedUnlearnError
    raise kind(f"{federation}: {found['error']}")


def _program() -> list[str]:
    """Flower's command line, of the very Python that this runs in."""
    beside = Path(sys.executable).parent / "flwr"
    return [str(beside)] if beside.exists() else ["flwr"]


def _environ() -> dict[str, str]:
    return {**QUIET, **os.environ}


def _short(told: dict[str, Any]) -> str:
    return json.dumps(told)[:300]
