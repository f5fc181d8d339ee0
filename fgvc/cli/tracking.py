"""fgvc track."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fgvc.cli.groups import PROJECT, SuiteName, app, example
from fgvc.config.project import Project
from fgvc.errors import FgvcError
from fgvc.provenance.files import write_json


@app.command(rich_help_panel=PROJECT, epilog=example("fgvc track", "fgvc track data/typefaces --no-push"))
def track(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH]...", help="below data/ or results/", show_default="all"),
    ] = None,
    suite: SuiteName = None,
    push: Annotated[bool, typer.Option("--push/--no-push", help="send it to the default remote")] = True,
    write: Annotated[
        bool, typer.Option("--write", help="a suite's data, runs, tables; write its tracked.json")
    ] = False,
    dvc_yaml: Annotated[bool, typer.Option("--dvc-yaml", help="only bring dvc.yaml up to date")] = False,
) -> None:
    """Give finished data and runs to DVC, and push them.

    Git gets the small records beside them: the last line says which files to commit.
    """
    project = Project.find()
    if dvc_yaml:
        from fgvc.tracking.dvc_yaml import write_dvc_yaml

        print("dvc.yaml: " + ("written" if write_dvc_yaml(project) else "up to date"))
        return
    if targets and (suite or write):
        raise FgvcError("paths and a suite exclude one another", cure="give the paths, or --suite")
    wanted = [_absolute(target) for target in targets or []]
    if suite or write:
        wanted = _of_suite(project, suite)
    from fgvc.tracking.track import track as track_files
    from fgvc.tracking.track import tracked_lines

    done = track_files(project, wanted, lambda text: print(text, file=sys.stderr, flush=True), push=push)
    if write:
        content = {"files": done.files, "left_out": done.left_out, "remote": done.remote}
        write_json(project.paths.tracked(suite), content)
    print("\n".join(tracked_lines(done)))


def _absolute(target: str) -> Path:
    return Path(target).absolute()


def _of_suite(project: Project, suite: str | None) -> list[Path]:
    """The records of all that a suite's tables and figures stand on, and these."""
    from fgvc.workflow.jobs import suite_jobs

    name = suite or project.settings.default_suite
    folder = project.paths.suite_dir(suite)
    records = [job.record for job in suite_jobs(project, name, short=suite is None)]
    return [*records, folder / "tables", folder / "figures"]
