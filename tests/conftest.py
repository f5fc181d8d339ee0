"""Fixtures for all tests. They act on small projects of their own, never on the checkout's results."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import fgvc.backbones  # noqa: F401  (cures torchvision before a test imports timm)
from fgvc.config.project import Project

REPOSITORY = Path(__file__).resolve().parents[1]

ProjectFactory = Callable[..., Project]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared facts beside the repository, or ``FGVC_SHARED``; skips where it is missing."""
    folder = Path(os.environ.get("FGVC_SHARED") or REPOSITORY.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"needs the shared reference folder, not found at {folder} (FGVC_SHARED names it)")
    return folder


@pytest.fixture
def project_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectFactory:
    """Makes small projects: ``project_factory(copy=["datasets/typefaces"], files={...}, settings={...})``.

    Args (of the factory):
        copy: files of the checkout's params, without suffix.
        files: path in the project → text, or a mapping that is written as YAML.
        settings: what params/config.yaml says.
        name: folder name, for tests with several projects.
    """
    monkeypatch.delenv("FGVC_MIRROR", raising=False)
    monkeypatch.delenv("FGVC_PROJECT", raising=False)

    def make(
        *,
        copy: list[str] | None = None,
        files: Mapping[str, str | Mapping[str, Any]] | None = None,
        settings: Mapping[str, Any] | None = None,
        name: str = "project",
    ) -> Project:
        root = tmp_path / name
        texts: dict[str, str | Mapping[str, Any]] = {"params/config.yaml": dict(settings or {})}
        texts.update(files or {})
        for inner, content in texts.items():
            target = root / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            text = content if isinstance(content, str) else yaml.safe_dump(dict(content), sort_keys=False)
            target.write_text(text, encoding="utf-8")
        for inner in copy or []:
            target = root / "params" / f"{inner}.yaml"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / "params" / f"{inner}.yaml", target)
        return Project(root)

    return make
