"""Targets as users type them: which suite they mean, and what to say when nothing makes them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from fgvc.config.project import Kind, Project
from fgvc.errors import FgvcError, UnknownNameError, available, nearest
from fgvc.workflow.rules import FIGURE_SUFFIXES, TABLE_SUFFIXES, Rules

#: Folders below results/ that are not suites.
RESERVED = ("runs", "sweeps", "splits", "stats", "cost", "tables", "figures", "audit")

_RUN_FILES = ("run.json", "model.safetensors", "history.csv", "metrics.json", "predictions.parquet")
_LISTS = ("train.csv", "val.csv", "train_val.csv", "test.csv", "classes.csv")

#: The files that stand at the end of a target below results/.
_FILES: dict[str, tuple[str, ...]] = {
    "runs": _RUN_FILES,
    "sweeps": ("lr.json", *(f for f in _RUN_FILES if f != "model.safetensors")),
    "splits": ("split.json", *_LISTS),
}


def given_targets(arguments: Iterable[str]) -> list[str]:
    """The arguments of a snakemake command line that are files below results/ or data/."""
    return [a for a in arguments if re.match(r"(\./)?(results|data)/", a)]


def suites_of(project: Project, arguments: Iterable[str]) -> list[str | None]:
    """The suites whose tables or figures a command line asks for (None: the default suite's short path)."""
    found: list[str | None] = []
    targets = given_targets(arguments)
    for target in targets:
        parts = PurePosixPath(target).parts
        if len(parts) == 3 and parts[1] in ("tables", "figures"):
            found.append(None)
        elif len(parts) == 4 and parts[2] in ("tables", "figures"):
            found.append(parts[1])
    if not targets:
        found.append(None)
    known = [None, *project.names("suite")]
    return [suite for suite in dict.fromkeys(found) if suite in known]


def check(rules: Rules, arguments: Iterable[str]) -> None:
    """Refuse, before any work, a target with a name that does not exist.

    Raises FgvcError that says which part of the path is unknown and what the nearest one is.
    """
    for name in rules.project.names("suite"):
        if name in RESERVED:
            raise FgvcError(
                f"a suite cannot be called '{name}': results/{name}/ holds something else",
                file=rules.project.paths.shown(rules.project.file("suite", name)),
                cure="rename the file",
            )
    for target in given_targets(arguments):
        try:
            _check_one(rules.project, PurePosixPath(target))
        except FgvcError as error:
            error.problem = f"{error.problem} (in the target {target})"
            raise


def _check_one(project: Project, target: PurePosixPath) -> None:
    parts = target.parts
    if parts[0] == "data":
        _check_data(project, parts)
    elif len(parts) > 1 and parts[1] in ("tables", "figures"):
        _check_report(project, project.settings.default_suite, parts[1:])
    elif len(parts) > 2 and parts[2] in ("tables", "figures"):
        _known(project, "suite", parts[1])
        _check_report(project, parts[1], parts[2:])
    elif len(parts) > 2 and parts[1] in (*_FILES, "stats", "cost"):
        _check_ids(project, parts)
    else:
        shapes = "tables/NAME.tex, SUITE/tables/NAME.tex, figures/NAME.png, SUITE/figures/NAME.png"
        guess = nearest(parts[1] if len(parts) > 1 else "", [*RESERVED, *project.names("suite")])
        raise FgvcError(
            f"nothing makes results/{'/'.join(parts[1:])}"
            + (f"; did you mean 'results/{guess}/…'?" if guess else ""),
            cure=f"targets below results/ are {shapes}; more in docs/workflow.md",
        )


def _check_data(project: Project, parts: tuple[str, ...]) -> None:
    if len(parts) > 2 and parts[1] == "weights":
        _known(project, "weights", re.sub(r"\.(json|safetensors)$", "", parts[2]))
    elif len(parts) == 2:
        _known(project, "dataset", PurePosixPath(parts[1]).stem)


def _check_report(project: Project, suite_name: str, parts: tuple[str, ...]) -> None:
    kind, suffixes = ("table", TABLE_SUFFIXES) if parts[0] == "tables" else ("figure", FIGURE_SUFFIXES)
    file = PurePosixPath(parts[-1])
    if len(parts) != 2:
        raise FgvcError(f"a {kind} stands right below {parts[0]}/")
    _known(project, kind, file.stem)  # type: ignore[arg-type]
    suite = project.suite(suite_name)
    listed = suite.tables if kind == "table" else suite.figures
    if file.stem not in listed:
        raise FgvcError(
            f"the suite '{suite_name}' has no {kind} '{file.stem}'",
            file=project.paths.shown(project.file("suite", suite_name)),
            key=f"{kind}s",
            cure=available(kind, list(listed)) + "; or add it to the suite",
        )
    if file.suffix.lstrip(".") not in suffixes:
        raise FgvcError(
            f"a {kind} has no form '{file.suffix}'", cure=f"forms: {', '.join('.' + s for s in suffixes)}"
        )


def _check_ids(project: Project, parts: tuple[str, ...]) -> None:
    folder, ids = parts[1], parts[2:]
    if folder == "cost":
        _known(project, "method", ids[0])
        return
    _known_dataset(project, re.sub(r"\.json$", "", ids[0]))
    if folder in ("runs", "sweeps") and len(ids) > 1:
        _known(project, "method", ids[1])
    files = _FILES.get(folder)
    if files and ids[-1] not in files:
        guess = nearest(ids[-1], files)
        raise FgvcError(
            f"no rule makes '{ids[-1]}' there" + (f"; did you mean '{guess}'?" if guess else ""),
            cure=f"files there: {', '.join(files)}",
        )


def _known(project: Project, kind: Kind, name: str) -> None:
    project.file(kind, name)


def _known_dataset(project: Project, name: str) -> None:
    canonical = project.canonical_dataset(name)
    if canonical != name:
        raise UnknownNameError("dataset id", name, [canonical], listing="fgvc list datasets")


def result_places(project: Project, arguments: Iterable[str]) -> list[str]:
    """Where the tables and figures are that a command line asks for, as lines to print."""
    lines = []
    for suite in suites_of(project, arguments):
        listed = project.suite(suite or project.settings.default_suite)
        for name in listed.tables:
            lines.append(f"table:  {project.paths.shown(project.paths.table(suite, name))}.md")
        for name in listed.figures:
            lines.append(f"figure: {project.paths.shown(project.paths.figure(suite, name))}.png")
    return [line for line in lines if (project.root / line.split()[1]).is_file()]
