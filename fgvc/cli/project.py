"""fgvc doctor, plan, list, describe, schema, stages."""

from __future__ import annotations

from typing import Annotated

import typer

from fgvc.cli.groups import PROJECT, AsCsv, AsJson, AsMarkdown, app, example
from fgvc.cli.output import Column, print_table, style_of
from fgvc.config.project import Project
from fgvc.errors import FgvcError, UnknownNameError


@app.command(rich_help_panel=PROJECT, epilog=example("fgvc doctor"))
def doctor(as_json: AsJson = False) -> None:
    """Versions, devices, disk, DVC remote: what is missing."""
    from fgvc.cli.doctor import examine

    findings = examine()
    print_table(
        [finding.row() for finding in findings],
        [
            Column("state", "state"),
            Column("what", "what"),
            Column("found", "found", prose=True),
            Column("to do", "to do", prose=True),
        ],
        style_of(as_json=as_json),
    )
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


@app.command(rich_help_panel=PROJECT, epilog=example("fgvc plan sota"))
def plan(
    suite: Annotated[
        str | None, typer.Argument(help="suite in params/suites", show_default="the default suite")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What a suite takes: jobs, hours, downloads, disk."""
    project = Project.find()
    from fgvc.workflow.plan import make_plan, plan_lines

    made = make_plan(project, suite or project.settings.default_suite)
    if as_json:
        import json
        from dataclasses import asdict

        print(json.dumps(asdict(made), indent=2))
    else:
        print("\n".join(plan_lines(made)))


LISTS = (
    *("methods", "classes", "datasets", "suites", "tables", "figures", "published"),
    *("weights", "recipes", "backbones"),
)


@app.command(
    "list", rich_help_panel=PROJECT, epilog=example("fgvc list methods", "fgvc list backbones --like dino")
)
def list_names(
    what: Annotated[str, typer.Argument(help=", ".join(LISTS))] = "methods",
    like: Annotated[str | None, typer.Option("--like", help="only names that contain this")] = None,
    as_md: AsMarkdown = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Names that exist, with a line about each."""
    if what not in LISTS:
        raise UnknownNameError("list", what, LISTS)
    from fgvc.cli.listing import listing

    columns, rows = listing(Project.find(), what)
    if like:
        rows = [row for row in rows if like.casefold() in str(row["name"]).casefold()]
    print_table(rows, columns, style_of(as_md, as_csv, as_json))


@app.command(rich_help_panel=PROJECT, epilog=example("fgvc describe vit_pico", "fgvc describe cub"))
def describe(
    name: Annotated[str, typer.Argument(help="a variant, method class, dataset, suite, weights or recipe")],
    as_json: AsJson = False,
) -> None:
    """All that a name stands for: recipe, options, sources."""
    from fgvc.cli.describing import describe_name

    print(describe_name(Project.find(), name, as_json))


@app.command(rich_help_panel=PROJECT, epilog=example("fgvc schema"))
def schema(
    check: Annotated[bool, typer.Option("--check", help="only say whether the files are up to date")] = False,
) -> None:
    """Write the JSON Schemas of params/, for editors."""
    project = Project.find()
    from fgvc.config.schema import stale_schemas, write_schemas

    if not check:
        for path in write_schemas(project):
            print(project.paths.shown(path))
    elif stale := stale_schemas(project):
        raise FgvcError(
            f"{len(stale)} schema file(s) are out of date, first: {project.paths.shown(stale[0])}",
            cure="fgvc schema",
        )


@app.command(
    rich_help_panel=PROJECT,
    epilog=example("fgvc stages", 'fgvc stages train --no-effect "renamed a variable"'),
)
def stages(
    stage: Annotated[str | None, typer.Argument(help="stage whose sources changed")] = None,
    no_effect: Annotated[
        str | None,
        typer.Option("--no-effect", metavar="WHY", help="the change has no numeric effect, because …"),
    ] = None,
    raised: Annotated[
        str | None,
        typer.Option("--raised", metavar="WHY", help="the version was raised in stages.py, because …"),
    ] = None,
) -> None:
    """For developers: stages whose code changed."""
    from fgvc.config import stages_lock
    from fgvc.config.stages import STAGES

    project = Project.find()
    if stage is None:
        rows = stages_lock.overview(project)
        print_table(
            rows,
            [Column("stage", "stage"), Column("version", "version"), Column("state", "state", prose=True)],
            style_of(),
        )
        return
    if stage not in STAGES:
        raise UnknownNameError("stage", stage, STAGES)
    if (no_effect is None) == (raised is None):
        raise FgvcError("say what the change does to the numbers", cure='--no-effect "why" or --raised "why"')
    print(stages_lock.account(project, stage, no_effect or raised or "", raised=raised is not None))
