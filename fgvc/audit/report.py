"""The report of an audit: JSON for machines, Markdown to read, one page of HTML to look through.

The same findings give the same bytes: no time and no machine stands in them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fgvc.audit.finding import Finding, Verdict, verdict_counts
from fgvc.audit.registry import Check, run_checks
from fgvc.provenance.files import write_text
from fgvc.reporting.markdown import escape, pipe_table

SUFFIXES = ("md", "json", "html")
#: Contradictions first: they are what one reads a report for.
ORDER: tuple[Verdict, ...] = ("contradicted", "confirmed", "not_checkable")
WORDS: dict[Verdict, str] = {
    "contradicted": "contradicted",
    "confirmed": "confirmed",
    "not_checkable": "not checkable",
}
_AT_THE_END: dict[Verdict, int] = {"contradicted": 0, "not_checkable": 2, "confirmed": 1}


@dataclass(frozen=True)
class Report:
    """Findings of some checks, under a title."""

    title: str
    about: str
    checks: tuple[Check[Any], ...]
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, title: str, about: str, checks: Iterable[Check[Any]], context: Any) -> Report:
        """The report of running ``checks`` on ``context``."""
        ran = tuple(checks)
        return cls(title, about, ran, tuple(run_checks(ran, context)))

    @cached_property
    def ordered(self) -> list[Finding]:
        """Contradictions first; within a verdict in the order of the checks."""
        return sorted(self.findings, key=lambda finding: _AT_THE_END[finding.verdict])

    def of_check(self, check: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.check == check]

    @property
    def counts(self) -> dict[Verdict, int]:
        return verdict_counts(self.findings)


def to_json(report: Report) -> str:
    """A list of objects with the keys of a finding, in the order of the checks."""
    return json.dumps([f.as_json() for f in report.findings], indent=2, ensure_ascii=False) + "\n"


def to_markdown(report: Report) -> str:
    """Counts by check, contradictions, and every check with all its findings."""
    blocks = [f"# {escape(report.title)}", escape(report.about), _counts_table(report)]
    blocks.append("## Contradictions")
    wrong = [f for f in report.findings if f.verdict == "contradicted"]
    blocks.append(_findings_table(wrong) if wrong else "None.")
    for check in report.checks:
        blocks.append(f"## {escape(check.title)} (`{check.id}`)")
        blocks.append(escape(check.explanation))
        found = report.of_check(check.id)
        blocks.append(_findings_table(found) if found else "No findings.")
    return "\n\n".join(blocks) + "\n"


def _counts_table(report: Report) -> str:
    rows = []
    for check in report.checks:
        counts = verdict_counts(report.of_check(check.id))
        rows.append([escape(check.title), *(str(counts[v]) for v in ORDER)])
    rows.append(["**all**", *(f"**{report.counts[v]}**" for v in ORDER)])
    return pipe_table(["check", *(WORDS[v] for v in ORDER)], rows, ["left", *["right"] * len(ORDER)])


def _findings_table(findings: Sequence[Finding]) -> str:
    header = ["verdict", "subject", "published", "recomputed", "why"]
    rows = [
        [
            WORDS[f.verdict],
            escape(f.subject),
            _cell(f.published),
            _cell(f.recomputed),
            escape(f.explanation),
        ]
        for f in findings
    ]
    return pipe_table(header, rows, ["left"] * len(header))


def _cell(value: str | float | None) -> str:
    return "" if value is None else escape(str(value))


def to_html(report: Report) -> str:
    """One page that asks the network for nothing."""
    loader = PackageLoader("fgvc.audit", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("report.html.j2").render(
        title=report.title,
        about=report.about,
        checks=report.checks,
        findings=report.ordered,
        verdicts=ORDER,
        words=WORDS,
        counts={c.id: verdict_counts(report.of_check(c.id)) for c in report.checks},
        totals=report.counts,
        titles={c.id: c.title for c in report.checks},
    )


def write_report(report: Report, stem: Path) -> list[Path]:
    """Write ``stem`` with each of `SUFFIXES`; returns the paths."""
    made = {"md": to_markdown, "json": to_json, "html": to_html}
    paths = []
    for suffix in SUFFIXES:
        path = stem.with_name(f"{stem.name}.{suffix}")
        write_text(path, made[suffix](report))
        paths.append(path)
    return paths
