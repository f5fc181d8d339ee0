"""The audits that there are: of published numbers, of a suite, of a user's own table."""

from __future__ import annotations

from fgvc.audit.context import PublishedContext, SuiteContext
from fgvc.audit.registry import PUBLISHED, SUITE, TABLE
from fgvc.audit.report import Report
from fgvc.audit.tables import ScoreTable
from fgvc.config.project import Project

_VERDICTS = (
    "Confirmed: recomputed, and it agrees. Contradicted: recomputed, and it cannot be so. "
    "Not checkable: what it would take is not known; the finding says what."
)


def audit_published(project: Project) -> Report:
    """Every published number that the project quotes: records and costs, no data, no GPU."""
    context = PublishedContext.of(project)
    about = f"{len(context.records)} published numbers, looked at by {len(PUBLISHED)} checks. {_VERDICTS}"
    return Report.of("Audit of published numbers", about, PUBLISHED.values(), context)


def audit_suite(project: Project, suite: str) -> Report:
    """Our own results of a suite. Raises UnknownNameError for a suite that does not exist."""
    title = project.suite(suite).title
    context = SuiteContext(project, suite, short=suite == project.settings.default_suite)
    about = (
        f"The runs, metrics and tables of the suite '{suite}', looked at by {len(SUITE)} checks. {_VERDICTS}"
    )
    return Report.of(f"Audit of {title}", about, SUITE.values(), context)


def audit_table(table: ScoreTable) -> Report:
    """A table of accuracies that someone hands in."""
    about = f"{len(table.scores)} accuracies of {len(table.methods)} methods. {_VERDICTS}"
    return Report.of(f"Audit of {table.place}", about, TABLE.values(), table)
