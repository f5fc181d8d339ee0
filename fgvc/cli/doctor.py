"""What `fgvc doctor` looks at."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any, Literal

from fgvc.config.project import Project
from fgvc.errors import FgvcError

State = Literal["ok", "note", "missing"]

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "snakemake",
    "dvc",
    "fvcore",
    "pandas",
    "pydantic",
    "pillow",
    "matplotlib",
)

#: Less free space than this is worth a word.
LOW_DISK_GB = 5.0


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    state: State
    what: str
    found: str
    cure: str = ""

    def row(self) -> dict[str, Any]:
        return {"state": self.state, "what": self.what, "found": self.found, "to do": self.cure}


def examine() -> list[Finding]:
    """Everything worth knowing before a first run; nothing is changed."""
    return [*_packages(), *_torch(), *_project(), *_tools()]


def _packages() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok" if sys.version_info >= (3, 11) else "missing", "python", version)
    for name in PACKAGES:
        try:
            yield Finding("ok", name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding("missing", name, "not installed", "make env")


def _torch() -> Iterator[Finding]:
    if util.find_spec("torch") is None:
        return
    import torch

    from fgvc.device import choose_device, describe_device
    from fgvc.torchvision_ops import ensure_torchvision_ops

    device = choose_device("auto")
    found = f"{device.type}: {describe_device(device)['name']}, {torch.get_num_threads()} threads"
    cure = (
        ""
        if device.type != "cpu"
        else "the quick and grocery suites are made for this; the paper's grid wants a GPU"
    )
    yield Finding("ok" if device.type != "cpu" else "note", "device (auto)", found, cure)
    whole = ensure_torchvision_ops()
    yield Finding("ok", "torchvision operators", "whole" if whole else "declared by fgvc (not needed here)")


def _project() -> Iterator[Finding]:
    try:
        project = Project.find()
        for name in project.names("suite"):
            project.suite(name)
        yield Finding("ok", "project", str(project.root))
        yield Finding("ok", "default suite", project.settings.default_suite)
    except FgvcError as error:
        yield Finding("missing", "project", error.problem, error.cure or "")
        return
    free_gb = shutil.disk_usage(project.root).free / 1e9
    low = free_gb < LOW_DISK_GB
    yield Finding(
        "note" if low else "ok",
        "free disk",
        f"{free_gb:.0f} GB",
        "fgvc plan SUITE says what is needed" if low else "",
    )
    mirror = os.environ.get("FGVC_MIRROR") or project.settings.mirror
    if mirror and not Path(mirror).is_dir():
        yield Finding(
            "missing", "mirror", f"{mirror} is no folder", "correct FGVC_MIRROR or params/config.yaml"
        )
    else:
        yield Finding("ok", "mirror", mirror or "none (the network is asked)")
    yield _dvc_remote(project.root)


def _dvc_remote(root: Path) -> Finding:
    if not (root / ".dvc").is_dir():
        return Finding("note", "DVC remote", "no DVC repository here", "dvc init")
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "remote", "list"], cwd=root, capture_output=True, text=True, check=False
    )
    remotes = done.stdout.strip()
    cure = (
        "" if remotes else "dvc remote add --default store /path/or/s3://bucket (only needed to share data)"
    )
    return Finding("ok" if remotes else "note", "DVC remote", remotes or "none", cure)


def _tools() -> Iterator[Finding]:
    git = shutil.which("git")
    yield Finding(
        "ok" if git else "note", "git", git or "not found", "" if git else "run cards cannot name the commit"
    )
    sbatch = shutil.which("sbatch")
    yield Finding("ok", "SLURM", sbatch or "not here (only needed on clusters)")
