"""The checks of an audit: each a function with an id, what it reads, and its docstring as explanation.

    @published_check("printed_average", title="Printed averages", inputs=("params/published",))
    def printed_average(context: PublishedContext) -> Iterator[Finding]:
        \"\"\"One paragraph: what is checked, how, and when it says which verdict.\"\"\"
        yield Finding(subject=…, verdict="confirmed", explanation=…, source=…)

Published checks see `PublishedContext` (records and costs: no data, no GPU), suite checks see `SuiteContext`.
``fgvc/audit/__init__.py`` imports the modules that hold them, in the order in which reports show them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from fgvc.audit.context import PublishedContext, SuiteContext
from fgvc.audit.finding import Finding
from fgvc.audit.tables import ScoreTable

ContextT = TypeVar("ContextT")
CheckFunction = Callable[[ContextT], Iterable[Finding]]


@dataclass(frozen=True)
class Check(Generic[ContextT]):
    """One check.

    Attributes:
        id: stable name, in reports and JSON.
        title: as headings show it.
        explanation: one paragraph: what is checked, how, and when it says which verdict.
        inputs: what it reads, for the reader: ``params/published``, ``results/cost``.
        function: the check itself; its findings need not name the check.
    """

    id: str
    title: str
    explanation: str
    inputs: tuple[str, ...]
    function: CheckFunction[ContextT]

    def run(self, context: ContextT) -> list[Finding]:
        """The check's findings, each under its id."""
        return [replace(finding, check=self.id) for finding in self.function(context)]


#: Checks of any table of accuracies; each is a published check, too, over all published tables.
TABLE: dict[str, Check[ScoreTable]] = {}
PUBLISHED: dict[str, Check[PublishedContext]] = {}
SUITE: dict[str, Check[SuiteContext]] = {}


def table_check(
    id: str, *, title: str, inputs: Sequence[str]
) -> Callable[[CheckFunction[ScoreTable]], CheckFunction[ScoreTable]]:
    """Register a check of a table of accuracies: of a user's own, and of every published one."""

    def register(function: CheckFunction[ScoreTable]) -> CheckFunction[ScoreTable]:
        def over_published(context: PublishedContext) -> Iterator[Finding]:
            for table in context.tables:
                yield from function(table)

        _register(TABLE, id, title, inputs, function)
        own = TABLE[id]
        PUBLISHED[id] = Check(id, title, own.explanation, ("params/published", *own.inputs), over_published)
        return function

    return register


def published_check(
    id: str, *, title: str, inputs: Sequence[str]
) -> Callable[[CheckFunction[PublishedContext]], CheckFunction[PublishedContext]]:
    """Register a check of published numbers."""
    return lambda function: _register(PUBLISHED, id, title, inputs, function)


def suite_check(
    id: str, *, title: str, inputs: Sequence[str]
) -> Callable[[CheckFunction[SuiteContext]], CheckFunction[SuiteContext]]:
    """Register a check of our own results."""
    return lambda function: _register(SUITE, id, title, inputs, function)


def _register(
    checks: dict[str, Check[ContextT]],
    id: str,
    title: str,
    inputs: Sequence[str],
    function: CheckFunction[ContextT],
) -> CheckFunction[ContextT]:
    paragraph = " ".join((inspect.getdoc(function) or "").split())
    if not paragraph:
        raise ValueError(f"the check '{id}' needs a docstring: it is the explanation that reports show")
    if id in checks:
        raise ValueError(f"two checks are called '{id}'")
    checks[id] = Check(id, title, paragraph, tuple(inputs), function)
    return function


def run_checks(checks: Iterable[Check[ContextT]], context: ContextT) -> list[Finding]:
    """Every finding of the checks, in their order."""
    return [finding for check in checks for finding in check.run(context)]
