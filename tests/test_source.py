"""The hash of a user's code changes with every file of it that counts, and with no other."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from fedunlearn.source import text_of

BASE = "class Base:\n    pass\n"
FILES = {  # a folder of single files, and a package in it
    "mine.py": "import json, torch\nfrom helper import FACTOR\nfrom lab.rules import Rule\n\ndef f():\n    import late\n",
    "helper.py": "from deeper import NUMBER\nFACTOR = 1\n",
    "deeper.py": "NUMBER = 1\n",
    "late.py": "",
    "idle.py": "import mine\n",
    "broken.py": "from mine import (\n",
    "lab/__init__.py": "",
    "lab/rules.py": "from . import shared\nfrom .parts.one import One\n\nclass Rule:\n    pass\n",
    "lab/shared.py": "",
    "lab/idle.py": "",
    "lab/parts/__init__.py": "",
    "lab/parts/one.py": "from ..top import TOP\nfrom lab import rules\nOne = TOP\n",
    "lab/top.py": "TOP = 1\n",
    "torch.py": "",
}
OF = {
    "mine": {
        "mine.py", "helper.py", "deeper.py", "late.py", "lab/__init__.py", "lab/rules.py", "lab/shared.py",
        "lab/parts/__init__.py", "lab/parts/one.py", "lab/top.py",
    },
    "lab.shared": {"lab/shared.py"},
    "lab": {"lab/__init__.py"},
    "deeper": {"deeper.py"},
    "broken": {"broken.py"},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(f"# {name}\n{text}")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    importlib.invalidate_caches()
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("module", OF)
def test_it_is_of_the_files_that_a_module_imports_beside_it_and_of_no_others(module: str, folder: Path) -> None:
    before = text_of([module])
    for name in FILES:
        path = folder / name
        text = path.read_text()
        path.write_text(f"{text}# changed\n")
        assert (text_of([module]) != before) == (name in OF[module]), name
        path.write_text(text)
    assert text_of([module]) == before


@pytest.mark.parametrize("module", sorted(OF.keys() - {"broken"}))
def test_it_is_the_same_whether_modules_are_loaded_or_not(module: str, folder: Path) -> None:
    before = text_of([module])
    importlib.import_module(module)
    assert text_of([module]) == before


def test_of_one_file_it_is_its_own_and_of_several_it_is_of_all(folder: Path) -> None:
    assert text_of(["deeper"]) == blake3((folder / "deeper.py").read_bytes()).hexdigest()
    assert text_of(["deeper", "late"]) == text_of(["late", "deeper"]) not in (text_of(["deeper"]), text_of(["late"]))


def test_what_is_installed_counts_itself_and_is_not_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = folder / "site-packages"
    there.mkdir()
    (there / "bought.py").write_text("import part\n")
    (there / "part.py").write_text("")
    monkeypatch.setattr(sys, "path", [str(there), *sys.path])
    importlib.invalidate_caches()
    assert text_of(["bought"]) == blake3((there / "bought.py").read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["fedunlearn.methods.base", "torch.nn", "json", "builtins", "no_such_module"])
def test_of_python_torch_this_package_and_what_is_not_there_it_says_nothing(name: str) -> None:
    assert text_of([name]) == ""
