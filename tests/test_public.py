"""The public names exist, load when they are asked for, and say what there is when they are not."""

import ast
from pathlib import Path

import pytest

import fedunlearn


def test_public_names() -> None:
    found = {name: getattr(fedunlearn, name) for name in fedunlearn.__all__}
    assert set(found.pop("METHODS")) >= {"fiun", "logit_mask"}
    assert all(value.__name__ == name for name, value in found.items())
    with pytest.raises(AttributeError, match="module 'fedunlearn' has no attribute 'unlern'; it has: "):
        fedunlearn.unlern  # noqa: B018


def test_editors_and_type_checkers_know_the_public_names() -> None:
    source = ast.parse(Path(fedunlearn.__file__).read_text())
    told = next(node for node in source.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    lines = [node for node in told.body if isinstance(node, ast.ImportFrom)]
    known = {name.asname: f"{line.module}.{name.name}" for line in lines for name in line.names}
    assert known == {n: f"fedunlearn.{room}.{n}" for room, names in fedunlearn._ROOMS.items() for n in names}


def test_type_checkers_are_told_that_the_package_is_typed() -> None:
    assert (Path(fedunlearn.__file__).parent / "py.typed").exists()
