"""A project with git, DVC and a remote beside it, and what a user does there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from workflowkit import REPOSITORY, call, environment

#: The same identity and no settings of the user's.
GIT = {
    **{
        f"GIT_{who}_{what}": "tests@localhost"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    },
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=root, env=environment(**GIT), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def commit(root: Path, message: str) -> str:
    """Commit everything that git does not ignore; returns the commit."""
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", message)
    return git(root, "rev-parse", "HEAD").strip()


def dvc(root: Path, *arguments: str) -> str:
    return call("dvc", root, *arguments, **GIT).check().text


def make_repository(root: Path, remote: Path) -> None:
    """What the repository has for git and DVC, and a remote; `images/` stays out of git."""
    for name in (".gitignore", ".dvcignore"):
        shutil.copyfile(REPOSITORY / name, root / name)
    (root / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copyfile(REPOSITORY / ".dvc" / name, root / ".dvc" / name)
    shutil.copytree(REPOSITORY / ".dvc" / "plots", root / ".dvc" / "plots")
    git(root, "init", "--quiet")
    (root / ".git" / "info" / "exclude").write_text("/images/\n")
    remote.mkdir()
    dvc(root, "remote", "add", "--default", "store", str(remote))


def clone(root: Path, target: Path) -> Path:
    git(root, "clone", "--quiet", str(root), str(target))
    return target


def pull(root: Path) -> None:
    git(root, "pull", "--quiet")
    dvc(root, "pull", "--quiet")
