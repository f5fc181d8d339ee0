"""Targets as users type them: which suite they mean, and what to say when nothing makes them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from fgvc.config.conditions import PATTERN as CONDITIONS
from fgvc.config.paths import rate_text
from fgvc.config.project import Project
from fgvc.config.suite import figure_suffixes, is_of_every_suite
from fgvc.errors import FgvcError, UnknownNameError, available, nearest
from fgvc.workflow.rules import TABLE_SUFFIXES, Rules

#: Folders below results/ that are not suites.
RESERVED = ("runs", "sweeps", "splits", "stats", "cost", "throughput", "cka", "tables", "figures", "audit")

#: The audit that is of no suite, and what an audit is written as.
PUBLISHED_AUDIT = "published"
AUDIT_SUFFIXES = ("html", "md", "json")
_AUDITS_TEXT = (
    "files there: results/audit/data/DATASET.md, results/audit/published.html, results/audit/SUITE.html"
)

#: What `fgvc track` gave to DVC of a suite.
_TRACKED = re.compile(r"results/(?:([a-z0-9_]+)/)?tracked\.json")

#: The rules that have no wildcards, and so can be asked for by their name.
NAMED_RULES = ("all", "track")

_RUN_FILES = ("run.json", "model.safetensors", "history.csv", "metrics.json", "predictions.parquet")
_SWEEP_FILES = tuple(name for name in _RUN_FILES if name != "model.safetensors")
_LISTS = ("train.csv", "val.csv", "train_val.csv", "test.csv", "classes.csv")

#: What follows a folder below results/: a path, and the files at its end where they have names of their own.
_FORMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "runs": ("DATASET/METHOD/SIZE/seedK/", _RUN_FILES),
    "sweeps": ("DATASET/METHOD/SIZE/lrX/", _SWEEP_FILES),
    "splits": ("DATASET/", ("split.json", *_LISTS)),
    "stats": ("DATASET.json", ()),
    "cost": ("METHOD/SIZE/CLASSES.json", ()),
    "throughput": ("DATASET/METHOD/SIZE/CONDITIONS.json", ()),
    "cka": ("DATASET/METHOD/SIZE/seedK.json", ()),
}
_PLACES = {
    "DATASET": r"[a-z0-9_]+",
    "METHOD": r"[a-z0-9_]+",
    "SIZE": r"[1-9][0-9]*",
    "CLASSES": r"[1-9][0-9]*",
    "CONDITIONS": CONDITIONS,
    "seedK": r"seed[0-9]+",
    "lrX": r"lr[0-9.e-]+",
}
_REPORT = re.compile(r"results/(?:([a-z0-9_]+)/)?(tables|figures)/([^/.]+)\.[a-z]+")
_FORMS_TEXT = "targets are results/tables/NAME.tex, results/SUITE/tables/NAME.tex, …: docs/workflow.md"
_WEIGHT_FILE = re.compile(r"(.*)\.(json|safetensors)")


@dataclass(frozen=True)
class Asked:
    """Tables and figures of one suite that a command asks for.

    ``name`` is the suite; ``suite`` is its folder in results/, or None where the short path is asked for.
    """

    suite: str | None
    name: str
    tables: tuple[str, ...]
    figures: tuple[str, ...]


def clean(target: str) -> str:
    """A target without ``./`` and doubled slashes."""
    return os.path.normpath(target)


def asked_of(project: Project, targets: Iterable[str]) -> list[Asked]:
    """The tables and figures that ``targets`` name; all of the default suite when there is no target."""
    given = [clean(target) for target in targets]
    default = project.settings.default_suite
    if not given or set(NAMED_RULES) & set(given):
        suite = project.suite(default)
        return [Asked(None, default, tuple(suite.tables), tuple(suite.figures))]
    named: dict[tuple[str | None, str], dict[str, list[str]]] = {}
    for match in filter(None, map(_REPORT.fullmatch, given)):
        suite_path, folder, name = match.groups()
        suite_name = suite_path or project.suite_at_short_path(_kind_in(folder), name)
        of_suite = named.setdefault((suite_path, suite_name), {"tables": [], "figures": []})
        if name not in of_suite[folder]:
            of_suite[folder].append(name)
    for match in filter(None, map(_TRACKED.fullmatch, given)):  # all of the suite comes first
        suite = project.suite(match[1] or default)
        named[match[1], match[1] or default] = {"tables": list(suite.tables), "figures": list(suite.figures)}
    return [Asked(*ids, tuple(found["tables"]), tuple(found["figures"])) for ids, found in named.items()]


def _kind_in(folder: str) -> Literal["table", "figure"]:
    return "table" if folder == "tables" else "figure"


def other_targets(targets: Iterable[str]) -> list[str]:
    """The targets that are files other than tables and figures."""
    files = ["results/tracked.json" if target == "track" else clean(target) for target in targets]
    return [file for file in files if file not in NAMED_RULES and not _REPORT.fullmatch(file)]


def result_places(project: Project, targets: Iterable[str]) -> list[str]:
    """Where the things are that ``targets`` ask for, as lines to print."""
    given, paths = list(targets), project.paths
    lines = []
    for asked in asked_of(project, given):
        lines += [f"table:  {paths.shown(paths.table(asked.suite, t))}.md" for t in asked.tables]
        lines += [f"figure: {paths.shown(paths.figure(asked.suite, f))}.png" for f in asked.figures]
    lines += [f"file:   {target}" for target in other_targets(given)]
    return [line for line in lines if (project.root / line.split(maxsplit=1)[1]).is_file()]


def check(rules: Rules, targets: Iterable[str]) -> None:
    """Refuse, before any work, a target that nothing makes.

    Raises FgvcError that says which part of the path is unknown and what the nearest one is.
    """
    project = rules.project
    for name in project.names("suite"):
        if name in (*RESERVED, PUBLISHED_AUDIT):
            raise FgvcError(
                f"a suite cannot be called '{name}': results/{name}/ holds something else",
                file=project.paths.shown(project.file("suite", name)),
                cure="rename the file",
            )
    for target in targets:
        try:
            _check_one(project, clean(target))
        except FgvcError as error:
            if target not in error.problem:
                error.problem = f"{error.problem} (in the target {target})"
            raise


def _check_one(project: Project, target: str) -> None:
    parts = PurePosixPath(target).parts
    if target in NAMED_RULES:
        return
    if PurePosixPath(target).is_absolute():
        _refuse_absolute(project, Path(target))
    elif parts[0] == "data":
        _check_data(project, parts)
    elif parts[0] != "results":
        _refuse_outsider(project, target)
    elif tracked := _TRACKED.fullmatch(target):
        project.suite(tracked[1] or project.settings.default_suite)
    elif len(parts) > 1 and parts[1] in ("tables", "figures"):
        _check_report(project, None, parts[1:])
    elif len(parts) > 2 and parts[2] in ("tables", "figures"):
        project.file("suite", parts[1])
        _check_report(project, parts[1], parts[2:])
    elif len(parts) > 1 and parts[1] == "audit":
        _check_audit(project, parts)
    elif len(parts) > 1 and parts[1] in _FORMS:
        _check_ids(project, parts)
    else:
        guess = nearest(parts[1] if len(parts) > 1 else "", [*RESERVED, *project.names("suite")])
        raise _nothing_makes(target, f"results/{guess}/…" if guess and guess != parts[1] else None)


def _nothing_makes(target: str, guess: str | None = None, cure: str = _FORMS_TEXT) -> FgvcError:
    return FgvcError(f"nothing makes {target}" + (f"; did you mean '{guess}'?" if guess else ""), cure=cure)


def _refuse_absolute(project: Project, target: Path) -> None:
    if target.is_relative_to(project.root):
        inner = target.relative_to(project.root)
        raise FgvcError("targets are relative to the project's folder", cure=f"ask for {inner}")
    raise FgvcError("this file lies outside the project", cure=_FORMS_TEXT)


def _refuse_outsider(project: Project, target: str) -> None:
    """A target in neither results/ nor data/: often a bare name, or a path without its beginning."""
    parts, paths = PurePosixPath(target).parts, project.paths
    word = PurePosixPath(parts[-1]).stem
    meant: dict[str, str] = {}
    for suite in project.names("suite"):
        table = project.suite(suite).tables[0]
        meant[suite] = f"{paths.shown(paths.table(suite, table))}.tex"
    meant |= {t: f"{paths.shown(paths.table(None, t))}.tex" for t in project.names("table")}
    meant |= {f: f"{paths.shown(paths.figure(None, f))}.pdf" for f in project.names("figure")}
    guess = meant.get(nearest(word, meant) or "")
    if len(parts) > 1:
        top = nearest(parts[0], ["results", "data"])
        guess = "/".join((top, *parts[1:])) if top else f"results/{target}" if parts[0] in RESERVED else guess
    raise _nothing_makes(target, guess)


def _check_data(project: Project, parts: tuple[str, ...]) -> None:
    name = parts[-1]
    if len(parts) == 3 and parts[1] == "weights":
        match = _WEIGHT_FILE.fullmatch(name)
        stem = match[1] if match else name
        project.file("weights", stem)
        _one_of(name, [f"{stem}.json", f"{stem}.safetensors"])
    elif len(parts) == 2:
        stem = PurePosixPath(name).stem
        _known_dataset(project, stem)
        _one_of(name, [f"{stem}.json", f"{stem}.csv"])
    else:
        raise _nothing_makes(
            "/".join(parts), cure="files there: data/DATASET.json, data/weights/WEIGHTS.json"
        )


def _check_audit(project: Project, parts: tuple[str, ...]) -> None:
    if len(parts) == 3:
        stem = PurePosixPath(parts[2]).stem
        if stem != PUBLISHED_AUDIT:
            _audited_suite(project, stem)
        _one_of(parts[2], [f"{stem}.{suffix}" for suffix in AUDIT_SUFFIXES])
        return
    if len(parts) != 4 or parts[2] != "data":
        raise _nothing_makes("/".join(parts), cure=_AUDITS_TEXT)
    stem = PurePosixPath(parts[3]).stem
    _known_dataset(project, stem)
    _one_of(parts[3], [f"{stem}.md", f"{stem}.json"])


def _audited_suite(project: Project, name: str) -> None:
    """The suite of an audit; its other audit is a possible meaning, too."""
    known = [PUBLISHED_AUDIT, *project.names("suite")]
    if name not in known and name in project.names("dataset"):
        raise _nothing_makes(f"results/audit/{name}", f"results/audit/data/{name}.md", _AUDITS_TEXT)
    if name not in known:
        raise UnknownNameError("audit", name, known, listing="fgvc list suites")
    project.suite(name)


def _check_report(project: Project, suite_name: str | None, parts: tuple[str, ...]) -> None:
    kind = _kind_in(parts[0])
    suffix = "tex" if kind == "table" else "pdf"
    if len(parts) != 2:
        listed = project.suite(suite_name or project.settings.default_suite).listed(kind)
        cure = f"name a file in it, such as {parts[0]}/{listed[0]}.{suffix}" if listed else None
        raise FgvcError(f"{parts[0]}/ is a folder of {parts[0]}", cure=cure)
    file = PurePosixPath(parts[1])
    project.file(kind, file.stem)
    name = suite_name or project.suite_at_short_path(kind, file.stem)
    listed = project.suite(name).listed(kind)
    if kind == "table" and is_of_every_suite(project.table(file.stem)):
        _at_short_path(project, suite_name, file.stem)
    elif file.stem not in listed:
        others = project.suites_with(kind, file.stem)
        elsewhere = [f"results/{s}/{parts[0]}/{file.stem}.{suffix}" for s in others]
        raise FgvcError(
            f"the suite '{name}' has no {kind} '{file.stem}'",
            file=project.paths.shown(project.file("suite", name)),
            key=f"{kind}s",
            cure=f"ask for {' or '.join(elsewhere[:3])}; or add it to the suite"
            if elsewhere
            else available(kind, list(listed)) + "; or add it to the suite",
        )
    suffixes = TABLE_SUFFIXES if kind == "table" else figure_suffixes(project.figure(file.stem))
    _one_of(file.name, [f"{file.stem}.{suffix}" for suffix in suffixes])


def _at_short_path(project: Project, suite_name: str | None, table: str) -> None:
    if suite_name is not None:
        raise FgvcError(
            f"the table '{table}' is the same in every suite",
            cure=f"ask for {project.paths.shown(project.paths.table(None, table))}.tex",
        )
    if project.table(table).kind == "hw_stats" and not project.present_datasets():
        raise FgvcError("no dataset is here yet", file="data", cure="fgvc data fetch typefaces")


def _check_ids(project: Project, parts: tuple[str, ...]) -> None:
    """The names in a path below results/runs, sweeps, splits, stats or cost, and the path's form."""
    folder, ids = parts[1], parts[2:]
    form, files = _FORMS[folder]
    if folder == "sweeps" and ids[-1:] == ("lr.json",):
        form, files = "DATASET/METHOD/SIZE/", ("lr.json",)
    for place, given in zip(form.split("/"), ids, strict=False):
        if place.startswith("DATASET"):
            _known_dataset(project, given.removesuffix(".json"))
        elif place == "METHOD":
            project.variant(given)
    path = "/".join(ids[:-1]) + "/" if files else "/".join(ids)
    if not re.fullmatch(_pattern(form), path):
        example = f"results/{folder}/{form}{files[0] if files else ''}"
        raise _nothing_makes("/".join(parts), cure=f"files there: {example}")
    if files:
        _one_of(ids[-1], files)
    if "lrX" in form:
        _check_rate(ids[-2])


def _pattern(form: str) -> str:
    return re.sub("|".join(_PLACES), lambda place: _PLACES[place[0]], form.replace(".", r"\."))


def _check_rate(part: str) -> None:
    try:
        right = f"lr{rate_text(float(part.removeprefix('lr')))}"
    except ValueError:
        raise FgvcError(f"'{part}' is no learning rate", cure="write it like lr0.003") from None
    if right != part:
        raise FgvcError(f"a learning rate has one spelling in paths; did you mean '{right}'?")


def _one_of(name: str, files: Sequence[str]) -> None:
    if name not in files:
        guess = nearest(name, files)
        raise FgvcError(
            f"no rule makes '{name}' there" + (f"; did you mean '{guess}'?" if guess else ""),
            cure=f"files there: {', '.join(files)}",
        )


def _known_dataset(project: Project, name: str) -> None:
    canonical = project.canonical_dataset(name)
    if canonical != name:
        raise UnknownNameError("dataset id", name, [canonical], listing="fgvc list datasets")
    project.dataset(name)
