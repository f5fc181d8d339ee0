"""What happens around a run of the workflow: the driver's lock, the summary, the list of failures."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from logging.handlers import QueueHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc.config.grid import rate_searches
from fgvc.config.project import Project
from fgvc.config.suite import quoted_by
from fgvc.errors import FgvcError, one_line
from fgvc.provenance.files import read_json, write_json
from fgvc.provenance.locks import exclusive_lock
from fgvc.tracking import job_records
from fgvc.workflow.cluster import cancel_orphans, ending
from fgvc.workflow.messages import ENDING, STOPPING, was_stopped
from fgvc.workflow.rules import Rules
from fgvc.workflow.session import SESSION
from fgvc.workflow.targets import Asked, asked_of, check, other_targets

if TYPE_CHECKING:
    from fgvc.reporting.summary import FailedJob

# The driver's lock is held until the process ends; the kernel frees it, also after a kill.
_held = contextlib.ExitStack()


def begin(workflow: Any) -> Rules:
    """Open the project for the Snakefile, whose ``workflow`` this is, and check what is asked for.

    Raises FgvcError when this folder is no project, nothing makes a target, or a file of ``params/`` that a
    target depends on is wrong, and where Snakemake cannot work in the folder.
    """
    folder, snakefile_folder = Path.cwd(), Path(workflow.basedir).resolve()
    targets = _command_line_targets(sys.argv) if workflow.is_main_process else ()
    if not (folder / "params" / "config.yaml").is_file():
        here = folder == snakefile_folder
        raise FgvcError(
            "there is no params/config.yaml here, so this is no project",
            file=folder,
            cure="git checkout -- params" if here else f"change into {snakefile_folder} and run it there",
        )
    if {"{", "}"} & set(str(snakefile_folder)):
        raise FgvcError(
            "Snakemake takes braces in a folder's name for wildcards",
            file=snakefile_folder,
            cure="rename the folder; any other character may be in it",
        )
    SESSION.project, SESSION.targets, SESSION.bin = Project(folder), targets, _prefix(folder)
    _use_own_verbs(folder)
    # A cluster's warning goes to every process of a job; the verbs answer it, and Snakemake reports them.
    with contextlib.suppress(ValueError):  # used from Python, outside of the main thread
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if not workflow.is_main_process:  # a job on a cluster node: its driver has checked everything
        return Rules(SESSION.project)
    _collect_rarely()
    rules = checked_rules(SESSION.project, targets)
    job_records.restore(SESSION.project)
    return rules


def _collect_rarely() -> None:
    """Let the garbage collector leave the graph of jobs alone: all of it lives to the end.

    Looking through it again and again takes a quarter of the time of a dry run of thousands of jobs.
    """
    gc.freeze()
    gc.set_threshold(500_000, 50, 1000)


def checked_rules(project: Project, targets: Sequence[str]) -> Rules:
    """The rules' answers for a project, after a look at the targets and at every file that they depend on.

    A mistake is told before any work; and told at all: where results exist already, Snakemake takes a rule
    whose input function fails for one that does not apply, and finds nothing to do.

    Raises FgvcError.
    """
    rules = Rules(project)
    check(rules, targets)
    for asked in asked_of(project, targets):
        _check_files(project, asked)
    rate_searches(project)
    return rules


def _command_line_targets(argv: Sequence[str]) -> tuple[str, ...]:
    """The targets of a ``snakemake`` command line; none where Snakemake is used from Python.

    Snakemake tells its Snakefile everything but these.
    """
    if Path(argv[0]).name not in ("snakemake", "__main__.py"):
        return ()
    options = list(argv[1:])
    end = options.index("--") if "--" in options else len(options)
    explicit = options[end + 1 :]
    if all(word.startswith("-") or word.isdigit() for word in options[:end]):
        return tuple(explicit)
    # Only its parser knows which words are values of options. It is slow to build.
    from snakemake.cli import get_argument_parser

    with contextlib.suppress(SystemExit):
        return (*get_argument_parser().parse_known_args(options[:end])[0].targets, *explicit)
    return tuple(explicit)


def _check_files(project: Project, asked: Asked) -> None:
    """Read every file of ``params/`` that a suite's tables and figures depend on. Raises FgvcError."""
    suite = project.suite(asked.suite or project.settings.default_suite)
    for name in suite.datasets:
        project.dataset(name)
    for name in suite.methods:
        weights = project.variant(name).weights
        if weights:
            project.weights(weights)
    shown = [*map(project.table, asked.tables), *map(project.figure, asked.figures)]
    for quoted in (name for config in shown for name in quoted_by(config)):
        for name in project.published(quoted).variants():  # their costs are counted
            project.variant(name)


def _prefix(folder: Path) -> str:
    """What stands before a command to copy: nothing where the shell finds the commands of this Python."""
    own = Path(sys.executable).parent
    found = shutil.which("snakemake")
    if found and Path(found).parent == own:
        return ""
    return f"{own.relative_to(folder) if own.is_relative_to(folder) else own}/"


def _use_own_verbs(folder: Path) -> None:
    """Let ``fgvc`` in the rules' commands be the one beside this Python, and act on this project."""
    own = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([own, os.environ.get("PATH", os.defpath)])
    os.environ["FGVC_PROJECT"] = str(folder)


def on_start(rules: Rules, workflow: Any) -> None:
    """Refuse to drive a project that another living Snakemake is driving; clear away what a dead one left."""
    from snakemake.exceptions import WorkflowError

    try:
        _held.enter_context(exclusive_lock(rules.project.paths.state("driver.lock"), "a run of the workflow"))
    except FgvcError as error:
        raise WorkflowError(str(error)) from None
    if type(workflow.executor_settings).__module__ == "snakemake_executor_plugin_slurm":
        cancel_orphans(rules.project.root, lambda line: _print([line]))


def on_success(rules: Rules) -> None:
    """At most ten lines: what came out, where it is, what to do next."""
    from fgvc.reporting.summary import MAX_LINES, summary_lines
    from fgvc.reporting.tables import remove_partial_tables

    _end_display()
    project, lines = rules.project, []
    for asked in asked_of(project, SESSION.targets):
        name = asked.suite or project.settings.default_suite
        remove_partial_tables(project, name, short=asked.suite is None)
        lines += summary_lines(
            project,
            name,
            short=asked.suite is None,
            tables=asked.tables,
            figures=asked.figures,
            commands=SESSION.bin,
        )
    made = [_made(project, target) for target in other_targets(SESSION.targets)]
    room = max(1, MAX_LINES - len(lines))
    if len(made) > room:
        made = [*made[: room - 1], f"Made:   {len(made) - room + 1} more"]
    _print([*lines, *made])


def _made(project: Project, target: str) -> str:
    """A file that was asked for, with the result where it is a run's."""
    path = project.root / target
    if path.name == "metrics.json":
        with contextlib.suppress(FgvcError):
            metrics = read_json(path)
            if metrics.get("status") == "ok":
                return f"Made:   {target}: top-1 {metrics['top1_pct']:.2f} % of {metrics['images']} images"
            return f"Made:   {target}: the run diverged"
    if path.name == "tracked.json":
        with contextlib.suppress(FgvcError, KeyError):
            remote = read_json(path)["remote"]
            pushed = f"pushed to '{remote}'" if remote else "not pushed (there is no default remote)"
            return f"Made:   {target}: {pushed}; now: git add data results dvc.yaml && git commit"
    return f"Made:   {target}"


def on_error(rules: Rules, logs: Iterable[str]) -> None:
    """Write what is there as partial tables and list each failed job: its error, its log, its command.

    Nothing that goes wrong in here may hide the failures themselves.
    """
    from fgvc.reporting.summary import failure_report

    _end_display()
    project = rules.project
    log = "\n".join(_text(Path(log)) for log in logs)
    errors = list(_job_errors(project, log))
    asked = STOPPING in log or ENDING in log
    # A job that was stopped says so itself; Snakemake's own words may come after its log was read here.
    stopped = [error for error in errors if error.was_stopped]
    failures = failed_jobs(project, errors, asked or any(error.was_interrupted for error in stopped))
    if failures:
        _print_partial_tables(project)
    if failures or not (asked or stopped):
        _print(failure_report(project, failures))
    if asked or stopped:
        _print(_stopped_report(stopped, asked))


def _stopped_report(stopped: Sequence[_JobError], asked: bool) -> Iterator[str]:
    """What was stopped, by whom, and that nothing of it failed.

    Args:
        asked: the user ended the run, and its jobs with it.
    """
    for job in [] if asked else stopped:
        yield f"  {job.rule} {job.output}: {job.last_line}"
    who = "on request" if asked or not stopped else "by a signal or a deadline"
    yield f"stopped {who}; the same command goes on from here, and nothing finished is repeated"


def _print_partial_tables(project: Project) -> None:
    from fgvc.reporting.summary import write_partial_tables

    for asked in asked_of(project, SESSION.targets):
        name = asked.suite or project.settings.default_suite
        tables = asked.tables or project.suite(name).tables
        with contextlib.suppress(FgvcError):
            for path in write_partial_tables(project, name, short=asked.suite is None, tables=tables):
                _print([f"what is there so far: {project.paths.shown(path)}"])


def _end_display() -> None:
    """Let the display show everything that was logged, and end it: what the hooks print comes last."""
    from snakemake.logging import logger

    queues: list[Any] = [handler.queue for handler in logger.handlers if isinstance(handler, QueueHandler)]
    deadline = time.monotonic() + 2
    while any(queue.unfinished_tasks for queue in queues) and time.monotonic() < deadline:
        time.sleep(0.01)
    if SESSION.display is not None:
        SESSION.display.close()


@dataclass(frozen=True)
class _JobError:
    """A job that Snakemake's log calls failed: its rule, first output, log file and what stands in that; and
    why SLURM ended it, if SLURM did."""

    rule: str
    output: str
    log: str
    text: str
    ended: str | None = None

    @property
    def last_line(self) -> str:
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


def _job_errors(project: Project, snakemake_log: str) -> Iterator[_JobError]:
    """The jobs whose last attempt failed, in the order of the log.

    When one job of a group fails, Snakemake calls all of the group failed: then the guilty ones only.
    """
    failed: dict[str, tuple[str, _JobError]] = {}
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


def _job_error(project: Project, rule: str, fields: str, group_log: str) -> _JobError:
    # Its own log comes first, then SLURM's, where there is one.
    logs = _field(fields, "log").removesuffix(" (check log file(s) for error details)").split(", ")
    slurm = _text(project.root / (group_log or logs[-1])) if group_log or len(logs) > 1 else ""
    output = _field(fields, "output").split(", ")[0]
    ended = ending(_field(fields, "message"), slurm)
    return _JobError(rule, output, logs[0], _text(project.root / logs[0]), ended)


def _guilty(project: Project, members: list[_JobError]) -> list[_JobError]:
    """Of a failed group, the jobs that tell of an error or a stop; else the one that wrote its log last."""

    def written(error: _JobError) -> float:
        path = project.root / error.log
        return path.stat().st_mtime if path.is_file() else 0.0

    telling = [error for error in members if own_error_line(error.text) or error.was_stopped]
    return telling or [max(reversed(members), key=written)]


def failed_jobs(project: Project, errors: Iterable[_JobError], stopped: bool) -> list[FailedJob]:
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


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return ""


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)
