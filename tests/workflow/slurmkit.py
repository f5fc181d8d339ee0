"""A real SLURM cluster of one node for tests (tests/slurm/cluster.sh), and what they ask it."""

from __future__ import annotations

import fcntl
import importlib.util
import re
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from workflowkit import REPOSITORY, Driver, driving, fgvc

SCRIPT = REPOSITORY / "tests" / "slurm" / "cluster.sh"
#: Exit status of the script where the machine cannot have a cluster.
CANNOT = 77

#: Beside the profile: SLURM is asked often, and new files are on the same disk.
QUICK = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10")


@contextmanager
def one_cluster(shared: Path) -> Iterator[None]:
    """The cluster, for one session of tests; the last worker of pytest-xdist that leaves stops it.

    Args:
        shared: a folder that all workers see.
    """
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("snakemake-executor-plugin-slurm is not installed")
    users = shared / "slurm-users.txt"
    with _locked(shared / "slurm-users.lock"):
        started = subprocess.run([SCRIPT, "start"], capture_output=True, text=True, check=False, timeout=120)
        if started.returncode == CANNOT:
            pytest.skip(started.stderr.strip().splitlines()[-1])
        assert started.returncode == 0, started.stdout + started.stderr
        was_there = not users.exists() and "runs already" in started.stdout
        others = users.read_text() if users.exists() else "not ours\n" if was_there else ""
        users.write_text(others + "one\n")
    try:
        yield
    finally:
        with _locked(shared / "slurm-users.lock"):
            users.write_text(users.read_text().replace("one\n", "", 1))
            if not users.read_text():
                users.unlink()
                subprocess.run([SCRIPT, "stop"], capture_output=True, check=True, timeout=120)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def alone(shared: Path) -> Iterator[None]:
    """No other test uses the cluster meanwhile: its two GPUs are this one's."""
    with _locked(shared / "slurm-one-test.lock"):
        yield
        subprocess.run(["scancel", "--me"], capture_output=True, check=False)


def slurm_driving(root: Path, *targets: str, options: tuple[str, ...] = ()) -> AbstractContextManager[Driver]:
    """A driver with the profile that `make_profile` wrote."""
    return driving(root, *targets, options=("--workflow-profile", "profiles/here", *QUICK, *options))


def make_profile(root: Path, *options: str) -> Path:
    """``profiles/here`` of a project, by the verb that users use."""
    fgvc(root, "slurm-profile", "--write", "profiles/here", *options).check()
    return root / "profiles" / "here" / "config.yaml"


@dataclass(frozen=True)
class SlurmJob:
    """A job as ``scontrol show job`` tells it."""

    id: str
    state: str
    facts: dict[str, str]

    @property
    def about(self) -> str:
        """Its rule or group, with wildcards."""
        return self.facts["Comment"].removeprefix("rule_")


def slurm_jobs(root: Path, *states: str) -> list[SlurmJob]:
    """The jobs of a project in ``states`` (all: none given), as SLURM sees them now."""
    shown = subprocess.run(
        ["scontrol", "show", "job", "--oneliner"], capture_output=True, text=True, timeout=60, check=True
    )
    found = []
    for line in shown.stdout.splitlines():
        facts = dict(re.findall(r"(\w+)=(\S*)", line))
        if facts.get("WorkDir") == str(root.resolve()) and (not states or facts["JobState"] in states):
            found.append(SlurmJob(facts["JobId"], facts["JobState"], facts))
    return found


def job_of(root: Path, method: str, seed: int = 1) -> SlurmJob | None:
    """The running SLURM job that trains a run, once it has saved a state."""
    folder = root / "state" / "runs" / "shapes" / method
    if not list(folder.glob(f"*/seed{seed}/*/step-*.json")):
        return None
    running = [(job, Path(job.facts["StdOut"])) for job in slurm_jobs(root, "RUNNING")]
    return next((job for job, log in running if f"method={method}," in log.read_text()), None)


def ask(*command: str) -> None:
    """Run a command of SLURM, as its user would."""
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
