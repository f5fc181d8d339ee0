"""Tools of the fault tests: the tiniest finished project, and processes with fewer rights or a short life."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cli"))

from clikit import Said, fgvc
from workflowkit import BIN, Outcome, environment, make_project, suite, variant, write_params

__all__ = ["CELL", "RUN", "TABLES", "Said", "fgvc", "make_small", "strike", "unprivileged"]

#: The only run of the small project.
CELL = ("shapes", "vit_tiny", "--size", "32", "--seed", "1")
RUN = "results/runs/shapes/vit_tiny/32/seed1"
TABLES = tuple(f"results/tables/acc_32.{suffix}" for suffix in ("tex", "md", "csv"))


def make_small(root: Path) -> Path:
    """The workflow's test project with a single run and no search: ten jobs, half a minute."""
    make_project(root)
    write_params(root, "suites/mini", suite(methods=["vit_tiny"], seeds=[1], learning_rates=[0.001]))
    write_params(root, "methods/vit_tiny", variant(recipe={"epochs": 2}))
    return root


def unprivileged(root: Path, command: str, *arguments: str) -> Outcome:
    """Run a command of the environment that is bound by permissions, also where the tests run as root.

    Skips where root's rights cannot be given up.
    """
    prefix: list[str] = []
    if os.geteuid() == 0:
        prefix = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
        if not shutil.which("setpriv") or subprocess.run([*prefix, "true"], check=False).returncode:
            pytest.skip("root cannot give up its rights here (setpriv)")
    done = subprocess.run(
        [*prefix, BIN / command, *arguments],
        cwd=root,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return Outcome(done.returncode, done.stdout)


_SITE = """
import os, signal, sys

if {verb!r} in sys.orig_argv and not os.path.exists({done!r}):
    real, left = os.{call}, [{number}]

    def counted(*arguments, **options):
        left[0] -= 1
        if left[0] == 0:
            open({done!r}, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    os.{call} = counted
"""


def strike(folder: Path, verb: str, call: str, number: int) -> dict[str, str]:
    """Environment in which the first process of a verb is killed (SIGKILL) once, at a call to the system.

    Args:
        folder: for the tools; not inside the project.
        call: a function of `os`, such as ``replace``: the kill comes in its stead.
        number: at which of these calls, from 1.
    """
    folder.mkdir(parents=True)
    text = _SITE.format(verb=verb, call=call, number=number, done=str(folder / "done"))
    (folder / "sitecustomize.py").write_text(text)
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}
