"""One small finished project for the fault tests, and copies of it to do harm to."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import faultkit
import pytest
from workflowkit import copy_tree, snakemake


@pytest.fixture(scope="session")
def finished_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one run, all of it made; not to be changed. All workers of pytest-xdist share one."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    root, made = folder / "small-project", folder / "small-project.made"
    with (folder / "small-project.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            faultkit.make_small(root)
            snakemake(root).check()
            made.touch()
    return root


@pytest.fixture
def small(finished_small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the small project, with its times and hard links."""
    monkeypatch.delenv("FGVC_PROJECT", raising=False)
    monkeypatch.delenv("FGVC_MIRROR", raising=False)
    root = copy_tree(finished_small, tmp_path / "project")
    yield root
    for folder in [p for p in root.rglob("*") if p.is_dir() and not p.is_symlink()]:
        folder.chmod(0o755)  # so that pytest can remove what a test made read-only
