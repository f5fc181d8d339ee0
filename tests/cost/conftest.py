"""A project with the real parameters and no weights, and method classes that exist for one test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fgvc.config.project import Project
from fgvc.methods import Method
from fgvc.methods import base as methods_base

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    shutil.copytree(CHECKOUT / "params", tmp_path / "params")
    return Project(tmp_path)


@pytest.fixture
def registered_here(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Method]], type[Method]]:
    """Register a method class until the test ends."""

    def register(cls: type[Method]) -> type[Method]:
        monkeypatch.setitem(methods_base._REGISTRY, cls.name, cls)
        return cls

    return register


@pytest.fixture(scope="session")
def repository() -> Project:
    """The parameters as they are shipped, only to be read."""
    return Project(CHECKOUT)
