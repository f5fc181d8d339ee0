"""Snakemake logger plugin ``fgvc``: hands Snakemake's events to `fgvc.workflow.display`.

Snakemake finds it by the name of this package; profiles/default asks for it. Dry runs, ``--verbose``,
``--printshellcmds`` and ``--quiet`` get Snakemake's own output.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Any

from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.workflow.display import Display, JobView
from fgvc.workflow.targets import result_places, suites_of

_NOTHING = "Nothing to be done"
#: What Snakemake says of failed jobs: the display and the closing list of failures say it better.
_SILENCED = ("At least one job did not complete", "CalledProcessError in file", "Exiting because a job")


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
        self.display: Display | None = None
        if self.own:
            with contextlib.suppress(FgvcError):
                self.display = Display(Project.find())

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
        if self.display is None:
            if self.fallback.filter(record):
                self.fallback.emit(record)
            return
        try:
            self._show(self.display, record)
        except Exception:
            self.handleError(record)

    def _show(self, display: Display, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        facts: Any = record
        match event:
            case LogEvent.RUN_INFO:
                stats = {str(k): int(v) for k, v in facts.stats.items() if k != "total"}
                project = display.project
                display.begin(stats, suites_of(project, sys.argv[1:]))
            case LogEvent.JOB_INFO:
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
                display.cores = int(getattr(facts, "cores", None) or display.cores)
            case None | LogEvent.ERROR:
                self._message(display, record)
            case _:
                pass

    def _message(self, display: Display, record: logging.LogRecord) -> None:
        text = record.getMessage() if record.msg else ""
        if text.startswith(_NOTHING):
            display.say("nothing to be done: everything asked for is there and up to date")
            for line in result_places(display.project, sys.argv[1:]):
                display.say(line)
        elif record.levelno >= logging.WARNING and text and not any(words in text for words in _SILENCED):
            display.say(text)

    def close(self) -> None:
        if self.display is not None:
            self.display.close()
        super().close()
