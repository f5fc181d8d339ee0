"""SLURM as the driver sees it: why a job ended, and which jobs a driver that died left behind."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

#: What SLURM writes into a job's own log when it ends the job, and the same in a user's words. Read there,
#: because that needs no accounting, and Snakemake does not tell the state of a group of jobs.
_ENDINGS = (
    (r"CANCELLED AT \S+ DUE TO TIME LIMIT", "SLURM ended it at its time limit; give it more `runtime`"),
    (r"CANCELLED AT \S+ DUE TO PREEMPTION", "SLURM ended it for a job of higher priority"),
    (r"CANCELLED AT \S+ DUE TO NODE FAILURE", "its node failed"),
    (r"\boom[-_ ]?kill", "SLURM killed it for lack of memory; give it more `mem_mb`"),
    (r"CANCELLED AT \S+ \*\*\*", "it was cancelled (scancel)"),
)

#: The same by the state that Snakemake's plugin tells, for jobs that SLURM ended before they began.
_STATES = {
    "TIMEOUT": _ENDINGS[0][1],
    "NODE_FAIL": _ENDINGS[2][1],
    "OUT_OF_MEMORY": _ENDINGS[3][1],
    "CANCELLED": _ENDINGS[4][1],
    "BOOT_FAIL": "its node did not start",
    "DEADLINE": "SLURM ended it at its deadline",
}

#: How long to wait for cancelled jobs to save their state and end, in seconds.
CANCEL_WAIT_S = 120.0


def ending(message: str, log: str) -> str | None:
    """Why SLURM ended a job, from the plugin's message about it and from SLURM's own log of it.

    None where SLURM ended nothing: the job failed by itself.
    """
    for pattern, words in _ENDINGS:
        if re.search(pattern, log):
            return words
    state = re.search(r"SLURM status is: '(\w+)'", message)
    return _STATES.get(state[1]) if state else None


def cancel_orphans(root: Path, say: Callable[[str], None], wait_s: float = CANCEL_WAIT_S) -> int:
    """Cancel the jobs that an earlier driver of this project left in SLURM's queue; how many they were.

    A driver that was killed cancels nothing. Its waiting jobs would start some day, take the outputs of
    finished jobs away and make them again. Its running ones are told to stop: they save their state, and the
    jobs of this driver go on from there. To be called under the driver's lock, so that no driver lives.
    """
    orphans = _jobs_of(root)
    if not orphans:
        return 0
    say(f"{len(orphans)} SLURM jobs of a driver that was killed are cancelled; what they saved is used")
    subprocess.run(["scancel", *orphans], capture_output=True, check=False)
    deadline = time.monotonic() + wait_s
    while _jobs_of(root) and time.monotonic() < deadline:
        time.sleep(0.5)
    return len(orphans)


def _jobs_of(root: Path) -> list[str]:
    """Ids of this user's jobs that Snakemake submitted from ``root``; none where SLURM does not answer."""
    try:
        answer = subprocess.run(
            ["squeue", "--me", "--noheader", "--format=%i|%k|%Z"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split("|", 2) for line in answer.stdout.splitlines()]
    folder = str(root.resolve())
    # The comment is what Snakemake's plugin gives to its jobs.
    return [row[0] for row in rows if len(row) == 3 and row[1].startswith("rule_") and row[2] == folder]


def keeps_accounts() -> bool:
    """Whether SLURM keeps accounts, which `sacct` reads; taken for granted where there is no SLURM to ask."""
    try:
        answer = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return True
    found = re.search(r"^AccountingStorageType\s*=\s*(\S+)", answer.stdout, flags=re.M)
    return found is None or found[1] not in ("accounting_storage/none", "(null)")
