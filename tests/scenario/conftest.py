"""Loaders of sites lie beside their files: their folders join the path, and leave it again."""

import sys

import pytest


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
