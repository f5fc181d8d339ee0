"""What Snakemake says, as a user should read it: our own mistakes' messages bare, routine left out."""

from __future__ import annotations

import re

#: An error of ours at the beginning of a line, alone or inside one of Snakemake's exceptions.
_OURS = re.compile(r"^\s*(?:\w+: )?(error: .*)$")
_CONTINUED = ("  where: ", "  to do: ", "         ")

#: Routine of every run.
_ROUTINE = (
    "Assuming unrestricted shared filesystem usage",
    "Building DAG of jobs",
    "Using shell: ",
    "Provided cores: ",
    "Rules claiming more threads",
    "Provided resources: ",
    "Conda environments: ignored",
    "Singularity containers: ignored",
    "Group jobs: inactive",
    "Select jobs to execute",
    "Execute ",
    "Shutting down, this might",
    "Complete log(s): ",
    "Elapsed time: ",
    "Removing output files of failed job",
    "Deleting current output files",
    "Error in rule",
)

#: Routine of every run on a cluster; `squeue` and the list of failures name the jobs.
_CLUSTER_ROUTINE = re.compile(
    r"SLURM run ID: |Job \S+ has been submitted with SLURM jobid |Trying to restart job |"
    r"(No SLURM account given|Unable to guess SLURM account|No account was given|Guessed SLURM account)|"
    r"Cleaning up SLURM log files |Provided remote nodes: |Falling back to 'sacct'|'sacct' unavailable"
)

#: Said better by the display and by the closing list of failures. The warning is about files that a trainer
#: made which outlived its killed driver.
_SAID_BETTER = (
    "At least one job did not complete",
    "CalledProcessError in file",
    "Exiting because a job",
    "were not present when the DAG was created",
)

#: Snakemake's words for Ctrl-C, and for a request (SIGTERM) to end after the running jobs.
STOPPING = "Terminating processes on user request"
ENDING = "Will exit after finishing currently running jobs"

#: The last line of a job that was asked to stop (`fgvc.provenance.stopping`): it is no failed job.
_STOPPED = re.compile(r"stopped (.+ )?by .+; the same command .+|interrupted")


def was_stopped(log: str) -> bool:
    """Whether the text of a job's log ends with the words of a verb that was asked to stop."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return bool(lines) and _STOPPED.fullmatch(lines[-1]) is not None


def tamed(text: str) -> str:
    """``text``; only our message of it where it is about a mistake that we explain ourselves."""
    lines = text.splitlines()
    for position, line in enumerate(lines):
        match = _OURS.match(line)
        if match:
            rest = lines[position + 1 :]
            kept = next((n for n, other in enumerate(rest) if not other.startswith(_CONTINUED)), len(rest))
            return "\n".join([match.group(1), *rest[:kept]])
    return text


def is_routine(text: str) -> bool:
    """Whether a message may be left out: it tells nothing, or something else tells it better."""
    if not text.strip() or text.startswith(_ROUTINE) or _CLUSTER_ROUTINE.match(text):
        return True
    return any(words in text for words in _SAID_BETTER)
