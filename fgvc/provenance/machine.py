"""What a record says about the machine, the packages and the code that made it."""

from __future__ import annotations

import os
import platform
import resource
import socket
import subprocess
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from fgvc.provenance.digests import file_sha256, tree_sha256

#: Packages whose version may change a number.
NUMERIC_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pillow",
    "safetensors",
    "torchmetrics",
    "fvcore",
    "pandas",
    "pyarrow",
    "scipy",
)


def package_versions() -> dict[str, str | None]:
    """Installed versions of the packages that may change a number; None where one is missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in NUMERIC_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


@lru_cache(maxsize=1)
def code_identity() -> dict[str, Any]:
    """Commit and dirty flag of the checkout, and a digest of the package's own sources.

    The digest is of the files themselves, so it also tells edits apart that were never committed.
    """
    package = Path(__file__).resolve().parents[1]
    sources = sorted(package.rglob("*.py"))
    digest = tree_sha256((str(p.relative_to(package)), file_sha256(p)) for p in sources)
    commit = _git(package, "rev-parse", "HEAD")
    status = _git(package, "status", "--porcelain", "--", str(package)) if commit else None
    return {
        "commit": commit,
        "dirty": bool(status) if status is not None else None,
        "sources_sha256": digest,
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def host() -> dict[str, Any]:
    """Name, operating system, processor and memory of this machine."""
    return {
        "name": socket.gethostname(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def _processor() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or None


def peak_memory_mib() -> float:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return round(peak / (1024 * 1024 if sys.platform == "darwin" else 1024), 1)
