"""fgvc audit."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgvc.cli.groups import REPORTS, AsJson, AsMarkdown, app, example
from fgvc.cli.output import Column, print_table, style_of, terminal_width
from fgvc.config.project import Project
from fgvc.errors import FgvcError, UnknownNameError

if TYPE_CHECKING:
    from fgvc.audit.report import Report

PUBLISHED = "published"
_COLUMNS = [
    Column(key, key) for key in ("check", "verdict", "subject", "published", "recomputed", "explanation")
]


@app.command(
    rich_help_panel=REPORTS,
    epilog=example("fgvc audit published", "fgvc audit paper.csv --dataset cub --seeds 3"),
)
def audit(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="published, a suite, or a CSV with your own table")
    ],
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="of a CSV: all its numbers are of this dataset")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="of a CSV: runs behind a number")
    ] = None,
    test_images: Annotated[
        int | None, typer.Option("--test-images", min=1, help="of a CSV, where params/datasets does not say")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="write .md, .json and .html below results/audit/")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="exit status 1 when a number is contradicted")
    ] = False,
    as_md: AsMarkdown = False,
    as_json: AsJson = False,
) -> None:
    """Check published numbers, a suite, or a table of yours."""
    project = Project.find()
    is_table = target.endswith((".csv", ".tsv", ".txt")) or (
        Path(target).is_file() and target not in (PUBLISHED, *project.names("suite"))
    )
    if not is_table:
        _refuse_table_options(target, {"--dataset": dataset, "--seeds": seeds, "--test-images": test_images})
        _known_target(project, target)
    elif write:
        raise FgvcError("--write is for published and suites", cure=f"fgvc audit {target} --md")
    from fgvc.audit.paper import read_paper
    from fgvc.audit.report import to_json, write_report
    from fgvc.audit.runs import audit_published, audit_suite, audit_table

    if is_table:
        table = read_paper(project, Path(target), dataset=dataset, seeds=seeds, test_images=test_images)
        report = audit_table(table)
    else:
        report = audit_published(project) if target == PUBLISHED else audit_suite(project, target)
    style = style_of(as_md, False, as_json)
    if write:
        paths = write_report(report, project.paths.audit(target))
        print("\n".join(project.paths.shown(path) for path in paths))
    elif style == "terminal":
        _print_short(report, target)
    elif style == "json":
        print(to_json(report), end="")
    else:
        print_table([f.as_json() for f in report.findings], _COLUMNS, style)
    if strict and report.counts["contradicted"]:
        raise typer.Exit(1)


def _refuse_table_options(target: str, given: dict[str, object]) -> None:
    option = next((name for name, value in given.items() if value is not None), None)
    if option:
        raise FgvcError(f"{option} is for a CSV, and '{target}' is none", cure="fgvc audit --help")


def _known_target(project: Project, target: str) -> None:
    known = [PUBLISHED, *project.names("suite")]
    if target not in known:
        raise UnknownNameError("audit", target, known, listing="fgvc list suites; or give a CSV")


def _print_short(report: Report, target: str) -> None:
    """Verdict counts by check, then what is contradicted."""
    from fgvc.audit.finding import verdict_counts
    from fgvc.audit.report import ORDER, WORDS

    width = terminal_width()
    counts = {check.title: verdict_counts(report.of_check(check.id)) for check in report.checks}
    counts["all"] = report.counts
    rows: list[dict[str, object]] = []
    for title, found in counts.items():
        if any(found.values()):
            rows.append({"check": title, **{str(verdict): number for verdict, number in found.items()}})
    columns = [Column("check", "Check", rigid=True), *(Column(v, WORDS[v], align="right") for v in ORDER)]
    print_table(rows, columns, "terminal")
    wrong = [f for f in report.findings if f.verdict == "contradicted"]
    for finding in wrong:
        told = [f"published: {finding.published}", f"recomputed: {finding.recomputed}", finding.explanation]
        print(f"\ncontradicted: {finding.subject}")
        for text in told:
            print(textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  "))
    print(f"\n{len(wrong)} contradicted of {len(report.findings)} findings; all: fgvc audit {target} --md")
