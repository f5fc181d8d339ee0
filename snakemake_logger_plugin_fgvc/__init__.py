"""Snakemake logger plugin ``fgvc``: hands Snakemake's events to `fgvc.workflow.display`.

Snakemake finds it by the name of this package; profiles/default asks for it. Dry runs, ``--verbose``,
``--printshellcmds`` and ``--quiet`` get Snakemake's own output.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from fgvc.workflow.display import Display, JobView
from fgvc.workflow.messages import ENDING, STOPPING, is_routine, tamed
from fgvc.workflow.session import SESSION
from fgvc.workflow.targets import asked_of, result_places

_NOTHING = "Nothing to be done"


class LogHandler(LogHandlerBase):  # type: ignore[misc]
    """Shows a run with our display, everything else with Snakemake's own handler."""

    def __post_init__(self) -> None:
        settings = self.common_settings
        self.own = not (settings.dryrun or settings.verbose or settings.quiet or settings.printshellcmds)
        self.fallback = ColorizingTextHandler(
            nocolor=settings.nocolor,
            stream=sys.stdout if settings.stdout else sys.stderr,
            formatter=DefaultFormatter(settings.quiet, settings.show_failed_logs),
        )
        self.fallback.addFilter(
            DefaultFilter(
                settings.quiet, settings.debug_dag, settings.verbose, settings.dryrun, settings.printshellcmds
            )
        )
        #: What is to run; told when the first job starts, because the run may still be refused.
        self.announced: dict[str, int] | None = None

    @property
    def writes_to_stream(self) -> bool:
        return True

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        return True

    @property
    def has_formatter(self) -> bool:
        return True

    @property
    def needs_rulegraph(self) -> bool:
        return False

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", None) in (None, LogEvent.ERROR) and isinstance(record.msg, str):
            record.msg, record.args = tamed(record.getMessage()), None
        if not self.own:
            if self.fallback.filter(record):
                self.fallback.emit(record)
            return
        try:
            self._show(record)
        except Exception:
            self.handleError(record)

    def _show(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        facts: Any = record
        display = self._display()
        if event in (None, LogEvent.ERROR):
            self._message(display, record)
        elif display is not None:
            self._event(display, event, facts)

    @staticmethod
    def _display() -> Display | None:
        """The display of the project, once the Snakefile has been read."""
        if SESSION.display is None and SESSION.project is not None:
            SESSION.display = Display(SESSION.project)
        return SESSION.display

    def _event(self, display: Display, event: LogEvent, facts: Any) -> None:
        match event:
            case LogEvent.RUN_INFO:
                self.announced = {str(k): int(v) for k, v in facts.stats.items() if k != "total"}
            case LogEvent.JOB_INFO:
                if self.announced is not None:
                    display.begin(self.announced, asked_of(display.project, SESSION.targets))
                    self.announced = None
                display.start(
                    facts.jobid,
                    JobView(
                        facts.rule_name,
                        {str(k): str(v) for k, v in dict(facts.wildcards or {}).items()},
                        ", ".join(map(str, facts.log or [])),
                        int(facts.threads or 1),
                    ),
                )
            case LogEvent.JOB_FINISHED:
                display.finish(facts.job_id)
            case LogEvent.JOB_ERROR:
                display.fail(facts.jobid, facts.rule_name)
            case LogEvent.RESOURCES_INFO:
                # On a cluster, jobs at once; the cores of each are not known here.
                given = getattr(facts, "cores", None) or getattr(facts, "nodes", None)
                display.cores = int(given or display.cores)
            case _:
                pass

    def _message(self, display: Display | None, record: logging.LogRecord) -> None:
        text = record.getMessage() if record.msg else ""
        if display is None:
            if not is_routine(text):
                print(text, file=sys.stderr)
        elif text.startswith(_NOTHING):
            display.say("nothing to be done: everything asked for is there and up to date")
            for line in result_places(display.project, SESSION.targets):
                display.say(line)
        elif text.startswith(STOPPING):
            display.stop("stopping: trainings that run save their state first")
        elif text.startswith(ENDING):
            display.stop("ending after the jobs that run now")
        elif not is_routine(text):
            display.say(text)

    def close(self) -> None:
        if SESSION.display is not None:
            SESSION.display.close()
        super().close()
