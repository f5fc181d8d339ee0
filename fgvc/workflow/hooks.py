"""What happens around a run of the workflow: the driver's lock, the summary, the list of failures."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.provenance.files import write_json
from fgvc.provenance.locks import exclusive_lock
from fgvc.workflow.rules import Rules
from fgvc.workflow.targets import given_targets, suites_of

if TYPE_CHECKING:
    from fgvc.reporting.summary import FailedJob

# The driver's lock is held until the process ends; the kernel frees it, also after a kill.
_held = contextlib.ExitStack()


def use_own_verbs() -> None:
    """Let ``fgvc`` in the rules' commands be the one beside this Python, whatever else is on the path."""
    own = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([own, os.environ.get("PATH", os.defpath)])


def on_start(rules: Rules) -> None:
    """Refuse to drive a project that another living Snakemake is driving."""
    from snakemake.exceptions import WorkflowError

    try:
        _held.enter_context(exclusive_lock(rules.project.paths.state("driver.lock"), "a run of the workflow"))
    except FgvcError as error:
        raise WorkflowError(str(error)) from None


def on_success(rules: Rules, arguments: Sequence[str]) -> None:
    """At most ten lines: what came out, where it is, what to do next."""
    for suite in suites_of(rules.project, arguments):
        _print(success_lines(rules.project, suite))
    if not suites_of(rules.project, arguments):
        _print([f"made: {target}" for target in given_targets(arguments)])


def success_lines(project: Project, suite: str | None) -> list[str]:
    """The summary of a suite; also when nothing had to be done."""
    from fgvc.reporting.summary import summary_lines
    from fgvc.reporting.tables import remove_partial_tables

    name = suite or project.settings.default_suite
    remove_partial_tables(project, name, short=suite is None)
    return summary_lines(project, name, short=suite is None)


def on_error(rules: Rules, arguments: Sequence[str], logs: Iterable[str]) -> None:
    """Write what is there as partial tables and list each failed job: its error, its log, its command.

    Nothing that goes wrong in here may hide the failures themselves.
    """
    from fgvc.reporting.summary import failure_report, write_partial_tables

    project = rules.project
    failures = failed_jobs(project, "\n".join(_text(Path(log)) for log in logs))
    for suite in suites_of(project, arguments):
        name = suite or project.settings.default_suite
        with contextlib.suppress(FgvcError):
            for path in write_partial_tables(project, name, short=suite is None):
                _print([f"what is there so far: {project.paths.shown(path)}"])
    _print(failure_report(project, failures))


def failed_jobs(project: Project, snakemake_log: str) -> list[FailedJob]:
    """The failed jobs that Snakemake's log names, each with the last error line of its own log."""
    from fgvc.reporting.runs import one_line
    from fgvc.reporting.summary import FailedJob

    found: dict[str, FailedJob] = {}
    for block in re.split(r"^Error in rule ", snakemake_log, flags=re.M)[1:]:
        rule = block.partition(":")[0]
        output = _field(block, "output").split(", ")[0]
        log = _field(block, "log").removesuffix(" (check log file(s) for error details)")
        if not output:
            continue
        error = one_line(final_error_line(_text(project.root / log)))
        found[output] = FailedJob(rule, output, error, log, f"snakemake --cores 1 -- {output}")
        _leave_failure(project, output, error, log)
    return list(found.values())


def _leave_failure(project: Project, output: str, error: str, log: str) -> None:
    """A run that was killed could not say so itself; its cell in the table should."""
    path = project.root / output
    if path.is_relative_to(project.root / "results" / "runs"):
        failure = project.paths.state_dir(path.parent) / "failure.json"
        if not failure.is_file():
            write_json(failure, {"error": error, "log": log, "run": output})


def final_error_line(text: str) -> str:
    """The line of a job's log that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1].removeprefix("error: ")
    if lines and re.match(r"[A-Za-z_.]*(Error|Exception)\b", lines[-1]):
        return lines[-1]
    last = f"; its log ends with: {lines[-1]}" if lines else ""
    return f"the job ended without an error message (killed, or out of memory?){last}"


def _field(block: str, name: str) -> str:
    match = re.search(rf"^    {name}: (.*)$", block, flags=re.M)
    return match.group(1).strip() if match else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return ""


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)
