"""fgvc table, figure."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from fgvc.cli.groups import REPORTS, AsCsv, AsJson, AsMarkdown, SuiteName, app, example
from fgvc.cli.output import style_of, terminal_width
from fgvc.config.project import Project

AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="show what is there, plainly marked as partial")
]


def _suite(project: Project, suite: str | None, kind: Literal["table", "figure"], shown: str) -> str:
    """The suite's name, found to exist: that of the short path where none is given."""
    name = suite or project.suite_at_short_path(kind, shown)
    project.suite(name)
    return name


@app.command(
    rich_help_panel=REPORTS,
    epilog=example("fgvc table sota_224 --allow-missing", "fgvc table sota_224 --suite grocery --md"),
)
def table(
    name: Annotated[str, typer.Argument(metavar="NAME", help="table in params/tables")],
    suite: SuiteName = None,
    allow_missing: AllowMissing = False,
    write: Annotated[bool, typer.Option("--write", help="write .tex, .md and .csv below results/")] = False,
    as_md: AsMarkdown = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Print a table of a suite, or write it."""
    project = Project.find()
    project.table(name)
    suite_name = _suite(project, suite, "table", name)
    from fgvc.reporting.tables import read_table, show_table, write_table

    if write:
        for path in write_table(project, suite_name, name, suite_path=suite, allow_missing=allow_missing):
            print(project.paths.shown(path))
        return
    style = style_of(as_md, as_csv, as_json)
    contents = read_table(project, suite_name, name, suite_path=suite, allow_missing=allow_missing)
    print(show_table(contents, style, terminal_width() if style == "terminal" else None).rstrip("\n"))


@app.command(rich_help_panel=REPORTS, epilog=example("fgvc figure acc_vs_flops_224 --allow-missing"))
def figure(
    name: Annotated[str, typer.Argument(metavar="NAME", help="figure in params/figures")],
    suite: SuiteName = None,
    allow_missing: AllowMissing = False,
    as_json: AsJson = False,
) -> None:
    """Draw a figure of a suite as PDF and PNG.

    Confusion matrices have their counts as CSV, too.
    """
    project = Project.find()
    project.figure(name)
    suite_name = _suite(project, suite, "figure", name)
    from fgvc.reporting.figures import write_figure

    paths = write_figure(project, suite_name, name, suite_path=suite, allow_missing=allow_missing)
    shown = [project.paths.shown(path) for path in paths]
    print(json.dumps(shown) if as_json else "\n".join(shown))
