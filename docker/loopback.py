"""A whole deployment on this machine, bound to 127.0.0.1: the commands of run.sh, each party in a folder of its own.

    loopback.py flower [--folder DIR]    SuperLink with TLS and SuperNode authentication, three sites, one stranger
    loopback.py ray    [--folder DIR]    a Ray cluster of a head and two workers, three sites

Trains a small family, has a class forgotten, takes that back, shows it, and says what each party's disk holds. Whatever is
started here is ended by its process id, also when something fails or is interrupted.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
SITES = ("north", "south", "east")
STRANGER = "stranger"
NAME = "loopback"  # of the connection, in the operator's config.toml


class Parties:
    """Folders of the parties, and the processes that were started for them.

    Args:
        folder: new or empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.address = folder, ""
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, tuple[str, tuple[object, ...], dict[str, object]]] = {}

    def of(self, party: str) -> Path:
        """The folder of one party."""
        return self.folder / party

    def environ(self, party: str, **more: object) -> dict[str, str]:
        """What a party's commands see: its own keys, state and Flower home, this Python's programs, nothing shared."""
        folders = {"KEYS": "keys", "STATE": "state", "FLWR_HOME": "flwr", "TMPDIR": "tmp"}
        own: dict[str, object] = {name: self.of(party) / folder for name, folder in folders.items()} | {"HOST": "127.0.0.1"}
        for folder in folders.values():
            (self.of(party) / folder).mkdir(parents=True, exist_ok=True)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return {**os.environ, "PATH": path, **{k: str(v) for k, v in (own | more).items()}}

    def do(self, party: str, *words: object, **more: object) -> str:
        """A command of run.sh that ends by itself; its output."""
        return self.call(party, [str(HERE / "run.sh"), *map(str, words)], **more)

    def works(self, party: str, *words: object, **more: object) -> bool:
        """Whether a command of run.sh ends well."""
        with suppress(RuntimeError):
            self.do(party, *words, **more)
            return True
        return False

    def call(self, party: str, words: list[str], **more: object) -> str:
        """Any command of a party; raises with its output when it fails."""
        done = subprocess.run(words, env=self.environ(party, **more), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(
                f"{party}: {' '.join(words)} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
            )
        return done.stdout

    def start(self, name: str, party: str, *words: object, **more: object) -> "subprocess.Popen[bytes]":
        """A command of run.sh that runs on, in a process group of its own; its output goes to the party's log."""
        self._commands[name] = (party, words, more)
        logs = self.of(party) / "log"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"{name}.txt").open("ab") as log:
            process = subprocess.Popen(
                [str(HERE / "run.sh"), *map(str, words)],
                env=self.environ(party, **more),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._processes[name] = process
        return process

    def again(self, name: str, **changed: object) -> "subprocess.Popen[bytes]":
        """Start a process once more as it was started before, but for what its environment says differently now."""
        party, words, more = self._commands[name]
        return self.start(name, party, *words, **(more | changed))

    def log(self, party: str, name: str) -> str:
        """What a process has printed so far."""
        path = self.of(party) / "log" / f"{name}.txt"
        return path.read_text(errors="replace") if path.exists() else ""

    def until(self, what: str, true: Callable[[], bool], seconds: float = 120.0) -> None:
        """Wait for something, or say which processes have ended meanwhile."""
        ends = time.monotonic() + seconds
        while not true():
            if time.monotonic() > ends:
                ended = {n: p.returncode for n, p in self._processes.items() if p.poll() is not None}
                raise RuntimeError(
                    f"{what}: not within {seconds:g} s; ended meanwhile: {ended or 'none'}; logs are in {self.folder}/*/log"
                )
            time.sleep(0.5)

    def end(self, name: str) -> None:
        """End one process and what it has started."""
        process = self._processes.pop(name)
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
        process.wait()

    def kill(self, name: str) -> None:
        """What a power cut does to one process and to what it has started."""
        process = self._processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def end_all(self) -> None:
        """End every process, the last first."""
        for name in reversed(list(self._processes)):
            self.end(name)

    def weights(self) -> dict[str, list[str]]:
        """By party, the files on its disk that hold tensors, as paths within its folder."""
        return self._on_disk("*.safetensors")

    def rows(self) -> dict[str, list[str]]:
        """By party, the files on its disk that hold rows."""
        return self._on_disk("*.npz")

    def _on_disk(self, pattern: str) -> dict[str, list[str]]:
        folders = sorted(p for p in self.folder.iterdir() if p.is_dir())
        return {p.name: sorted(str(f.relative_to(p)) for f in p.rglob(pattern)) for p in folders}


@contextmanager
def parties(folder: Path) -> Iterator[Parties]:
    """Parties with rows of their own, nothing started; whatever is started ends with the block."""
    made = Parties(folder)
    made.call("operator", [str(HERE / "prepare.sh"), str(folder), *SITES, STRANGER], RAY=1)
    (made.of("operator") / "keys" / "sites" / f"{STRANGER}.pub").unlink()
    made.call("operator", [sys.executable, str(HERE / "deal.py"), str(folder), *SITES])
    shutil.move(folder / "heldout.npz", made.of("coordinator") / "families" / "heldout.npz")
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield made
    finally:
        made.end_all()
        signal.signal(signal.SIGTERM, before)


@contextmanager
def flower(
    folder: Path,
    sites: tuple[str, ...] = SITES,
    say: Callable[[str], None] = print,
    config: Callable[[Path], str] = 'site-file="{}/site.yaml"'.format,
) -> Iterator[Parties]:
    """SuperLink, ServerApp process, and a SuperNode and a ClientApp process a site; `config` is a node's, by its folder."""
    with parties(folder) as made:
        port = free_port()
        made.address = f"127.0.0.1:{port}"
        link = {"PORT": port, "SUPERLINK": made.address}
        made.start("superlink", "coordinator", "superlink", **link)
        made.until("SuperLink", lambda: made.works("coordinator", "healthy", PORT=port))
        say(f"SuperLink on 127.0.0.1:{port}")
        made.do("operator", "connection", NAME, link["SUPERLINK"])
        made.do("operator", "register-all", made.of("operator") / "keys" / "sites", NAME)
        made.start("serverapp", "coordinator", "serverapp", FEDUNLEARN_FAMILIES=made.of("coordinator") / "families", **link)
        for site in (*sites, STRANGER):
            own = {"PORT": free_port(), "SUPERLINK": link["SUPERLINK"], "NODE_CONFIG": config(made.of(site))}
            made.start(f"supernode-{site}", site, "supernode", **own)
            if site != STRANGER:
                made.start(f"clientapp-{site}", site, "clientapp", SUPERNODE=f"127.0.0.1:{own['PORT']}")
        stranger = made._processes[f"supernode-{STRANGER}"]
        made.until("refusal of the stranger", lambda: stranger.poll() is not None)
        made.until("sites", lambda: online(made) == len(sites))
        say(f"{len(sites)} sites online; {STRANGER}, whose key nobody registered, ended with {stranger.returncode}")
        yield made


def online(made: Parties) -> int:
    """How many SuperNodes are there."""
    told = made.call("operator", ["flwr", "supernode", "list", NAME, "--format", "json"])
    return sum(node["status"] == "online" for node in json.loads(told[told.find("{") :])["nodes"])


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def ray(folder: Path, sites: tuple[str, ...] = SITES, say: Callable[[str], None] = print) -> Iterator[Parties]:
    """A head with the coordinator, and a worker a site; each has an address of its own, as machines have."""
    with (
        parties(folder) as made,
        tempfile.TemporaryDirectory(prefix="fr", dir="/tmp") as temporary,
    ):  # names of sockets are short
        port = free_port()
        made.start("head", "coordinator", "ray-head", PORT=port, RAY_TEMP=temporary, NODE_IP="127.0.0.1")
        made.until("head", lambda: "Ray runtime started" in made.log("coordinator", "head"))
        say(f"Ray's head on 127.0.0.1:{port}")
        for number, site in enumerate(sites, 2):
            own = {"NODE_IP": f"127.0.0.{number}", "RAY_HEAD": f"127.0.0.1:{port}", "FEDUNLEARN_SITES": made.folder}
            made.start(f"worker-{site}", site, "ray-worker", site, **own)
            started = partial(made.log, site, f"worker-{site}")
            made.until(
                f"worker {site}", lambda log=started: "Ray runtime started" in log()
            )  # at once they take each other's ports
        say(f"{len(sites)} workers: {', '.join(sites)}")
        made.address = f"127.0.0.1:{port}"
        yield made


def alone() -> bool:
    """Whether this machine, as it is seen from here, has no network but loopback."""
    return [name for _, name in socket.if_nameindex()] == ["lo"]


def in_a_network_of_its_own() -> None:
    """Start this program anew where there is only loopback: Ray listens on every interface and cannot be told otherwise."""
    inside = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    with suppress(OSError):
        os.execvp(inside[0], [*inside, sys.executable, *sys.argv])
    sys.exit(
        "loopback.py: `unshare --net` is needed, so that Ray listens nowhere but on loopback; this machine does not have it"
    )


def fedunlearn(
    made: Parties, *words: object, party: str = "operator", check: bool = True
) -> "subprocess.CompletedProcess[str]":
    """What is typed, shown as it is typed, and what comes of it."""
    print(f"\n$ fedunlearn {' '.join(map(str, words))}", flush=True)
    own = made.of("coordinator")
    more = {"FEDUNLEARN_DATA": own / "families", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": own / "keys" / "ray.token"}
    env, there = made.environ(party, **(more if party == "coordinator" else {})), made.of(party)
    done = subprocess.run(["fedunlearn", *map(str, words)], env=env, cwd=there, text=True, check=False, capture_output=True)
    print(done.stdout + done.stderr, flush=True)
    if check and done.returncode:
        raise RuntimeError(f"fedunlearn {words[0]} ended with {done.returncode}")
    return done


def story(made: Parties, *how: object, party: str) -> None:
    """Train, forget, roll back, show."""
    there = how[:2] if "flower" in how else how  # the folder remembers the federation
    fedunlearn(made, "train", HERE / "digits.yaml", "--out", "runs/digits", *how, party=party)
    fedunlearn(made, "unlearn", "runs/digits", "--classes", "0", "--no-reference", *there, party=party)
    fedunlearn(made, "rollback", "runs/digits", "--lift-exclusion", *there, party=party)
    fedunlearn(made, "show", "runs/digits", party=party)
    for what, held in (("weights", made.weights()), ("rows", made.rows())):
        print(f"\n{what} on each party's disk:")
        for name, files in held.items():
            print(f"  {name}: {len(files) or 'none'}" + "".join(f"\n    {f[:100]}" for f in files))


def main() -> None:
    """The command line."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("what", choices=("flower", "ray"))
    words.add_argument("--folder", type=Path, help="kept afterwards; a temporary one by default, removed at the end")
    given = words.parse_args()
    if given.what == "ray" and not alone():
        in_a_network_of_its_own()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary) / "parties").resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if given.what == "flower":
            with flower(folder) as made:
                story(made, "--backend", "flower", "--federation", NAME, party="operator")
                made.do("coordinator", "purge")  # what is due after a seal; it may be done at any time
        else:
            with ray(folder) as made:
                story(made, "--backend", "ray", "--address", made.address, "--sites-in", made.folder, party="coordinator")


if __name__ == "__main__":
    main()
