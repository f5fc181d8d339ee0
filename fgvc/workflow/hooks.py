"""What happens around a run of the workflow: the driver's lock, the summary, the list of failures."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from logging.handlers import QueueHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc.config.grid import compared, datasets_of, rate_searches
from fgvc.config.project import Project
from fgvc.config.suite import AccuracyTable, LayerFigure, quoted_by
from fgvc.errors import FgvcError
from fgvc.provenance.files import read_json
from fgvc.provenance.locks import exclusive_lock
from fgvc.tracking import job_records
from fgvc.workflow.cluster import cancel_orphans
from fgvc.workflow.job_errors import JobError, failed_jobs, job_errors, log_text
from fgvc.workflow.messages import ENDING, STOPPING
from fgvc.workflow.rules import Rules
from fgvc.workflow.session import SESSION
from fgvc.workflow.targets import Asked, asked_of, check, other_targets

if TYPE_CHECKING:
    pass

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
    suite = project.suite(asked.name)
    for name in suite.datasets:
        project.dataset(name)
    for name in suite.methods:
        weights = project.variant(name).weights
        if weights:
            project.weights(weights)
    for name in asked.tables:
        table = project.table(name)
        if isinstance(table, AccuracyTable):
            datasets_of(project, asked.name, name, table)
    shown = [*map(project.table, asked.tables), *map(project.figure, asked.figures)]
    for config in shown:
        if isinstance(config, LayerFigure):
            compared(project, asked.name, config)
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
        name = asked.name
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
    log = "\n".join(log_text(Path(log)) for log in logs)
    errors = list(job_errors(project, log))
    # A job that was stopped says so itself; Snakemake's own words may come after its log was read here.
    stopped = [error for error in errors if error.was_stopped]
    asked = STOPPING in log or ENDING in log or any(error.was_interrupted for error in stopped)
    failures = failed_jobs(project, errors, asked)
    if failures:
        _print_partial_tables(project)
    if failures or not (asked or stopped):
        _print(failure_report(project, failures))
    if asked or stopped:
        _print(_stopped_report(stopped, asked))


def _stopped_report(stopped: Sequence[JobError], asked: bool) -> Iterator[str]:
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
        name = asked.name
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


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)
