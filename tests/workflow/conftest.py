"""One finished project for all tests of the workflow, and copies of it to do harm to."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from workflowkit import Outcome, copy_tree, make_project, snakemake


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny project in which ``snakemake --cores 2`` ran once; not to be changed.

    All workers of pytest-xdist share one.
    """
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    root, screen = folder / "finished-project", folder / "finished-project.txt"
    with (folder / "finished-project.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not screen.exists():
            make_project(root)
            outcome = snakemake(root)
            screen.write_text(f"{outcome.status}\n{outcome.text}")
    _outcome_in(screen).check()
    return root


@pytest.fixture(scope="session")
def first_run(finished: Path) -> Outcome:
    """What the run that made the finished project showed."""
    return _outcome_in(finished.with_name("finished-project.txt"))


def _outcome_in(screen: Path) -> Outcome:
    status, _, text = screen.read_text().partition("\n")
    return Outcome(int(status), text)


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project, with its times and hard links."""
    return copy_tree(finished, tmp_path / "project")


@pytest.fixture(scope="module")
def module_copy(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy for the tests of one file that change no results."""
    return copy_tree(finished, tmp_path_factory.mktemp("shared") / "project")
