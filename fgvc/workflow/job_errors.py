"""Which jobs of a run failed or were stopped, as Snakemake's log and their own logs tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fgvc.config.project import Project
from fgvc.errors import one_line
from fgvc.provenance.files import write_json
from fgvc.workflow.cluster import ending
from fgvc.workflow.messages import was_stopped
from fgvc.workflow.session import SESSION

if TYPE_CHECKING:
    from fgvc.reporting.summary import FailedJob


@dataclass(frozen=True)
class JobError:
    """A job that Snakemake's log calls failed: its rule, first output, log file and what stands in that; and
    why SLURM ended it, if SLURM did."""

    rule: str
    output: str
    log: str
    text: str
    ended: str | None = None

    @property
    def last_line(self) -> str:
        """Of the job's own log, blank lines left out."""
        return ["", *_lines(self.text)][-1]

    @property
    def was_stopped(self) -> bool:
        """Whether it was asked to stop, by a signal or a deadline, and did."""
        return was_stopped(self.text)

    @property
    def was_interrupted(self) -> bool:
        """Whether that was Ctrl-C, which reaches all jobs at once."""
        return self.was_stopped and ("by SIGINT;" in self.last_line or self.last_line == "interrupted")


#: In Snakemake's log: a job or a group that failed, with the indented lines below it; a job that ended well.
_EVENTS = re.compile(
    r"^(?P<indent> *)Error in rule (?P<rule>\w+):\n(?P<fields>(?:(?P=indent)    .*\n?)*)"
    r"|^ *message: Error in group .*\n *log: (?P<group_log>.*?)(?: \(check.*)?$"
    r"|^ *Finished jobid: (?P<done>\d+)",
    flags=re.M,
)


def job_errors(project: Project, snakemake_log: str) -> Iterator[JobError]:
    """The jobs whose last attempt failed, in the order of the log.

    When one job of a group fails, Snakemake calls all of the group failed: then the guilty ones only.
    """
    failed: dict[str, tuple[str, JobError]] = {}
    group_log = ""
    for event in _EVENTS.finditer(snakemake_log):
        if event["done"]:
            failed.pop(event["done"], None)
        elif event["rule"]:
            fields = event["fields"]
            group = group_log if event["indent"] else ""
            found = _job_error(project, event["rule"], fields, group)
            if found.output:
                failed[_field(fields, "jobid")] = (group, found)
        else:
            group_log = event["group_log"]
    for group in dict.fromkeys(group for group, _ in failed.values()):
        members = [error for of, error in failed.values() if of == group]
        yield from _guilty(project, members) if group else members


def _job_error(project: Project, rule: str, fields: str, group_log: str) -> JobError:
    # Its own log comes first, then SLURM's, where there is one.
    logs = _field(fields, "log").removesuffix(" (check log file(s) for error details)").split(", ")
    slurm = log_text(project.root / (group_log or logs[-1])) if group_log or len(logs) > 1 else ""
    output = _field(fields, "output").split(", ")[0]
    ended = ending(_field(fields, "message"), slurm)
    return JobError(rule, output, logs[0], log_text(project.root / logs[0]), ended)


def _guilty(project: Project, members: list[JobError]) -> list[JobError]:
    """Of a failed group, the jobs that tell of an error or a stop; else the one that wrote its log last."""

    def written(error: JobError) -> float:
        path = project.root / error.log
        return path.stat().st_mtime if path.is_file() else 0.0

    telling = [error for error in members if own_error_line(error.text) or error.was_stopped]
    return telling or [max(reversed(members), key=written)]


def failed_jobs(project: Project, errors: Iterable[JobError], stopped: bool) -> list[FailedJob]:
    """The failed jobs, each once, with the last error line of its own log.

    Args:
        stopped: the user ended the run, so that a job without an error of its own was stopped, not failed.
    """
    from fgvc.reporting.summary import FailedJob

    found: dict[str, FailedJob] = {}
    for job in errors:
        said = own_error_line(job.text)
        if job.was_stopped or (stopped and not said):
            continue
        error = one_line(said or job.ended or _without_error(job.text))
        command = f"{SESSION.bin}snakemake --cores 1 -- {job.output}"
        found[job.output] = FailedJob(job.rule, job.output, error, job.log, command)
        _leave_failure(project, job.output, error, job.log)
    return list(found.values())


def _leave_failure(project: Project, output: str, error: str, log: str) -> None:
    """A run that was killed could not say so itself; its cell in the table should."""
    path = project.root / output
    folders = [project.root / "results" / name for name in ("runs", "sweeps")]
    if any(path.is_relative_to(folder) for folder in folders) and path.name != "lr.json":
        failure = project.paths.state_dir(path.parent) / "failure.json"
        if not failure.is_file():
            write_json(failure, {"error": error, "log": log, "run": output})


def own_error_line(text: str) -> str | None:
    """The line of a job's log that says what went wrong, if one does."""
    lines = _lines(text)
    errors = [line for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1].removeprefix("error: ")
    return lines[-1] if lines and re.match(r"[A-Za-z_.]*(Error|Exception)\b", lines[-1]) else None


def _without_error(text: str) -> str:
    lines = _lines(text)
    last = f"; its log ends with: {lines[-1]}" if lines else ""
    return f"the job ended without an error message (killed, or out of memory?){last}"


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _field(block: str, name: str) -> str:
    match = re.search(rf"^ +{name}: (.*)$", block, flags=re.M)
    return match.group(1).strip() if match else ""


def log_text(path: Path) -> str:
    """The text of a log file; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return ""
