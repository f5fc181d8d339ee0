"""The tiny project, made once, and a fresh copy of it for each test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainkit import copy_project, exact_files, make_project, run_dir, train

from fgvc.config.project import Project


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Fetched and split; never trained in."""
    return make_project(tmp_path_factory.mktemp("tiny") / "project")


@pytest.fixture
def fresh(pristine: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Project]:
    """``fresh(**settings)``: another copy of the tiny project."""
    monkeypatch.delenv("FGVC_MIRROR", raising=False)
    monkeypatch.delenv("FGVC_PROJECT", raising=False)
    made: list[Project] = []

    def one(**settings: Any) -> Project:
        made.append(copy_project(pristine, tmp_path / f"copy{len(made)}", **settings))
        return made[-1]

    return one


@pytest.fixture
def project(fresh: Callable[..., Project]) -> Project:
    return fresh()


@pytest.fixture(scope="session")
def uninterrupted(
    pristine: Project, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, bytes]]:
    """``uninterrupted(method)``: the exact files of a run that nobody disturbed."""
    found: dict[str, dict[str, bytes]] = {}

    def of(method: str) -> dict[str, bytes]:
        if method not in found:
            project = copy_project(pristine, tmp_path_factory.mktemp(method) / "project")
            ended = train(project, method)
            assert ended.code == 0, ended.said
            found[method] = exact_files(run_dir(project, method))
        return found[method]

    return of
